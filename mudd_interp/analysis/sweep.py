"""Several analyses of a corpus in one walk over it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import MISSING, fields
from typing import Any

from mudd_interp.analysis.base import Analysis
from mudd_interp.analysis.walk import NO_LOCK, Progress, walk
from mudd_interp.axes import unknown_name
from mudd_interp.data import TokenBatches
from mudd_interp.protocol import HookedModel


def sweep(
    model: HookedModel,
    batches: TokenBatches,
    analyses: Sequence[Any],
    progress: Progress | None = None,
    lock: AbstractContextManager[Any] = NO_LOCK,
) -> tuple[Any, ...]:
    """Run several analyses with one forward pass per batch.

    The numbers are those of the analyses run one by one; bit for bit, except that asking for
    patterns (the analyses of heads) makes attention leave its fused kernel, which moves the other
    analyses by rounding. Analyses that run the model themselves (``ablation_sweep``,
    ``edge_attribution``, ``head_inputs``) do so beside the pass that the others share.

    Args:
        model: Any hooked model, in evaluation mode.
        batches: int64 token ids ``[batch pos]``, without padding: every position counts.
        analyses: Each of them the function (``layer_similarity``) or its name, for the default
            options, or an object such as ``HeadActivityAnalysis(sink_token_ids=[])``.
        progress: See :data:`Progress`.
        lock: Held during each forward pass, while the hooks are there, and free in between, so that
            threads can share a model.

    Returns:
        The results, in the order of ``analyses``.

    Raises:
        ValueError: As the analyses one by one; also if there are none, one is unknown, or one has
            options without a default.
    """
    if not analyses:
        known = ", ".join(Analysis.named)
        raise ValueError(f"expected at least one analysis of {known}, got none.")
    return walk(model, batches, [as_analysis(given) for given in analyses], progress, lock)


def as_analysis(given: Any) -> Analysis[Any]:
    """An analysis from its function, its name, or an object that is one.

    Raises:
        ValueError: If there is none of that name, or it has options without a default.
    """
    if isinstance(given, Analysis):
        return given
    name = str(getattr(given, "__name__", given))
    if name not in Analysis.named:
        raise ValueError(unknown_name("analysis", name, Analysis.named))
    kind: Any = Analysis.named[name]
    lacking = [option.name for option in fields(kind) if option.default is MISSING]
    if lacking:
        raise ValueError(
            f"{name} has no default for {lacking[0]}: give a {kind.__name__} with its options."
        )
    return kind()
