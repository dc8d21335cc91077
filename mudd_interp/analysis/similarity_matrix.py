"""How similar the inputs of any two blocks are: layer by layer, stream by stream."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64
from torch import Tensor

from mudd_interp import axes
from mudd_interp.analysis.base import Accumulator, Analysis
from mudd_interp.analysis.difference import minus_baseline
from mudd_interp.analysis.provenance import Provenance
from mudd_interp.analysis.result import Result
from mudd_interp.analysis.walk import Progress, walk
from mudd_interp.data import TokenBatches
from mudd_interp.precision import wide
from mudd_interp.protocol import Hook, HookedModel, Inputs


@dataclass(frozen=True, eq=False, kw_only=True)
class SimilarityMatrix(Result):
    """Mean cosine similarity of the inputs of every two blocks, stream by stream.

    ``cos(X̄^c_l[t], X̄^c_m[t])``, before the norms, averaged over sequences and positions, first
    tokens included. Dimensionless, in -1..1; symmetric, with a diagonal of exactly 1. Its first
    off-diagonal is Figure 6 of the paper (:class:`LayerSimilarity`).

    Attributes:
        cosine_sum: Sum of the cosines over tokens.
    """

    cosine_sum: Float64[np.ndarray, "stream layer layer"]

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.cosine_sum.shape[1]

    @property
    def frame(self) -> pd.DataFrame:
        """Columns ``stream``, ``layer``, ``other`` (both 0..L-1) and ``cosine``; every pair."""
        stream, layer, other = np.indices(self.cosine_sum.shape).reshape(3, -1)
        return pd.DataFrame(
            {
                "stream": np.array(self.streams, dtype=object)[stream],
                "layer": layer,
                "other": other,
                "cosine": self.cosine_sum.ravel() / self.provenance.tokens,
            }
        )

    def _merged(self, other: Any) -> dict[str, np.ndarray]:
        return {"cosine_sum": self.cosine_sum + other.cosine_sum}


def similarity_matrix_difference(
    result: SimilarityMatrix, baseline: SimilarityMatrix
) -> pd.DataFrame:
    """The model's cosines minus the baseline's, stream by stream; in -2..2.

    A plain Transformer's one stream ``r`` is what all four are there.

    Returns:
        The columns of ``result.frame``.

    Raises:
        ValueError: If the models differ in their number of layers.
    """
    return minus_baseline(result, baseline, labels=["layer", "other"])


@dataclass(frozen=True)
class SimilarityMatrixAnalysis(Analysis[SimilarityMatrix]):
    """Computes :class:`SimilarityMatrix`; it has no options."""

    name = "similarity_matrix"
    result = SimilarityMatrix

    def start(self, model: HookedModel) -> "SimilarityMatrixSums":
        """Empty sums for one model."""
        return SimilarityMatrixSums(model)


class SimilarityMatrixSums(Accumulator[SimilarityMatrix]):
    """Sums of cosines; during a pass it keeps the unit vectors of all blocks and streams.

    That is ``streams * layers * batch * pos * d_model`` numbers, in at least float32: use smaller
    batches where they do not fit.
    """

    def __init__(self, model: HookedModel):
        self._streams, self._n_layers = model.wiring.streams, model.cfg.n_layers
        self._sums = np.zeros((len(self._streams), self._n_layers, self._n_layers))
        self._units: dict[int, Float[Tensor, "batch pos layer d_model"]] = {}

    def hooks(self) -> list[Hook]:
        """A hook on each stream of each block."""
        return [
            (axes.stream_input(layer, stream), partial(self._see, row, layer))
            for layer in range(self._n_layers)
            for row, stream in enumerate(self._streams)
        ]

    def begin(self, tokens: Inputs) -> None:  # noqa: ARG002 (what an accumulator is told)
        """Forget the unit vectors of a pass that did not end."""
        self._units.clear()

    def _see(
        self,
        row: int,
        layer: int,
        x: Float[Tensor, "batch pos d_model"],
        hook: Any,  # noqa: ARG002 (a hook's signature)
    ) -> None:
        unit = unit_vectors(x)
        if layer == 0:
            batch, pos, d_model = unit.shape
            self._units[row] = unit.new_empty(batch, pos, self._n_layers, d_model)
        self._units[row][:, :, layer] = unit
        if layer == self._n_layers - 1:
            units = self._units.pop(row)
            self._sums[row] += (units @ units.mT).cpu().double().sum((0, 1)).numpy()

    def finish(self, provenance: Provenance) -> SimilarityMatrix:
        """The result of all batches so far."""
        # One half, mirrored: a matrix product is symmetric, and its diagonal 1, to rounding only.
        earlier = np.tril(self._sums, -1)
        diagonal = provenance.tokens * np.eye(self._n_layers)
        return SimilarityMatrix(
            provenance=provenance,
            streams=self._streams,
            cosine_sum=earlier + earlier.swapaxes(1, 2) + diagonal,
        )


def unit_vectors(x: Float[Tensor, "*shape d_model"]) -> Float[Tensor, "*shape d_model"]:
    """Vectors of length one, in at least float32.

    The zero vector has no direction and stays zero, so that its cosine with anything is 0.
    """
    vectors = wide(x)
    norm = vectors.norm(dim=-1, keepdim=True)
    return vectors / norm.masked_fill(norm == 0, 1)


def similarity_matrix(
    model: HookedModel, batches: TokenBatches, progress: Progress | None = None
) -> SimilarityMatrix:
    """Mean cosine similarity of every two blocks' inputs.

    The arguments and errors are those of :func:`layer_similarity`.
    """
    return walk(model, batches, [SimilarityMatrixAnalysis()], progress)[0]
