"""How large each edge's weight is, and what it carries: before any claim about what it does."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mudd_interp.analysis.base import Accumulator, Analysis
from mudd_interp.analysis.edges import edge_grid, watch_sources
from mudd_interp.analysis.finite import arrays_of
from mudd_interp.analysis.norms import l2_norms
from mudd_interp.analysis.provenance import Provenance
from mudd_interp.analysis.result import Result
from mudd_interp.analysis.walk import NO_LOCK, Progress, walk
from mudd_interp.data import TokenBatches
from mudd_interp.protocol import Hook, HookedModel
from mudd_interp.wiring import Read


@dataclass(frozen=True, eq=False, kw_only=True)
class EdgeSizes(Result):
    """Sums over tokens of ``|A|``, of ``‖A X_source‖`` and of the length of what they add up to.

    A contribution is the direct one, ``|A| · ‖X_source‖`` at a token: X_source contains what it
    read itself. With PrePostDANorm X_source is normed, and the stream is what comes out of the
    post-norm, newest output included; shares say little there.

    Attributes:
        weight_sum: Sum of the magnitudes of the weights.
        contribution_sum: Sum of the lengths of the weighted sources.
        stream_norm_sum: Sum of the lengths of the streams that the aggregations feed.
    """

    absent: ClassVar[tuple[str, ...]] = ("weight_sum", "contribution_sum", "stream_norm_sum")

    weight_sum: Float64[np.ndarray, "stream layer source"]
    contribution_sum: Float64[np.ndarray, "stream layer source"]
    stream_norm_sum: Float64[np.ndarray, "stream layer"]

    @property
    def frame(self) -> pd.DataFrame:
        """Columns ``stream layer source``, and means over tokens.

        ``weight`` (of the magnitude), ``contribution`` (units of the residual stream) and ``share``
        (contribution over the mean length of the stream; the shares of a stream do not add up to
        one, since contributions are no parallel vectors and may cancel; NaN of an empty stream).
        """
        present = ~np.isnan(self.weight_sum)
        stream, layer, source = np.nonzero(present)
        tokens = self.provenance.tokens
        contribution, length = self.contribution_sum[present], self.stream_norm_sum[stream, layer]
        return pd.DataFrame(
            {
                "stream": np.array(self.streams, dtype=object)[stream],
                "layer": layer,
                "source": source,
                "weight": self.weight_sum[present] / tokens,
                "contribution": contribution / tokens,
                "share": contribution / np.where(length == 0, np.nan, length),
            }
        )

    def _merged(self, other: Any) -> dict[str, np.ndarray]:
        return {name: array + getattr(other, name) for name, array in arrays_of(self).items()}


@dataclass(frozen=True)
class EdgeSizesAnalysis(Analysis[EdgeSizes]):
    """Computes :class:`EdgeSizes`; it has no options."""

    name = "edge_sizes"
    result = EdgeSizes

    def start(self, model: HookedModel) -> "SizeSums":
        """Empty sums for one model."""
        return SizeSums(model)


class SizeSums(Accumulator[EdgeSizes]):
    """Sums of each row, taken when its weights are there: after all of its sources."""

    def __init__(self, model: HookedModel):
        self._wiring = model.wiring
        self._norms: dict[int, Float[Tensor, "batch pos"]] = {}
        rows = {read: len(self._wiring.columns(read)) for read in self._wiring.rows}
        self._weights = {read: np.zeros(sources) for read, sources in rows.items()}
        self._contributions = {read: np.zeros(sources) for read, sources in rows.items()}
        self._lengths = np.full((len(self._wiring.streams), self._wiring.n_rows), np.nan)
        for read in rows:
            self._lengths[self._place(read)] = 0.0

    def _place(self, read: Read) -> tuple[int, int]:
        return self._wiring.streams.index(read.stream), read.row

    def hooks(self) -> list[Hook]:
        """A look at each source, at the weights of each row, and at what comes of them."""
        return [
            *watch_sources(self._wiring, self._see_source),
            *self._wiring.watch_rows(self._see_weights),
            *((read.hook, partial(self._see_stream, read)) for read in self._wiring.rows),
        ]

    def _see_source(self, source: int, x: Float[Tensor, "batch pos d_model"]) -> None:
        self._norms[source] = l2_norms(x)

    def _see_weights(self, read: Read, weights: Float[Tensor, "batch pos source"]) -> None:
        norms = torch.stack([self._norms[j] for j in self._wiring.columns(read)], dim=-1)
        sizes = weights.to(norms.dtype).abs()
        self._weights[read] += sizes.double().sum((0, 1)).cpu().numpy()
        self._contributions[read] += (sizes * norms).double().sum((0, 1)).cpu().numpy()

    def _see_stream(
        self,
        read: Read,
        x: Float[Tensor, "batch pos d_model"],
        hook: Any,  # noqa: ARG002 (a hook's signature)
    ) -> None:
        length = l2_norms(x).double().sum().item()
        self._lengths[self._place(read)] += length
        if not self._wiring.weighed(read):  # the plain residual: one on the newest source
            self._weights[read][-1] += x.shape[0] * x.shape[1]
            self._contributions[read][-1] += length

    def finish(self, provenance: Provenance) -> EdgeSizes:
        """The result of all batches so far."""
        return EdgeSizes(
            provenance=provenance,
            streams=self._wiring.streams,
            weight_sum=edge_grid(self._weights, self._wiring),
            contribution_sum=edge_grid(self._contributions, self._wiring),
            stream_norm_sum=self._lengths.copy(),
        )


def edge_sizes(
    model: HookedModel,
    batches: TokenBatches,
    progress: Progress | None = None,
    lock: AbstractContextManager[Any] = NO_LOCK,
) -> EdgeSizes:
    """Mean magnitude of each edge's weight, and of what it carries.

    The arguments and errors are those of :func:`layer_similarity`.
    """
    return walk(model, batches, [EdgeSizesAnalysis()], progress, lock)[0]
