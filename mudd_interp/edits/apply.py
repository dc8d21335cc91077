"""From edits to hooks: the only way in which an edit reaches a model."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mudd_interp import axes
from mudd_interp.axes import Stream
from mudd_interp.edits.edit import Edit, Edits, as_edits, edits_text
from mudd_interp.protocol import Hook, HookedModel
from mudd_interp.wiring import Changed, Read

M = TypeVar("M", bound=HookedModel)

Step = Callable[[Tensor], Tensor]
"""What an edit makes of a hooked tensor, or of weights: a new one of the same shape."""

Target = str | Read
"""What an edit changes: the tensor of a hook, or the weights of a read."""


@runtime_checkable
class Means(Protocol):
    """Mean weights over a corpus: a ``DenseWeights`` result of the same model."""

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams of the model, in q k v r order."""
        ...

    @property
    def mean(self) -> Float64[np.ndarray, "stream layer source"]:
        """Mean weights, NaN where there is no edge."""
        ...


@contextmanager
def edited(model: M, edits: Edits, means: Means | None = None) -> Generator[M]:
    """A model with edits, for the length of a ``with`` block; hooks of others stay as they are.

    Hooks that were there before see the tensors before the edits, hooks that are added inside (a
    cache too) after them. Positions count from the first token of a forward pass.

    Args:
        model: Any hooked model.
        edits: What to change; none changes nothing.
        means: Where an edit sets weights to their mean: ``dense_weights(model, batches)``.

    Raises:
        ValueError: If an edit names what the model has not, would change nothing in it (a stream on
            the plain residual has constant weights: 1 on the newest source, which can be cut, and
            0 elsewhere), or needs means that are not given. While the model runs: if a position
            lies beyond the sequence.
    """
    with model.hooks(edit_hooks(model, edits, means)):
        yield model


def run(
    model: HookedModel, edits: Edits, *args: Any, means: Means | None = None, **kwargs: Any
) -> Any:
    """``model(*args, **kwargs)`` with edits; arguments and errors as for :func:`edited`."""
    with edited(model, edits, means):
        return model(*args, **kwargs)


def edit_hooks(model: HookedModel, edits: Edits, means: Means | None = None) -> list[Hook]:
    """The hooks of edits, one for each tensor that they change; arguments as for :func:`edited`."""
    by_position = any(each.positions or each.action == "shuffle" for each in as_edits(edits))
    targets = {target: [(None, each)] for target, each in _steps(model, edits, means).items()}
    return _hooks(model, targets, by_position=by_position)


def edits_by_position(model: HookedModel) -> bool:
    """Whether a model has edits that need the whole sequence in one pass.

    Those at chosen positions, which count from the first token of a pass, and those that move the
    weights of one token to another.
    """
    handles = [handle for point in model.hook_dict.values() for handle in point.fwd_hooks]
    hooks = [handle.user_hook for handle in handles]
    steps = [hook.change if isinstance(hook, Changed) else hook for hook in hooks]
    return any(isinstance(each, _Apply) and each.by_position for each in steps)


def batched_hooks(
    model: HookedModel, sets: Sequence[Edits], means: Means | None = None
) -> list[Hook]:
    """Several sets of edits in one pass: of a batch that holds the sequences once for each set."""
    targets: dict[Target, list[tuple[int | None, list[Step]]]] = {}
    for number, edits in enumerate(sets):
        for target, steps in _steps(model, edits, means).items():
            targets.setdefault(target, []).append((number, steps))
    return _hooks(model, targets, len(sets))


class _Apply:
    """Applies steps to a tensor, or to shares of its batch: a hook, or a change of weights.

    Args:
        steps: For each share its number (``None`` for all of the batch), and its steps in order.
        shares: Into how many equal shares the batch falls.
        by_position: Whether a step needs the whole sequence in one pass.
    """

    def __init__(
        self,
        steps: Sequence[tuple[int | None, Sequence[Step]]],
        shares: int = 1,
        by_position: bool = False,
    ):
        self.steps, self.shares, self.by_position = steps, shares, by_position

    def __call__(self, tensor: Tensor, hook: Any = None) -> Tensor:  # noqa: ARG002 (a hook's signature)
        parts = list(tensor.chunk(self.shares))
        for number, steps in self.steps:
            for step in steps:
                parts[number or 0] = step(parts[number or 0])
        return torch.cat(parts) if len(parts) > 1 else parts[0]


def _hooks(
    model: HookedModel,
    targets: Mapping[Target, Sequence[tuple[int | None, Sequence[Step]]]],
    shares: int = 1,
    by_position: bool = False,
) -> list[Hook]:
    hooks: list[Hook] = []
    for target, steps in targets.items():
        change = _Apply(steps, shares, by_position)
        hooks += (
            [(target, change)] if isinstance(target, str) else model.wiring.hooks(target, change)
        )
    return hooks


def _steps(model: HookedModel, edits: Edits, means: Means | None) -> dict[Target, list[Step]]:
    steps: dict[Target, list[Step]] = {}
    for edit in as_edits(edits):
        for target, step in _of_edit(model, edit, means):
            steps.setdefault(target, []).append(step)
    return steps


def _of_edit(model: HookedModel, edit: Edit, means: Means | None) -> list[tuple[Target, Step]]:
    _check_ranges(model, edit)
    if edit.part == "edge":
        return _of_edges(model, edit, means)
    assert edit.layer is not None
    if edit.part == "mlp":
        return [(axes.mlp_out(edit.layer), partial(_zero, edit))]
    return [(axes.attn(edit.layer, "hook_z"), partial(_zero_head, edit))]


def _check_ranges(model: HookedModel, edit: Edit) -> None:
    wiring, layers = model.wiring, model.cfg.n_layers
    sources = len(wiring.sources)
    if edit.part == "edge":
        layers = wiring.n_rows
        if edit.layer is not None:
            newest = [wiring.columns(read)[-1] for read in wiring.rows if read.row == edit.layer]
            sources = 1 + max(newest, default=sources - 1)
    counts = {"layer": layers, "source": sources, "head": model.cfg.n_heads}
    for name, count in counts.items():
        value = getattr(edit, name)
        if value is not None and value >= count:
            raise ValueError(f"`{edit}`: {name} must lie in 0..{count - 1} here, got {value}.")
    if edit.stream is not None and edit.stream not in wiring.streams:
        raise ValueError(
            f"`{edit}`: the streams of this model are {', '.join(wiring.streams)}"
            + (", which all four inputs of a block read." if len(wiring.streams) == 1 else ".")
        )
    if edit.part == "edge" and edit.stream is not None and edit.layer is not None:
        wiring.row(edit.stream, edit.layer)


def _of_edges(model: HookedModel, edit: Edit, means: Means | None) -> list[tuple[Target, Step]]:
    wiring, steps = model.wiring, list[tuple[Target, Step]]()
    for read in wiring.rows:
        if edit.layer not in (None, read.row) or edit.stream not in (None, read.stream):
            continue
        columns = wiring.columns(read)
        if not wiring.weighed(read):
            if edit.action != "cut" or edit.source not in (None, columns[-1]):
                continue
        elif edit.source is not None and edit.source not in columns:
            continue
        steps.append((read, _weights_step(model, edit, read, means)))
    if not steps:
        raise ValueError(_NOTHING.format(edit=edit, name=model.info.name))
    return steps


_NOTHING = (
    "`{edit}` would change nothing in {name}: where it has no dense weights, a stream is the plain "
    "residual, whose edge on the newest source can be cut, and where all other weights are 0. "
    "Leave the edit out, or cut an edge i<-i+1. (The last aggregation feeds stream r only.)"
)


def _weights_step(model: HookedModel, edit: Edit, read: Read, means: Means | None) -> Step:
    columns = model.wiring.columns(read)
    at = None if edit.source is None else columns.index(edit.source)
    if edit.action == "shuffle":
        return partial(_shuffle, edit, at, read)
    return partial(_set_weights, edit, at, _values(model, edit, read, means))


def _values(
    model: HookedModel, edit: Edit, read: Read, means: Means | None
) -> Float[Tensor, " source"]:
    """What the weights of a row become."""
    wiring = model.wiring
    if edit.action == "static":
        static = wiring.static(read)
        if static is None:
            raise ValueError(
                f"`{edit}`: the weights of {model.info.name} are composed of gates, and have no "
                "static part; `mean` sets them to their means."
            )
        return static.detach()
    if edit.action == "mean":
        return _mean(model, edit, read, means)
    plain = wiring.plain(read)
    return plain if edit.action == "plain" else torch.zeros_like(plain)


def _mean(
    model: HookedModel, edit: Edit, read: Read, means: Means | None
) -> Float[Tensor, " source"]:
    if means is None:
        raise ValueError(
            f"`{edit}` needs mean weights: give means=mudd_interp.analysis.dense_weights(model, "
            "batches)."
        )
    wiring = model.wiring
    shape = (len(wiring.streams), wiring.n_rows, len(wiring.sources))
    if means.streams != wiring.streams or means.mean.shape != shape:
        raise ValueError(
            f"the means are of a model with streams {', '.join(means.streams)} and "
            f"{means.mean.shape[1]} layers, this one has {', '.join(wiring.streams)} and "
            f"{wiring.n_rows}: compute them of this model."
        )
    row = means.mean[wiring.streams.index(read.stream), read.row]
    return torch.from_numpy(row[list(wiring.columns(read))])


def _set_weights(
    edit: Edit,
    column: int | None,
    values: Float[Tensor, " source"],
    weights: Float[Tensor, "batch pos source"],
) -> Float[Tensor, "batch pos source"]:
    return torch.where(_mask(edit, column, weights), values.to(weights), weights)


def _shuffle(
    edit: Edit, column: int | None, read: Read, weights: Float[Tensor, "batch pos source"]
) -> Float[Tensor, "batch pos source"]:
    at = _positions(edit, weights)
    seed = [read.row, axes.STREAMS.index(read.stream)]
    order = np.random.default_rng(seed).permutation(len(at))
    moved = weights.clone()
    moved[:, at] = weights[:, at[torch.from_numpy(order).to(at.device)]]
    return torch.where(_mask(edit, column, weights), moved, weights)


def _mask(edit: Edit, column: int | None, weights: Tensor) -> Tensor:
    """Which weights ``[pos source]`` an edit changes: of one column, or ``None`` for all."""
    mask = torch.zeros(weights.shape[1:], dtype=torch.bool, device=weights.device)
    columns = slice(None) if column is None else column
    mask[_positions(edit, weights)[:, None], torch.arange(weights.shape[2])[columns]] = True
    return mask


def _zero(edit: Edit, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
    return x.index_fill(1, _positions(edit, x), 0.0)


def _zero_head(
    edit: Edit, z: Float[Tensor, "batch pos head d_head"]
) -> Float[Tensor, "batch pos head d_head"]:
    changed = z.clone()
    changed[:, _positions(edit, z), edit.head] = 0.0
    return changed


def _positions(edit: Edit, tensor: Tensor) -> Tensor:
    """The positions of an edit.

    Raises:
        ValueError: If the sequence has no such position.
    """
    length = tensor.shape[1]
    if edit.positions is None:
        return torch.arange(length, device=tensor.device)
    if edit.positions[-1] >= length:
        raise ValueError(
            f"`{edits_text(edit)}` is about position {edit.positions[-1]}, the sequence has "
            f"{length}: positions must lie in 0..{length - 1}."
        )
    return torch.tensor(edit.positions, device=tensor.device)
