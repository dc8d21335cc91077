"""How similar the patches of one image are to each other: do the streams over-smooth?"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64
from torch import Tensor

from mudd_interp.analysis.base import Analysis
from mudd_interp.analysis.difference import minus_baseline
from mudd_interp.analysis.moments import Moments
from mudd_interp.analysis.patches import OF_IMAGES, cosines_among, patch_front
from mudd_interp.analysis.result import Result
from mudd_interp.analysis.stream_moments import StreamMomentSums
from mudd_interp.analysis.walk import Progress, walk
from mudd_interp.data import TokenBatches
from mudd_interp.protocol import HookedModel


@dataclass(frozen=True, eq=False, kw_only=True)
class PatchSimilarity(Result):
    """Mean cosine between two different patches of one image, over pairs and images.

    ``cos(X̄^c_l[s], X̄^c_l[t])``, s ≠ t, of the inputs of block l before the norms: dimensionless, in
    -1..1; near 1 the patches have become alike (over-smoothing). Layer L is what enters the final
    norm; it exists on stream r only, and is NaN on the others.

    Attributes:
        mean: Mean over images of an image's mean over pairs.
        m2: Sum of squared differences from it; ``std`` is ``sqrt(m2 / images)``.
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
        """Columns ``stream``, ``layer`` (0..L-1; r: 0..L), ``cosine`` and ``std`` over images."""
        present = ~np.isnan(self.mean)
        stream, layer = np.nonzero(present)
        return pd.DataFrame(
            {
                "stream": np.array(self.streams, dtype=object)[stream],
                "layer": layer,
                "cosine": self.mean[present],
                "std": np.sqrt(self.m2[present] / self.provenance.sequences),
            }
        )

    def _merged(self, other: Any) -> dict[str, np.ndarray]:
        mine = Moments(self.provenance.sequences, self.mean, self.m2)
        both = mine.merge(Moments(other.provenance.sequences, other.mean, other.m2))
        return {"mean": both.mean, "m2": both.m2}


def patch_similarity_difference(result: PatchSimilarity, baseline: PatchSimilarity) -> pd.DataFrame:
    """The model's mean cosine and std minus the baseline's, stream by stream.

    A plain Transformer's one stream ``r`` is what all four are there.

    Returns:
        The columns of ``result.frame``; ``std`` is the difference of the two.

    Raises:
        ValueError: If the models differ in their number of layers.
    """
    return minus_baseline(result, baseline, labels=["layer"])


@dataclass(frozen=True)
class PatchSimilarityAnalysis(Analysis[PatchSimilarity]):
    """Computes :class:`PatchSimilarity`; it has no options."""

    name = "patch_similarity"
    result = PatchSimilarity
    requires = OF_IMAGES

    def start(self, model: HookedModel) -> "PatchSimilaritySums":
        """Empty sums for one model.

        Raises:
            ValueError: If an image is one patch only.
        """
        if patch_front(model, self.name).side < 2:
            raise ValueError(
                f"{self.name} compares the patches of an image, and {model.info.name} reads an "
                "image as one patch: take a model with smaller patches."
            )
        return PatchSimilaritySums(model, PatchSimilarity)


class PatchSimilaritySums(StreamMomentSums[PatchSimilarity]):
    """Moments of the images' mean cosines, of each stream and layer."""

    def measured(
        self, x: Float[Tensor, "batch pos d_model"]
    ) -> Float64[np.ndarray, "observation 1"]:
        """A mean cosine for each image."""
        return np.array([[cosines_among(image)] for image in x.detach()])


def patch_similarity(
    model: HookedModel, batches: TokenBatches, progress: Progress | None = None
) -> PatchSimilarity:
    """Mean cosine between the patches of one image, for the inputs of every block.

    Args:
        model: A hooked model that reads images, in evaluation mode.
        batches: Images ``[batch channel row column]`` in -1..1.
        progress: See :data:`Progress`.

    Raises:
        ValueError: If the model reads no images, or each as one patch; and as
            :func:`layer_similarity`.
    """
    return walk(model, batches, [PatchSimilarityAnalysis()], progress)[0]
