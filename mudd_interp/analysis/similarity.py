"""How similar the input of a block is to the input of the block before it (paper, Fig. 6)."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mudd_interp import axes
from mudd_interp.analysis.base import Accumulator, Analysis
from mudd_interp.analysis.difference import minus_baseline
from mudd_interp.analysis.norms import l2_norms
from mudd_interp.analysis.provenance import Provenance
from mudd_interp.analysis.result import Result
from mudd_interp.analysis.walk import Progress, walk
from mudd_interp.data import TokenBatches
from mudd_interp.precision import wide
from mudd_interp.protocol import Hook, HookedModel, Inputs


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerSimilarity(Result):
    """Mean cosine similarity of the inputs of neighbouring blocks, stream by stream (Fig. 6).

    ``cos(X̄^c_l[t], X̄^c_{l-1}[t])``, before the norms, averaged over sequences and positions, first
    tokens included (the paper does not say whether it leaves them out). Dimensionless, in -1..1.

    Attributes:
        cosine_sum: Sum of the cosines over tokens; index ``l - 1`` on the second axis is block l.
    """

    cosine_sum: Float64[np.ndarray, "stream layer_minus_1"]

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.cosine_sum.shape[1] + 1

    @property
    def frame(self) -> pd.DataFrame:
        """Columns ``stream``, ``layer`` (1..L-1) and ``cosine``."""
        streams, later = self.cosine_sum.shape
        return pd.DataFrame(
            {
                "stream": np.repeat(np.array(self.streams, dtype=object), later),
                "layer": np.tile(np.arange(1, later + 1), streams),
                "cosine": self.cosine_sum.ravel() / self.provenance.tokens,
            }
        )

    def _merged(self, other: Any) -> dict[str, np.ndarray]:
        return {"cosine_sum": self.cosine_sum + other.cosine_sum}


def similarity_difference(result: LayerSimilarity, baseline: LayerSimilarity) -> pd.DataFrame:
    """The model's cosines minus the baseline's, stream by stream; in -2..2.

    A plain Transformer's one stream ``r`` is what all four are there.

    Returns:
        The columns of ``result.frame``.

    Raises:
        ValueError: If the models differ in their number of layers.
    """
    return minus_baseline(result, baseline, labels=["layer"])


@dataclass(frozen=True)
class LayerSimilarityAnalysis(Analysis[LayerSimilarity]):
    """Computes :class:`LayerSimilarity`; it has no options."""

    name = "layer_similarity"
    result = LayerSimilarity

    def start(self, model: HookedModel) -> "SimilaritySums":
        """Empty sums for one model."""
        return SimilaritySums(model)


class SimilaritySums(Accumulator[LayerSimilarity]):
    """Sums of cosines; between two blocks it keeps each stream and its norms."""

    def __init__(self, model: HookedModel):
        self._streams, self._n_layers = model.wiring.streams, model.cfg.n_layers
        self._sums = np.zeros((len(self._streams), self._n_layers - 1))
        self._previous: dict[int, tuple[Tensor, Tensor]] = {}

    def hooks(self) -> list[Hook]:
        """A hook on each stream of each block."""
        return [
            (axes.stream_input(layer, stream), partial(self._see, row, layer))
            for layer in range(self._n_layers)
            for row, stream in enumerate(self._streams)
        ]

    def begin(self, tokens: Inputs) -> None:  # noqa: ARG002 (what an accumulator is told)
        """Forget the streams of the pass before."""
        self._previous.clear()

    def _see(
        self,
        row: int,
        layer: int,
        x: Float[Tensor, "batch pos d_model"],
        hook: Any,  # noqa: ARG002 (a hook's signature)
    ) -> None:
        vectors = wide(x)
        norm = l2_norms(vectors)
        if layer > 0:
            before, norm_before = self._previous[row]
            norms = norm * norm_before
            # The zero vector has no direction: its cosine with anything is 0.
            cosine = torch.linalg.vecdot(vectors, before) / norms.masked_fill(norms == 0, 1)
            self._sums[row, layer - 1] += cosine.cpu().double().sum().item()
        self._previous[row] = vectors, norm

    def finish(self, provenance: Provenance) -> LayerSimilarity:
        """The result of all batches so far."""
        self._previous.clear()
        return LayerSimilarity(
            provenance=provenance, streams=self._streams, cosine_sum=self._sums.copy()
        )


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
    return walk(model, batches, [LayerSimilarityAnalysis()], progress)[0]
