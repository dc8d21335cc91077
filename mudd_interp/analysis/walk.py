"""The one loop over a corpus: one forward pass per batch, for as many analyses as are asked for."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from mudd_interp.analysis.base import Accumulator, Analysis, Tape
from mudd_interp.analysis.finite import finite_hooks
from mudd_interp.analysis.inputs import checked, require_evaluation
from mudd_interp.analysis.provenance import TokensSeen, provenance
from mudd_interp.analysis.result import Result
from mudd_interp.data import TokenBatches, describe
from mudd_interp.protocol import Hook, HookedModel, Inputs, Observer, require_traits

Progress = Callable[[int, int], None]
"""Called after each batch with the sequences and the tokens seen so far. An
exception that it raises ends the walk, and no hook stays behind: this is how to stop one."""

NO_BATCHES = "there are no batches (or they were used up): give at least one."

NO_LOCK = nullcontext[Any]()
"""For a model that no other thread uses."""


def walk(
    model: HookedModel,
    batches: TokenBatches,
    analyses: Sequence[Analysis[Any]],
    progress: Progress | None = None,
    lock: AbstractContextManager[Any] = NO_LOCK,
) -> tuple[Any, ...]:
    """The results of analyses of one model on a corpus, in their order.

    Args:
        model: Any hooked model, in evaluation mode.
        batches: int64 token ids ``[batch pos]``, without padding.
        analyses: What to compute.
        progress: See :data:`Progress`.
        lock: Held during each forward pass, while its hooks are there, and free in between.

    Raises:
        ValueError: If there are no batches, one is not as described, the model is in training mode,
            or an analysis is not for it, or refuses model or text.
    """
    require_evaluation(model)
    for analysis in analyses:
        require_traits(model, analysis.name, analysis.required)
    sums = [analysis.start(model) for analysis in analyses]
    hooks, seen = _shared_hooks(model, sums), TokensSeen(model.front)
    for tokens in checked(batches, model):
        _take_in(model, tokens, sums, hooks, seen.sequences, lock)
        seen.add(tokens)
        if progress is not None:
            progress(seen.sequences, seen.tokens)
    if not seen.tokens:
        raise ValueError(NO_BATCHES)
    data = describe(batches)
    return tuple(each.finish(provenance(model, data, seen, each.options)) for each in sums)


def _shared_hooks(model: HookedModel, sums: Iterable[Accumulator[Result]]) -> list[Hook] | None:
    """The hooks of the pass that all share; ``None`` if no analysis needs it."""
    if not any(each.shared for each in sums):
        return None
    looks = [(name, Observer(look)) for each in sums for name, look in each.hooks()]
    return [*finite_hooks(model), *looks]  # reported before they are summed


def _take_in(
    model: HookedModel,
    tokens: Inputs,
    sums: Sequence[Accumulator[Result]],
    hooks: Sequence[Hook] | None,
    first: int,
    lock: AbstractContextManager[Any],
) -> None:
    """One batch through the model, for all analyses."""
    if hooks is None:
        tape = Tape(tokens, first, None)
    else:
        with lock, torch.no_grad():
            tape = Tape(tokens, first, _shared_pass(model, tokens, sums, hooks))
            for each in sums:
                each.see(tape)
    for each in sums:
        for step in each.steps(tape):
            with lock, torch.no_grad():
                step()


def _shared_pass(
    model: HookedModel,
    tokens: Inputs,
    sums: Sequence[Accumulator[Result]],
    hooks: Sequence[Hook],
) -> Tensor | None:
    wanted = "logits" if any(each.logits for each in sums) else None
    with model.hooks(hooks):
        for each in sums:
            each.begin(tokens)
        return model(tokens, return_type=wanted)
