"""The one loop over a corpus: one forward pass per batch, for as many analyses as are asked for."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch

from mudd_interp.analysis.base import Analysis
from mudd_interp.analysis.detectors import HeadScores, HeadScoresAnalysis
from mudd_interp.analysis.distribution import WeightDistribution, WeightDistributionAnalysis
from mudd_interp.analysis.entropy import HeadEntropy, HeadEntropyAnalysis
from mudd_interp.analysis.finite import finite_hooks
from mudd_interp.analysis.heads import HeadActivity, HeadActivityAnalysis
from mudd_interp.analysis.inputs import checked, require_evaluation
from mudd_interp.analysis.norms import StreamNorms, StreamNormsAnalysis
from mudd_interp.analysis.provenance import TokensSeen, provenance
from mudd_interp.analysis.result import Result
from mudd_interp.analysis.similarity import LayerSimilarity, LayerSimilarityAnalysis
from mudd_interp.analysis.similarity_matrix import SimilarityMatrix, SimilarityMatrixAnalysis
from mudd_interp.analysis.sinks import SinkSensitivity, SinkSensitivityAnalysis
from mudd_interp.analysis.weights import DenseWeights, DenseWeightsAnalysis
from mudd_interp.axes import unknown_name
from mudd_interp.data import REPEATED_LENGTH, TokenBatches, describe, repeated_batches
from mudd_interp.protocol import HookedModel, Observer

Progress = Callable[[int, int], None]
"""Called after each batch with the sequences and the tokens seen so far. What it raises ends the
sweep, and no hook stays behind: so a sweep is stopped."""

NO_BATCHES = "there are no batches (or they were used up): give at least one."

NO_LOCK = nullcontext[Any]()
"""For a model that no other thread uses."""

R = TypeVar("R", bound=Result)


def layer_similarity(
    model: HookedModel, batches: TokenBatches, progress: Progress | None = None
) -> LayerSimilarity:
    """Mean cosine similarity of neighbouring blocks' inputs (paper, Fig. 6).

    Args:
        model: Any hooked model, in evaluation mode.
        batches: int64 token ids ``[batch pos]``, without padding: every position counts.
        progress: See :data:`Progress`.

    Raises:
        ValueError: If there are no batches, one is not as described, or the model is in training
            mode.
    """
    return _run(model, batches, [LayerSimilarityAnalysis()], progress)[0]


def similarity_matrix(
    model: HookedModel, batches: TokenBatches, progress: Progress | None = None
) -> SimilarityMatrix:
    """Mean cosine similarity of every two blocks' inputs.

    The arguments and errors are those of :func:`layer_similarity`.
    """
    return _run(model, batches, [SimilarityMatrixAnalysis()], progress)[0]


def stream_norms(
    model: HookedModel, batches: TokenBatches, progress: Progress | None = None
) -> StreamNorms:
    """Mean and spread of the L2 norm of the blocks' inputs, and of what enters the final norm.

    The arguments and errors are those of :func:`layer_similarity`.
    """
    return _run(model, batches, [StreamNormsAnalysis()], progress)[0]


def dense_weights(
    model: HookedModel, batches: TokenBatches, progress: Progress | None = None
) -> DenseWeights:
    """Mean and spread of the dense weights (paper, Figs. 12 and 13).

    The arguments and errors are those of :func:`layer_similarity`.
    """
    return _run(model, batches, [DenseWeightsAnalysis()], progress)[0]


def head_activity(
    model: HookedModel,
    batches: TokenBatches,
    sink_token_ids: Iterable[int] | None = None,
    first_positions: int = 2,
    progress: Progress | None = None,
) -> HeadActivity:
    """Share of tokens at which each head attends to something other than a sink (paper, Fig. 8).

    Args:
        model: Any hooked model, in evaluation mode.
        batches: int64 token ids ``[batch pos]``, without padding: every position counts.
        sink_token_ids: The sink tokens; ``None`` means those that read ``<bos>``,
            ``<|endoftext|>``, ``.`` or a newline, exactly. An empty list is allowed.
        first_positions: How many positions at the start of a sequence are sinks.
        progress: See :data:`Progress`.

    Raises:
        ValueError: As :func:`layer_similarity`; also if a sink is outside the vocabulary, or none
            are given and the model has no tokenizer.
    """
    analysis = HeadActivityAnalysis(sink_token_ids, first_positions)
    return _run(model, batches, [analysis], progress)[0]


def sink_sensitivity(
    model: HookedModel,
    batches: TokenBatches,
    sink_token_ids: Iterable[int] | None = None,
    most_positions: int = 8,
    progress: Progress | None = None,
) -> SinkSensitivity:
    """Head activity under every sink rule: 0..``most_positions`` first positions, twice.

    Args:
        model: Any hooked model, in evaluation mode.
        batches: int64 token ids ``[batch pos]``, without padding: every position counts.
        sink_token_ids: As for :func:`head_activity`; each rule is tried with and without them.
        most_positions: The largest number of first positions that is tried.
        progress: See :data:`Progress`.

    Raises:
        ValueError: As :func:`head_activity`.
    """
    analysis = SinkSensitivityAnalysis(sink_token_ids, most_positions)
    return _run(model, batches, [analysis], progress)[0]


def head_entropy(
    model: HookedModel, batches: TokenBatches, progress: Progress | None = None
) -> HeadEntropy:
    """Mean entropy of each head's attention, in nats.

    The arguments and errors are those of :func:`layer_similarity`; also a pattern with NaN.
    """
    return _run(model, batches, [HeadEntropyAnalysis()], progress)[0]


def head_scores(
    model: HookedModel,
    length: int = REPEATED_LENGTH,
    repeats: int = 3,
    n_sequences: int = 16,
    seed: int = 0,
    progress: Progress | None = None,
) -> HeadScores:
    """How much each head is a previous-token, duplicate-token or induction head.

    It is measured on :func:`mudd_interp.data.repeated_batches`, whose arguments these are; models
    with one tokenizer see the same tokens.

    Raises:
        ValueError: As :func:`mudd_interp.data.repeated_batches`; also if the model is in training
            mode, or a pattern holds NaN.
    """
    batches = repeated_batches(model, length, repeats, n_sequences, seed)
    return _run(model, batches, [HeadScoresAnalysis(length)], progress)[0]


def weight_distribution(
    model: HookedModel,
    batches: TokenBatches,
    limit: float = 4.0,
    bins: int = 400,
    progress: Progress | None = None,
) -> WeightDistribution:
    """The histogram of every dense weight over sequences and positions.

    Args:
        model: Any hooked model, in evaluation mode.
        batches: int64 token ids ``[batch pos]``, without padding: every position counts.
        limit: Where the bins end, on both sides of zero; what lies beyond is counted there.
        bins: Number of equal bins between ``-limit`` and ``limit``.
        progress: See :data:`Progress`.

    Raises:
        ValueError: As :func:`layer_similarity`; also if the limit is not a positive number, there
            is no bin, or a weight is NaN.
    """
    return _run(model, batches, [WeightDistributionAnalysis(limit, bins)], progress)[0]


_BY_NAME: dict[str, Callable[[], Analysis[Result]]] = {
    "layer_similarity": LayerSimilarityAnalysis,
    "similarity_matrix": SimilarityMatrixAnalysis,
    "stream_norms": StreamNormsAnalysis,
    "dense_weights": DenseWeightsAnalysis,
    "head_activity": HeadActivityAnalysis,
    "sink_sensitivity": SinkSensitivityAnalysis,
    "head_entropy": HeadEntropyAnalysis,
    "head_scores": HeadScoresAnalysis,
    "weight_distribution": WeightDistributionAnalysis,
}


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
    analyses by rounding.

    Args:
        model: Any hooked model, in evaluation mode.
        batches: int64 token ids ``[batch pos]``, without padding: every position counts.
        analyses: Each one the function (``layer_similarity``) or its name, for the default
            options, or an object such as ``HeadActivityAnalysis(sink_token_ids=[])``.
        progress: See :data:`Progress`.
        lock: Held during each forward pass, while the hooks are there, and free in between: so
            threads share a model.

    Returns:
        The results, in the order of ``analyses``.

    Raises:
        ValueError: As the analyses one by one; also if there are none, or one is unknown.
    """
    if not analyses:
        raise ValueError(f"expected at least one analysis of {', '.join(_BY_NAME)}, got none.")
    return tuple(_run(model, batches, [as_analysis(given) for given in analyses], progress, lock))


def as_analysis(given: Any) -> Analysis[Result]:
    """An analysis from its function, its name, or an object that is one."""
    if not isinstance(given, str) and hasattr(given, "start"):
        return given
    name = getattr(given, "__name__", given)
    if name not in _BY_NAME:
        raise ValueError(unknown_name("analysis", str(name), _BY_NAME))
    return _BY_NAME[name]()


def _run(
    model: HookedModel,
    batches: TokenBatches,
    analyses: Sequence[Analysis[R]],
    progress: Progress | None,
    lock: AbstractContextManager[Any] = NO_LOCK,
) -> list[R]:
    require_evaluation(model)
    sums = [analysis.start(model) for analysis in analyses]
    seen = TokensSeen()
    looks = [(name, Observer(look)) for each in sums for name, look in each.hooks()]
    hooks = [*finite_hooks(model), *looks]  # what is not finite is named before it is summed
    for tokens in checked(batches, model):
        with lock, torch.no_grad(), model.hooks(hooks):
            for each in sums:
                each.begin(tokens)
            model(tokens, return_type=None)
        seen.add(tokens)
        if progress is not None:
            progress(seen.sequences, seen.tokens)
    if not seen.tokens:
        raise ValueError(NO_BATCHES)
    data = describe(batches)
    return [each.finish(provenance(model, data, seen, each.options)) for each in sums]
