"""How long the inputs of the blocks are: stream by stream, layer by layer."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64
from torch import Tensor

from mudd_interp.analysis.base import Analysis
from mudd_interp.analysis.difference import minus_baseline
from mudd_interp.analysis.moments import merged_moments
from mudd_interp.analysis.result import Result
from mudd_interp.analysis.stream_moments import StreamMomentSums
from mudd_interp.analysis.walk import Progress, walk
from mudd_interp.data import TokenBatches
from mudd_interp.precision import wide
from mudd_interp.protocol import HookedModel


@dataclass(frozen=True, eq=False, kw_only=True)
class StreamNorms(Result):
    """Mean and spread of the L2 norm of the inputs of the blocks, over sequences and positions.

    ``‖X̄^c_l[t]‖₂`` before the norms, in units of the residual stream, not negative. Layer L is what
    enters the final norm; it exists on stream r only, and is NaN on the others, as it is where the
    head norms several streams.

    Attributes:
        mean: Mean norm.
        m2: Sum of squared differences from the mean; ``std`` is ``sqrt(m2 / tokens)``.
    """

    absent: ClassVar[tuple[str, ...]] = ("mean", "m2")

    mean: Float64[np.ndarray, "stream layer_plus_1"]
    m2: Float64[np.ndarray, "stream layer_plus_1"]

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.mean.shape[1] - 1

    @property
    def frame(self) -> pd.DataFrame:
        """Columns ``stream``, ``layer`` (0..L-1; r: 0..L), ``mean`` and population ``std``."""
        present = ~np.isnan(self.mean)
        stream, layer = np.nonzero(present)
        return pd.DataFrame(
            {
                "stream": np.array(self.streams, dtype=object)[stream],
                "layer": layer,
                "mean": self.mean[present],
                "std": np.sqrt(self.m2[present] / self.provenance.tokens),
            }
        )

    def _merged(self, other: Any) -> dict[str, np.ndarray]:
        return merged_moments(self, other)


def norms_difference(result: StreamNorms, baseline: StreamNorms) -> pd.DataFrame:
    """The model's mean and std minus the baseline's, stream by stream.

    A plain Transformer's one stream ``r`` is what all four are there.

    Returns:
        The columns of ``result.frame``; ``std`` is the difference of the two.

    Raises:
        ValueError: If the models differ in their number of layers.
    """
    return minus_baseline(result, baseline, labels=["layer"])


@dataclass(frozen=True)
class StreamNormsAnalysis(Analysis[StreamNorms]):
    """Computes :class:`StreamNorms`; it has no options."""

    name = "stream_norms"
    result = StreamNorms

    def start(self, model: HookedModel) -> "NormSums":
        """Empty sums for one model."""
        return NormSums(model, StreamNorms)


class NormSums(StreamMomentSums[StreamNorms]):
    """Moments of the norms of each stream and layer."""

    def measured(
        self, x: Float[Tensor, "batch pos d_model"]
    ) -> Float64[np.ndarray, "observation 1"]:
        """A norm for each token."""
        return l2_norms(x).cpu().double().reshape(-1, 1).numpy()


def l2_norms(x: Float[Tensor, "*shape d_model"]) -> Float[Tensor, "*shape"]:
    """Lengths of vectors, in at least float32."""
    return wide(x).norm(dim=-1)


def stream_norms(
    model: HookedModel, batches: TokenBatches, progress: Progress | None = None
) -> StreamNorms:
    """Mean and spread of the L2 norm of the blocks' inputs, and of what enters the final norm.

    The arguments and errors are those of :func:`layer_similarity`.
    """
    return walk(model, batches, [StreamNormsAnalysis()], progress)[0]
