"""How the weight of every edge is distributed over the tokens of a corpus: its histogram."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float64, Int64, Shaped
from torch import Tensor

from mudd_interp.analysis.base import Accumulator, Analysis
from mudd_interp.analysis.edges import edge_grid, edge_index, static_weights
from mudd_interp.analysis.provenance import Provenance
from mudd_interp.analysis.result import Result
from mudd_interp.analysis.walk import Progress, walk
from mudd_interp.data import TokenBatches
from mudd_interp.protocol import Hook, HookedModel, Inputs
from mudd_interp.wiring import Read

QUANTILES = (0.05, 0.5, 0.95)
"""The quantiles of each edge's weight in :attr:`WeightDistribution.frame`."""


@dataclass(frozen=True, eq=False, kw_only=True)
class WeightDistribution(Result):
    """Histograms of the dense weights over sequences and positions, one for each edge.

    The weights are those of :class:`DenseWeights`: dimensionless, static part included. Equal bins
    ``[low, high)`` run from ``-limit`` to ``limit``; the first and the last count what lies below
    and above. Its size does not depend on the corpus.

    Attributes:
        counts: Number of tokens in each bin; zero where there is no edge.
        minimum: Smallest weight, exactly; NaN where there is no edge.
        maximum: Largest weight, exactly; NaN where there is no edge.
    """

    absent: ClassVar[tuple[str, ...]] = ("minimum", "maximum")

    needed: ClassVar[Mapping[str, Any]] = MappingProxyType({"limit": float, "bins": int})

    counts: Int64[np.ndarray, "stream layer source bin"]
    minimum: Float64[np.ndarray, "stream layer source"]
    maximum: Float64[np.ndarray, "stream layer source"]

    @classmethod
    def sizes(cls, options: Mapping[str, Any]) -> dict[str, int]:
        """The lengths of axes: two bins more than were asked for."""
        return {"bin": options["bins"] + 2}

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.minimum.shape[1]

    @property
    def present(self) -> Bool[np.ndarray, "stream layer source"]:
        """Which weights exist."""
        return ~np.isnan(self.minimum)

    @property
    def edges(self) -> Float64[np.ndarray, " edge"]:
        """Where the bins end: ``-inf``, then ``-limit`` to ``limit``, then ``inf``."""
        limit, bins = self.provenance.options["limit"], self.provenance.options["bins"]
        return np.array([-np.inf, *np.linspace(-limit, limit, bins + 1), np.inf])

    @property
    def frame(self) -> pd.DataFrame:
        """One row for each edge: its quantiles, and exactly its count, minimum and maximum.

        Columns ``stream layer source count minimum maximum quantile_05 quantile_50 quantile_95``.
        A quantile is the middle of the bin that it falls into, that bin cut at minimum and
        maximum: off by half a bin at most, ``limit / bins``. Beyond ``±limit`` the bin reaches to
        the minimum or maximum, and the quantile is as coarse.
        """
        stream, layer, source = np.nonzero(self.present)
        low, high = self.minimum[self.present], self.maximum[self.present]
        columns = {
            "stream": np.array(self.streams, dtype=object)[stream],
            "layer": layer,
            "source": source,
            "count": self.counts[self.present].sum(-1),
            "minimum": low,
            "maximum": high,
        }
        cumulative = self.counts[self.present].cumsum(-1)
        for quantile in QUANTILES:
            below = (cumulative < quantile * cumulative[:, -1:]).sum(-1)
            ends = self.edges[below].clip(low, high), self.edges[below + 1].clip(low, high)
            columns[f"quantile_{round(100 * quantile):02d}"] = (ends[0] + ends[1]) / 2
        return pd.DataFrame(columns)

    def edge_frame(self, stream: str, layer: int, source: int) -> pd.DataFrame:
        """The histogram of one edge: columns ``low``, ``high``, ``count`` and ``share``.

        Weights lie in ``[low, high)``; the first row begins at ``-inf``, the last ends at ``inf``.
        share = count / tokens: counts sum to the tokens, shares to one.

        Raises:
            ValueError: If there is no such edge, with the range of those that there are.
        """
        edge = edge_index(self.streams, self.present, stream, layer, source)
        ends, count = self.edges, self.counts[edge]
        share = count / self.provenance.tokens
        return pd.DataFrame({"low": ends[:-1], "high": ends[1:], "count": count, "share": share})

    def _merged(self, other: Any) -> dict[str, np.ndarray]:
        return {
            "counts": self.counts + other.counts,
            "minimum": np.minimum(self.minimum, other.minimum),
            "maximum": np.maximum(self.maximum, other.maximum),
        }


@dataclass(frozen=True)
class WeightDistributionAnalysis(Analysis[WeightDistribution]):
    """Computes :class:`WeightDistribution`.

    Attributes:
        limit: Where the bins end, on both sides of zero.
        bins: Number of bins between them.

    Raises:
        ValueError: If the limit is not a positive number, or there is no bin.
    """

    name = "weight_distribution"
    result = WeightDistribution

    limit: float = 16.0
    bins: int = 1600

    def __post_init__(self) -> None:
        if not (self.limit > 0 and isfinite(self.limit)):
            raise ValueError(f"limit must be a positive number, got {self.limit}.")
        if self.bins < 1:
            raise ValueError(f"bins must be at least 1, got {self.bins}.")

    def start(self, model: HookedModel) -> "DistributionCounts":
        """Empty histograms for one model."""
        return DistributionCounts(model, float(self.limit), self.bins)


class DistributionCounts(Accumulator[WeightDistribution]):
    """Histograms of the weights of each aggregation and stream."""

    def __init__(self, model: HookedModel, limit: float, bins: int):
        self.options: Mapping[str, Any] = {"limit": limit, "bins": bins}
        self._limit, self._bins, self._front = limit, bins, model.front
        self._wiring, self._static = model.wiring, static_weights(model.wiring)
        self._counts = {read: self._empty(static) for read, static in self._static.items()}
        self._minimum = {read: np.full(len(row), np.inf) for read, row in self._static.items()}
        self._maximum = {read: np.full(len(row), -np.inf) for read, row in self._static.items()}

    def hooks(self) -> list[Hook]:
        """A look at the weights of each row."""
        return self._wiring.watch_rows(self._see)

    def begin(self, tokens: Inputs) -> None:
        """Streams on the plain residual have the same weights at every token."""
        times = len(tokens) * self._front.positions(tokens)
        for read, static in self._static.items():
            if not self._wiring.weighed(read):
                self._count(read, torch.from_numpy(static)[None], times)

    def _see(self, read: Read, weights: Float[Tensor, "batch pos source"]) -> None:
        self._count(read, weights.detach().flatten(0, 1).cpu().double())

    def _count(self, read: Read, values: Float64[Tensor, "token source"], times: int = 1) -> None:
        low, high = (end.numpy() for end in values.aminmax(dim=0))
        if np.isnan(low).any():
            raise ValueError(
                f"a weight of layer {read.row}, stream {read.stream} is NaN: check the parameters "
                "of the model."
            )
        np.minimum(self._minimum[read], low, out=self._minimum[read])
        np.maximum(self._maximum[read], high, out=self._maximum[read])
        self._counts[read] += times * histograms(values, self._limit, self._bins).numpy()

    def _empty(self, row: Float64[np.ndarray, " source"]) -> Int64[np.ndarray, "source bin"]:
        return np.zeros((len(row), self._bins + 2), dtype=np.int64)

    def finish(self, provenance: Provenance) -> WeightDistribution:
        """The result of all batches so far."""
        return WeightDistribution(
            provenance=provenance,
            streams=self._wiring.streams,
            counts=self._grid(self._counts, missing=0.0),
            minimum=self._grid(self._minimum),
            maximum=self._grid(self._maximum),
        )

    def _grid(
        self,
        values: Mapping[Read, Shaped[np.ndarray, "..."]],
        missing: float = np.nan,
    ) -> Shaped[np.ndarray, "stream layer source ..."]:
        return edge_grid(values, self._wiring, missing)


def histograms(
    values: Float64[Tensor, "token source"], limit: float, bins: int
) -> Int64[Tensor, "source bin"]:
    """The histogram of each column: ``bins`` bins between ``±limit``, and one more on each side."""
    sources, width = values.shape[1], bins + 2
    index = ((values + limit) * (bins / (2 * limit))).floor_().clamp_(-1, bins).add_(1)
    index += torch.arange(0, sources * width, width)
    return torch.bincount(index.long().flatten(), minlength=sources * width).view(sources, width)


def weight_distribution(
    model: HookedModel,
    batches: TokenBatches,
    limit: float = WeightDistributionAnalysis.limit,
    bins: int = WeightDistributionAnalysis.bins,
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
    return walk(model, batches, [WeightDistributionAnalysis(limit, bins)], progress)[0]
