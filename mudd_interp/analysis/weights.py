"""How much each input stream reads of each earlier output (paper, Figs. 12 and 13)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from mudd_interp.analysis.base import Accumulator, Analysis
from mudd_interp.analysis.difference import Table, check_same_rows, minus_baseline
from mudd_interp.analysis.edges import (
    edge_grid,
    edge_index,
    static_weights,
    watch_sources,
)
from mudd_interp.analysis.moments import Moments, merged_moments
from mudd_interp.analysis.norms import l2_norms
from mudd_interp.analysis.provenance import Provenance
from mudd_interp.analysis.result import Result
from mudd_interp.analysis.walk import Progress, walk
from mudd_interp.data import TokenBatches
from mudd_interp.protocol import Hook, HookedModel
from mudd_interp.wiring import Read


@dataclass(frozen=True, eq=False, kw_only=True)
class DenseWeights(Result):
    """Mean and spread of the dense weights, over sequences and positions (Figs. 12 and 13).

    ``A^c_ij[t]``, static part included: dimensionless, signed, unbounded, summing to nothing in
    particular. Aggregation ``i`` has the sources ``0..i+1``; what does not exist is NaN. A stream
    on the plain residual reads the newest source with weight one, always. Rectified weights (the
    paper's figures) are ``weight * source_norm``, in units of the residual stream.

    Attributes:
        mean: Mean weight.
        m2: Sum of squared differences from the mean; ``std`` is ``sqrt(m2 / tokens)``.
        static: The learned bias of the weights.
        source_norm_sum: Sum over tokens of the L2 norm of what the weights multiply.
    """

    absent: ClassVar[tuple[str, ...]] = ("mean", "m2", "static")

    mean: Float64[np.ndarray, "stream layer source"]
    m2: Float64[np.ndarray, "stream layer source"]
    static: Float64[np.ndarray, "stream layer source"]
    source_norm_sum: Float64[np.ndarray, " source"]

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.static.shape[1]

    @property
    def present(self) -> Bool[np.ndarray, "stream layer source"]:
        """Which weights exist."""
        return ~np.isnan(self.static)

    @property
    def frame(self) -> pd.DataFrame:
        """Columns ``stream layer source mean std static source_norm``; std is the population's.

        The weights of one stream need not sum to one, or to anything.
        """
        stream, layer, source = np.nonzero(self.present)
        tokens = self.provenance.tokens
        return pd.DataFrame(
            {
                "stream": np.array(self.streams, dtype=object)[stream],
                "layer": layer,
                "source": source,
                "mean": self.mean[self.present],
                "std": np.sqrt(self.m2[self.present] / tokens),
                "static": self.static[self.present],
                "source_norm": (self.source_norm_sum / tokens)[source],
            }
        )

    def edge(self, stream: str, layer: int, source: int) -> dict[str, float]:
        """``mean std static source_norm`` of one edge, as in :attr:`frame`.

        Raises:
            ValueError: If there is no such edge, with the range of those that there are.
        """
        at = edge_index(self.streams, self.present, stream, layer, source)
        tokens = self.provenance.tokens
        return {
            "mean": float(self.mean[at]),
            "std": float(np.sqrt(self.m2[at] / tokens)),
            "static": float(self.static[at]),
            "source_norm": float(self.source_norm_sum[source] / tokens),
        }

    def _merged(self, other: Any) -> dict[str, np.ndarray]:
        if not np.array_equal(self.static, other.static, equal_nan=True):
            raise ValueError("cannot merge results of different models: static weights differ.")
        norms = self.source_norm_sum + other.source_norm_sum
        return {**merged_moments(self, other), "source_norm_sum": norms}


def weights_difference(
    result: DenseWeights, baseline: DenseWeights, rectified: bool = False
) -> pd.DataFrame:
    """The model's mean, std, static part and source norm minus the baseline's, edge by edge.

    A plain Transformer's one stream ``r`` is what all four are there: weight one on the newest
    source, with no spread, so the difference of std is the model's own.

    Args:
        result: Of the model in question.
        baseline: Of the model beside it.
        rectified: Rectify each model's weights with the norms of its own sources, then subtract.

    Returns:
        The columns of ``result.frame``.

    Raises:
        ValueError: If the models differ in their number of layers.
    """
    check_same_rows([result.provenance, baseline.provenance])
    tables = [
        Table(each.streams, each.n_layers, rectify(each.frame) if rectified else each.frame)
        for each in (result, baseline)
    ]
    return minus_baseline(tables[0], tables[1], labels=["layer", "source"])


@dataclass(frozen=True)
class DenseWeightsAnalysis(Analysis[DenseWeights]):
    """Computes :class:`DenseWeights`; it has no options."""

    name = "dense_weights"
    result = DenseWeights

    def start(self, model: HookedModel) -> "WeightSums":
        """Empty sums for one model."""
        return WeightSums(model)


class WeightSums(Accumulator[DenseWeights]):
    """Moments of the weights of each aggregation and stream, and sums of the sources' norms."""

    def __init__(self, model: HookedModel):
        self._wiring, self._static = model.wiring, static_weights(model.wiring)
        self._moments = {
            read: Moments.empty(len(static))
            for read, static in self._static.items()
            if self._wiring.weighed(read)
        }
        self._norms = np.zeros(len(self._wiring.sources))

    def hooks(self) -> list[Hook]:
        """A look at the weights of each row, and at each source."""
        return [
            *self._wiring.watch_rows(self._see_weights),
            *watch_sources(self._wiring, self._see_source),
        ]

    def _see_weights(self, read: Read, weights: Float[Tensor, "batch pos source"]) -> None:
        values = weights.detach().flatten(0, 1).cpu().double().numpy()
        self._moments[read] = self._moments[read].merge(Moments.of(values))

    def _see_source(self, source: int, x: Float[Tensor, "batch pos d_model"]) -> None:
        self._norms[source] += l2_norms(x).cpu().double().sum().item()

    def finish(self, provenance: Provenance) -> DenseWeights:
        """The result of all batches so far."""
        constant = {
            read: Moments(provenance.tokens, static, np.zeros_like(static))
            for read, static in self._static.items()
        }
        moments = {**constant, **self._moments}
        return DenseWeights(
            provenance=provenance,
            streams=self._wiring.streams,
            mean=self._grid({read: m.mean for read, m in moments.items()}),
            m2=self._grid({read: m.m2 for read, m in moments.items()}),
            static=self._grid(self._static),
            source_norm_sum=self._norms.copy(),
        )

    def _grid(
        self, values: Mapping[Read, Float64[np.ndarray, "..."]]
    ) -> Float64[np.ndarray, "stream layer source"]:
        return edge_grid(values, self._wiring)


def rectify(frame: pd.DataFrame) -> pd.DataFrame:
    """A table of weights with every weight times its source's norm, as the paper draws them.

    The columns ``stream layer source source_norm`` and ``position token_id`` stay as they are.
    """
    kept = ["stream", "layer", "source", "position", "token_id", "source_norm"]
    weights = frame.columns.difference(kept, sort=False)
    return frame.assign(**{name: frame[name] * frame["source_norm"] for name in weights})


def dense_weights(
    model: HookedModel, batches: TokenBatches, progress: Progress | None = None
) -> DenseWeights:
    """Mean and spread of the dense weights (paper, Figs. 12 and 13).

    The arguments and errors are those of :func:`layer_similarity`.
    """
    return walk(model, batches, [DenseWeightsAnalysis()], progress)[0]
