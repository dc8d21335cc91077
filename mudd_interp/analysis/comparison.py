"""Two models on one corpus: whose losses are lower, by how much, how certainly, on which tokens."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from functools import reduce
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64, Int64

from mudd_interp.analysis.base import Accumulator, Analysis, Tape
from mudd_interp.analysis.finite import finite_hooks
from mudd_interp.analysis.inputs import NEXT_TOKEN, require_evaluation
from mudd_interp.analysis.predictions import as_float64, token_losses
from mudd_interp.analysis.provenance import Provenance, TokensSeen, provenance
from mudd_interp.analysis.ranking import (
    RankedToken,
    both_ways,
    check_places,
    from_arrays,
    to_arrays,
)
from mudd_interp.analysis.result import Places, Result
from mudd_interp.analysis.vocabulary import check_same_vocabulary, joined_text
from mudd_interp.analysis.walk import NO_LOCK, Progress, walk
from mudd_interp.data import TokenBatches
from mudd_interp.protocol import HookedModel, require_traits

EDGES = np.arange(-200, 201) / 20
"""Edges of the bins of the difference, in nats; two more bins hold what lies outside."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The fields of its provenance that say which model the baseline is."""

    model: str
    revision: str | None
    digest: str | None
    dtype: str


@dataclass(frozen=True)
class LossSummary:
    """Mean losses of two models on the same tokens, in nats per token.

    Attributes:
        loss: Of the model.
        baseline_loss: Of the baseline.
        difference: Model minus baseline: negative where the model is better.
        standard_error: Of the difference, over sequences, each seen by both models (paired). NaN
            for a single sequence. It assumes that sequences are independent, which pieces of one
            document are not, and says nothing about other training seeds.
        model_better: Share of the tokens on which the model's loss is lower, 0..1.
        baseline_better: Share on which the baseline's is; on the rest they are equal.
        tokens: How many tokens were predicted: all but the first of each sequence.
        sequences: How many sequences they are from.
    """

    loss: float
    baseline_loss: float
    difference: float
    standard_error: float
    model_better: float
    baseline_better: float
    tokens: int
    sequences: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of the difference: 1.96 standard errors to either side."""
        reach = 1.96 * self.standard_error
        return self.difference - reach, self.difference + reach


@dataclass(frozen=True, eq=False, kw_only=True)
class LossComparison(Result):
    """The losses of a model and of a baseline on the same tokens.

    ``provenance`` is the model's; the baseline's is in its options. Arrays with a ``model`` axis
    hold the model, then the baseline.

    Attributes:
        loss_sum: Sum of the losses, in nats.
        counts: Predicted tokens; sequences with at least one of them; tokens on which the model is
            better, and on which the baseline is.
        products: Sums over sequences of the products of D and n, where D is a sequence's summed
            difference and n its predicted tokens: ``[[ΣDD, ΣDn], [ΣnD, Σnn]]``.
        bins: Tokens by difference: below the first of :data:`EDGES`, between each two (the lower
            one included), and from the last one on.
        ranked: Sequence, position and context length of the tokens with the largest differences:
            first those on which the model is better, then those on which the baseline is.
        ranked_loss: Their losses, in nats.
        context_ids: Their contexts, one after another.
    """

    needed: ClassVar[Mapping[str, Any]] = MappingProxyType({"top": int, "baseline": Identity})
    lengths: ClassVar[Mapping[str, int]] = MappingProxyType(
        {"model": 2, "count": 4, "bin": len(EDGES) + 1, "place": 3}
    )

    loss_sum: Float64[np.ndarray, " model"]
    counts: Int64[np.ndarray, " count"]
    products: Float64[np.ndarray, "2 2"]
    bins: Int64[np.ndarray, " bin"]
    ranked: Int64[np.ndarray, "ranked place"]
    ranked_loss: Float64[np.ndarray, "ranked model"]
    context_ids: Int64[np.ndarray, " context"]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_places(self.ranked, self.context_ids)
        if not self.counts[0]:
            raise ValueError("no token is predicted: give sequences of at least two tokens.")

    @property
    def baseline_provenance(self) -> Provenance:
        """The provenance of the baseline's losses."""
        return replace(self.provenance, **self.provenance.options["baseline"])

    @property
    def summary(self) -> LossSummary:
        """The means, and how certain their difference is."""
        tokens, sequences, *better = self.counts.tolist()
        loss, baseline_loss = (self.loss_sum / tokens).tolist()
        difference = loss - baseline_loss
        # Of a ratio of two sums over sequences, the last of which may be shorter.
        residual = np.array([1.0, -difference])
        squares = max(0.0, float(residual @ self.products @ residual))
        correction = sequences / (sequences - 1) if sequences > 1 else np.nan
        return LossSummary(
            loss=loss,
            baseline_loss=baseline_loss,
            difference=difference,
            standard_error=float(np.sqrt(correction * squares) / tokens),
            model_better=better[0] / tokens,
            baseline_better=better[1] / tokens,
            tokens=tokens,
            sequences=sequences,
        )

    @property
    def frame(self) -> pd.DataFrame:
        """The ranked tokens.

        Columns ``better`` (``"model"`` or ``"baseline"``), ``rank`` (from 1), ``sequence``,
        ``position``, ``token_id``, ``loss``, ``baseline_loss``, ``difference`` (model minus
        baseline, nats) and ``context_ids``: the sequence from its start to a little beyond the
        token, which stands in it at ``position``.
        """
        tokens = self.ranked_tokens
        better = ["model" if token.difference < 0 else "baseline" for token in tokens]
        frame = pd.DataFrame(
            {
                "better": np.array(better, dtype=object),
                "sequence": self.ranked[:, 0],
                "position": self.ranked[:, 1],
                "token_id": np.array([token.token_id for token in tokens], dtype=np.int64),
                "loss": self.ranked_loss[:, 0],
                "baseline_loss": self.ranked_loss[:, 1],
                "difference": self.ranked_loss[:, 0] - self.ranked_loss[:, 1],
                "context_ids": pd.Series([token.context for token in tokens], dtype=object),
            }
        )
        frame.insert(1, "rank", frame.groupby("better").cumcount() + 1)
        return frame

    @property
    def histogram_frame(self) -> pd.DataFrame:
        """Tokens by difference, in nats: columns ``low`` (included), ``high`` and ``count``.

        Counts sum to the predicted tokens.
        """
        edges = np.concatenate([[-np.inf], EDGES, [np.inf]])
        return pd.DataFrame({"low": edges[:-1], "high": edges[1:], "count": self.bins})

    @property
    def ranked_tokens(self) -> list[RankedToken]:
        """The ranked tokens, one by one."""
        return from_arrays(self.ranked, self.ranked_loss, self.context_ids)

    @classmethod
    def joined(cls, shares: Sequence[Any], places: Sequence[Places]) -> "LossComparison":
        """See :meth:`Result.joined`; ranked tokens get the numbers of their sequences."""
        whole = reduce(lambda a, b: a.merge(b), shares)
        tokens = [
            replace(token, sequence=int(where.number[token.sequence]))
            for share, where in zip(shares, places, strict=True)
            for token in share.ranked_tokens
        ]
        return replace(whole, **to_arrays(both_ways(whole.provenance.options["top"], tokens)))

    def _check_shapes(self, other: Result) -> None:
        """Nothing: results differ in how many tokens they rank."""

    def _merged(self, other: Any) -> dict[str, np.ndarray]:
        before = self.provenance.sequences
        later = [replace(token, sequence=before + token.sequence) for token in other.ranked_tokens]
        rankings = both_ways(self.provenance.options["top"], [*self.ranked_tokens, *later])
        summed = ("loss_sum", "counts", "products", "bins")
        sums = {name: getattr(self, name) + getattr(other, name) for name in summed}
        return sums | to_arrays(rankings)


@dataclass(frozen=True)
class LossComparisonAnalysis(Analysis[LossComparison]):
    """Computes :class:`LossComparison`.

    Attributes:
        baseline: The other model, with the same vocabulary.
        top: How many tokens to keep on which the model is better by most, and as many on which
            the baseline is.

    Raises:
        ValueError: If ``top`` is below one.
    """

    name = "compare_losses"
    result = LossComparison
    requires = NEXT_TOKEN

    baseline: HookedModel
    top: int = 100

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ValueError(f"top must be at least 1, got {self.top}.")

    def start(self, model: HookedModel) -> "ComparisonSums":
        """Empty sums for one model.

        Raises:
            ValueError: If the vocabularies differ, or the baseline is in training mode.
        """
        require_evaluation(self.baseline)
        require_traits(self.baseline, self.name, self.requires)
        check_same_vocabulary(model, self.baseline)
        return ComparisonSums(model, self.baseline, self.top)


class ComparisonSums(Accumulator[LossComparison]):
    """Running sums of a comparison; the attributes are those of :class:`LossComparison`."""

    logits = True

    def __init__(self, model: HookedModel, baseline: HookedModel, top: int):
        whose = provenance(baseline, "", TokensSeen(baseline.front), {})
        identity = {field.name: getattr(whose, field.name) for field in fields(Identity)}
        self.options: Mapping[str, Any] = {"top": top, "baseline": identity}
        self._streams, self._baseline = model.wiring.streams, baseline
        self.loss_sum, self.products = np.zeros(2), np.zeros((2, 2))
        self.counts = np.zeros(4, dtype=np.int64)
        self.bins = np.zeros(len(EDGES) + 1, dtype=np.int64)
        self.rankings = both_ways(top)

    def see(self, tape: Tape) -> None:
        """Run the baseline on the batch, and add both models' losses."""
        with self._baseline.hooks(finite_hooks(self._baseline)):
            logits = self._baseline(tape.tokens, return_type="logits")
        self._add(tape, np.stack([tape.losses, as_float64(token_losses(logits, tape.tokens))]))

    def _add(self, tape: Tape, both: Float64[np.ndarray, "model batch predicted"]) -> None:
        difference = both[0] - both[1]
        batch, predicted = difference.shape
        if not predicted:
            return
        self.loss_sum += both.sum((1, 2))
        self.counts += (batch * predicted, batch, (difference < 0).sum(), (difference > 0).sum())
        by_sequence = np.stack([difference.sum(1), np.full(batch, float(predicted))])
        self.products += by_sequence @ by_sequence.T
        self.bins += np.bincount(np.digitize(difference, EDGES).ravel(), minlength=len(self.bins))
        ids = tape.tokens.cpu().numpy()
        for ranking in self.rankings:
            ranking.add(both, ids, tape.first)

    def finish(self, provenance: Provenance) -> LossComparison:
        """The result of all batches so far.

        Raises:
            ValueError: If no token was predicted.
        """
        return LossComparison(
            provenance=provenance,
            streams=self._streams,
            loss_sum=self.loss_sum.copy(),
            counts=self.counts.copy(),
            products=self.products.copy(),
            bins=self.bins.copy(),
            **to_arrays(self.rankings),
        )


def compare_losses(
    model: HookedModel,
    baseline: HookedModel,
    batches: TokenBatches,
    top: int = LossComparisonAnalysis.top,
    progress: Progress | None = None,
    lock: AbstractContextManager[Any] = NO_LOCK,
) -> LossComparison:
    """Compare the losses of two models, token by token, in one loop over a corpus.

    Memory does not grow with the corpus: sums are kept, and the tokens with the largest
    differences.

    Args:
        model: Any hooked model, in evaluation mode.
        baseline: Another, with the same vocabulary.
        batches: int64 token ids ``[batch pos]``, without padding. The first token of a sequence is
            not predicted.
        top: How many tokens to keep on which the model is better by most, and as many on which
            the baseline is.
        progress: See :data:`Progress`; called when both models have seen a batch.
        lock: Held while a batch is run, as for :func:`sweep`.

    Raises:
        ValueError: If the vocabularies differ, there are no batches, one is not as described or
            too long for a model, no token is predicted, ``top`` is below one, or a model is in
            training mode.
    """
    analysis = LossComparisonAnalysis(baseline, top)
    return walk(model, batches, [analysis], progress, lock)[0]


def ranked_texts(comparison: LossComparison, model: HookedModel, before: int = 32) -> pd.DataFrame:
    """The ranked tokens as text.

    Args:
        comparison: What to read.
        model: One of the two that were compared: for its tokenizer; without one, texts are ids.
        before: How many tokens of the context to read before the token, at most.

    Returns:
        The columns of ``comparison.frame``, with ``before``, ``token`` and ``after`` in place of
        ``context_ids``.
    """
    read = [_read(model, token, before) for token in comparison.ranked_tokens]
    texts = pd.DataFrame(read, columns=["before", "token", "after"], dtype=object)
    return comparison.frame.drop(columns="context_ids").join(texts)


def _read(model: HookedModel, token: RankedToken, before: int) -> tuple[str, str, str]:
    at, ids = token.position, torch.tensor(token.context)
    parts = ids[max(0, at - before) : at], ids[at : at + 1], ids[at + 1 :]
    first, middle, last = (joined_text(model, part) for part in parts)
    return first, middle, last
