"""Scores of the head types that repeated random tokens bring out (Olsson et al. 2022)."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from mudd_interp.analysis.base import Accumulator, Analysis
from mudd_interp.analysis.heads import HOLDS_NAN, pattern_hooks
from mudd_interp.analysis.provenance import Provenance
from mudd_interp.analysis.result import Result
from mudd_interp.analysis.walk import Progress, walk
from mudd_interp.axes import Stream
from mudd_interp.data import REPEATED_LENGTH, repeated_batches
from mudd_interp.precision import wide
from mudd_interp.protocol import Hook, HookedModel, Trait, require_traits

Score = Literal["previous_token", "duplicate_token", "induction", "prefix_matching"]

SCORES: tuple[Score, ...] = get_args(Score)
"""The scores, in the order of the columns of ``HeadScores.frame``."""


@dataclass(frozen=True, eq=False, kw_only=True)
class HeadScores(Result):
    """How much of its attention a head spends where a head of a known type would: 0..1.

    Each score is the attention probability that a query i spends on certain keys, summed over
    those keys and averaged over the queries that have such a key:

    ``previous_token``
        the key i - 1; every query but the first (Olsson et al. 2022, arXiv 2209.11895, who take it
        on natural text).
    ``duplicate_token``
        all earlier occurrences of token i (Wang et al. 2022, arXiv 2211.00593); queries that have
        one.
    ``induction``
        the key i - period + 1, which followed token i one period ago; queries that repeat the
        token one period back. This is the diagonal that induction heads are commonly recognised by.
    ``prefix_matching``
        all keys that followed an earlier occurrence of token i; queries that have one. With two
        copies it is ``induction``; with more the earlier copies count too. Olsson et al. (2022)
        average the single entries instead of adding up those of one query, and their appendix
        says "preceded", where the head that their main text describes attends to what followed.

    TransformerLens' ``detect_head`` with its default ``error_measure="mul"`` divides by all of
    the attention, of one sequence, where this divides by that of the queries to which a score
    applies: on one sequence its ``previous_token_head``, ``duplicate_token_head`` and
    ``induction_head`` are ``previous_token``, ``duplicate_token`` and ``prefix_matching`` times
    the share of such queries. It has no counterpart of ``induction``.

    Attributes:
        weight_sum: Sum over the queries of the attention spent on the keys of a score.
        queries: The number of queries to which a score applies.
    """

    lengths: ClassVar[Mapping[str, int]] = MappingProxyType({"score": len(SCORES)})

    weight_sum: Float64[np.ndarray, "score layer head"]
    queries: Int64[np.ndarray, " score"]

    @property
    def frame(self) -> pd.DataFrame:
        """Columns ``layer``, ``head`` and one for each of ``SCORES``, each a mean weight, 0..1.

        The scores of a head cover overlapping positions: they do not sum to one.
        """
        layer, head = np.indices(self.weight_sum.shape[1:])
        means = self.weight_sum.reshape(len(SCORES), -1) / self.queries[:, None]
        scores = dict(zip(SCORES, means, strict=True))
        return pd.DataFrame({"layer": layer.ravel(), "head": head.ravel(), **scores})

    def _merged(self, other: Any) -> dict[str, np.ndarray]:
        return {
            "weight_sum": self.weight_sum + other.weight_sum,
            "queries": self.queries + other.queries,
        }


@dataclass(frozen=True)
class HeadScoresAnalysis(Analysis[HeadScores]):
    """Computes :class:`HeadScores`, on ``data.repeated_batches`` of the same period.

    Attributes:
        period: After how many tokens the sequences repeat.
    """

    name = "head_scores"
    result = HeadScores
    requires: ClassVar[frozenset[Trait]] = frozenset({"tokens", "causal", "patterns"})

    period: int = REPEATED_LENGTH

    def start(self, model: HookedModel) -> "ScoreSums":
        """Empty sums for one model.

        Raises:
            ValueError: If the period is below two.
        """
        if self.period < 2:
            raise ValueError(f"period must be 2 or more, got {self.period}.")
        return ScoreSums(model, self.period)


class ScoreSums(Accumulator[HeadScores]):
    """Sums of the attention on the keys of each score, taken when a layer's hook fires."""

    def __init__(self, model: HookedModel, period: int):
        self.options: Mapping[str, Any] = {"period": period}
        self._streams: tuple[Stream, ...] = model.wiring.streams
        self._period = period
        self._sums = np.zeros((len(SCORES), model.cfg.n_layers, model.cfg.n_heads))
        self._queries = np.zeros(len(SCORES), dtype=np.int64)
        self._keys: list[Bool[Tensor, "score query key"]] = []

    def hooks(self) -> list[Hook]:
        """A hook on each block's attention pattern: the slow path of attention."""
        return pattern_hooks(self._sums.shape[1], self._see)

    def begin(self, tokens: Int64[Tensor, "batch pos"]) -> None:
        """Find the keys of each score.

        Raises:
            ValueError: If the tokens do not repeat with the period.
        """
        _check_repeats(tokens, self._period)
        self._keys = [score_keys(row, self._period) for row in tokens]
        for keys in self._keys:
            self._queries += keys.any(-1).sum(-1).cpu().numpy()

    def _see(
        self,
        layer: int,
        pattern: Float[Tensor, "batch head query key"],
        hook: Any,  # noqa: ARG002 (a hook's signature)
    ) -> None:
        for heads, keys in zip(pattern.detach(), self._keys, strict=True):
            paid = wide(heads)
            weight = torch.einsum("hqk,sqk->shq", paid, keys.to(paid))
            self._sums[:, layer] += weight.cpu().double().sum(-1).numpy()

    def finish(self, provenance: Provenance) -> HeadScores:
        """The result of all batches so far.

        Raises:
            ValueError: If a pattern held NaN.
        """
        if np.isnan(self._sums).any():
            raise ValueError(HOLDS_NAN)
        return HeadScores(
            provenance=provenance,
            streams=self._streams,
            weight_sum=self._sums.copy(),
            queries=self._queries.copy(),
        )


def score_keys(tokens: Int64[Tensor, " pos"], period: int) -> Bool[Tensor, "score query key"]:
    """Which keys count for which query, for each of ``SCORES``; none of them in the future."""
    position = torch.arange(len(tokens), device=tokens.device)
    back = position[:, None] - position
    duplicate = (tokens[:, None] == tokens) & (back > 0)
    followed = torch.zeros_like(duplicate)
    followed[:, 1:] = duplicate[:, :-1]
    return torch.stack([back == 1, duplicate, followed & (back == period - 1), followed])


def _check_repeats(tokens: Int64[Tensor, "batch pos"], period: int) -> None:
    """Everything must repeat with the period, except a separator at the front."""
    same = tokens[:, period:] == tokens[:, :-period]
    if same.shape[1] == 0 or not same[:, 1:].all() or not same[:, -1].all():
        raise ValueError(
            f"head scores need tokens that repeat after every {period}, and these do not: "
            f"take mudd_interp.data.repeated_batches(model, length={period})."
        )


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
    require_traits(model, HeadScoresAnalysis.name, HeadScoresAnalysis.requires)
    batches = repeated_batches(model, length, repeats, n_sequences, seed)
    return walk(model, batches, [HeadScoresAnalysis(length)], progress)[0]
