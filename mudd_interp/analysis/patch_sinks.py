"""Where attention rests in an image: on patches that stick out, or on such as show nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import log
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from mudd_interp import axes
from mudd_interp.analysis.base import Accumulator, Analysis
from mudd_interp.analysis.entropy import row_entropy
from mudd_interp.analysis.heads import HOLDS_NAN, pattern_hooks
from mudd_interp.analysis.norms import l2_norms
from mudd_interp.analysis.patches import OF_IMAGES, patch_front, rows_and_columns
from mudd_interp.analysis.predictions import as_float64
from mudd_interp.analysis.provenance import Provenance
from mudd_interp.analysis.result import Result
from mudd_interp.analysis.walk import Progress, walk
from mudd_interp.data import TokenBatches
from mudd_interp.protocol import Hook, HookedModel, Inputs

DEVIATIONS = 5
"""How many median absolute deviations above the median a norm is an outlier."""


@dataclass(frozen=True, eq=False, kw_only=True)
class PatchSinks(Result):
    """How much attention goes to patches of two kinds, how widely it spreads, and how far.

    Of layer l, and of each image by itself: a patch is an **outlier** if the L2 norm of the block's
    output there (``hook_resid_post``, X_{l+1}) is more than the median of the image's patches plus
    five times their median absolute deviation (not scaled; the paper on registers, Darcet et al.
    2024, has a fixed norm for its own models). A patch is **blank** if each channel has one value
    all over it, in the image as the model reads it: it shows nothing. Where there are no such
    patches the attention to them is 0, which is a result.

    Attributes:
        outlier_sum: Attention that goes to outliers, summed over queries and images.
        blank_sum: The same of blank patches.
        entropy_sum: Entropy of a query's attention in nats, summed likewise.
        distance_sum: Mean distance of what a query attends to, in patches, summed likewise.
        outliers: How many patches are outliers.
        blanks: How many patches are blank.
    """

    lengths: ClassVar[Mapping[str, int]] = MappingProxyType({"one": 1})

    outlier_sum: Float64[np.ndarray, "layer head"]
    blank_sum: Float64[np.ndarray, "layer head"]
    entropy_sum: Float64[np.ndarray, "layer head"]
    distance_sum: Float64[np.ndarray, "layer head"]
    outliers: Int64[np.ndarray, " layer"]
    blanks: Int64[np.ndarray, " one"]

    @property
    def frame(self) -> pd.DataFrame:
        """A row for each head, all as means over queries and images.

        Columns ``layer``, ``head``; ``to_outliers`` and ``to_blanks``, shares of attention, 0..1;
        ``entropy``, divided by that of even attention: 0..1; ``distance`` between the centres of
        query and key, by attention, in patches (Euclidean); and the shares of patches that are
        such, ``outlier_patches`` and ``blank_patches``: what even attention would give.
        """
        patches = self.provenance.tokens
        even = log(patches / self.provenance.sequences) or 1.0  # one patch has entropy 0
        layer, head = (index.ravel() for index in np.indices(self.outlier_sum.shape))
        return pd.DataFrame(
            {
                "layer": layer,
                "head": head,
                "to_outliers": self.outlier_sum.ravel() / patches,
                "to_blanks": self.blank_sum.ravel() / patches,
                "entropy": self.entropy_sum.ravel() / patches / even,
                "distance": self.distance_sum.ravel() / patches,
                "outlier_patches": self.outliers[layer] / patches,
                "blank_patches": int(self.blanks[0]) / patches,
            }
        )

    def _merged(self, other: Any) -> dict[str, np.ndarray]:
        names = ("outlier_sum", "blank_sum", "entropy_sum", "distance_sum", "outliers", "blanks")
        return {name: getattr(self, name) + getattr(other, name) for name in names}


@dataclass(frozen=True)
class PatchSinksAnalysis(Analysis[PatchSinks]):
    """Computes :class:`PatchSinks`; it has no options."""

    name = "patch_sinks"
    result = PatchSinks
    requires = OF_IMAGES

    def start(self, model: HookedModel) -> "PatchSinkSums":
        """Empty sums for one model."""
        return PatchSinkSums(model)


class PatchSinkSums(Accumulator[PatchSinks]):
    """Sums of attention; a pattern waits for its block's output, which says the outliers."""

    def __init__(self, model: HookedModel):
        self._streams, self._n_layers = model.wiring.streams, model.cfg.n_layers
        self._front = patch_front(model, PatchSinksAnalysis.name)
        shape = (self._n_layers, model.cfg.n_heads)
        self._sums = {name: np.zeros(shape) for name in _MEASURES}
        self._outliers = np.zeros(self._n_layers, dtype=np.int64)
        self._blanks = 0
        self._is_blank: Bool[Tensor, "batch pos"] = torch.zeros(0, 0, dtype=torch.bool)
        self._received: Float[Tensor, "batch head key"] = torch.zeros(0, 0, 0)
        self._distances = distances(self._front.side)

    def hooks(self) -> list[Hook]:
        """A hook on each block's attention pattern, and on its output."""
        outputs = [
            (axes.resid_post(layer), partial(self._see_output, layer))
            for layer in range(self._n_layers)
        ]
        return [*pattern_hooks(self._n_layers, self._see_pattern), *outputs]

    def begin(self, tokens: Inputs) -> None:
        """Mark the patches that show nothing."""
        self._is_blank = blank_patches(self._front.pixels(tokens))
        self._blanks += int(self._is_blank.sum())

    def _see_pattern(
        self,
        layer: int,
        pattern: Float[Tensor, "batch head query key"],
        hook: Any,  # noqa: ARG002 (a hook's signature)
    ) -> None:
        exact = pattern.detach().double()
        received = exact.sum(2)
        self._received = received
        is_blank = self._is_blank.to(received.device, received.dtype)
        far = exact * self._distances.to(exact.device)
        self._add("blank", layer, (received * is_blank[:, None]).sum((0, 2)))
        self._add("distance", layer, far.sum((0, 2, 3)))
        for heads in exact:
            self._add("entropy", layer, row_entropy(heads).sum(-1))

    def _see_output(
        self,
        layer: int,
        x: Float[Tensor, "batch pos d_model"],
        hook: Any,  # noqa: ARG002 (a hook's signature)
    ) -> None:
        marked = outliers(as_float64(l2_norms(x.detach())))
        self._outliers[layer] += int(marked.sum())
        is_outlier = torch.from_numpy(marked).to(self._received.device, self._received.dtype)
        self._add("outlier", layer, (self._received * is_outlier[:, None]).sum((0, 2)))

    def _add(self, name: str, layer: int, values: Float[Tensor, " head"]) -> None:
        self._sums[name][layer] += as_float64(values)

    def finish(self, provenance: Provenance) -> PatchSinks:
        """The result of all batches so far.

        Raises:
            ValueError: If a pattern held NaN.
        """
        if any(np.isnan(values).any() for values in self._sums.values()):
            raise ValueError(HOLDS_NAN)
        return PatchSinks(
            provenance=provenance,
            streams=self._streams,
            outliers=self._outliers.copy(),
            blanks=np.array([self._blanks]),
            **{f"{name}_sum": values.copy() for name, values in self._sums.items()},
        )


_MEASURES = ("outlier", "blank", "entropy", "distance")


def outliers(norms: Float64[np.ndarray, "image pos"]) -> Bool[np.ndarray, "image pos"]:
    """Which norms are more than the median of their image plus five median absolute deviations."""
    median = np.median(norms, axis=1, keepdims=True)
    deviation = np.median(np.abs(norms - median), axis=1, keepdims=True)
    return norms > median + DEVIATIONS * deviation


def blank_patches(
    pixels: Float[Tensor, "batch pos channel pixel"],
) -> Bool[Tensor, "batch pos"]:
    """Which patches have one value all over each channel."""
    return (pixels == pixels[..., :1]).all(-1).all(-1)


def distances(side: int) -> Float64[Tensor, "query key"]:
    """How far apart the centres of two patches are, in patches."""
    places = torch.from_numpy(rows_and_columns(side).T).double()
    return (places[:, None] - places).norm(dim=-1)


def patch_sinks(
    model: HookedModel, batches: TokenBatches, progress: Progress | None = None
) -> PatchSinks:
    """Attention to outliers and to blank patches, its entropy and its distance, of each head.

    Args:
        model: A hooked model that reads images, in evaluation mode.
        batches: Images ``[batch channel row column]`` in -1..1.
        progress: See :data:`Progress`.

    Raises:
        ValueError: If the model reads no images; and as :func:`layer_similarity`.
    """
    return walk(model, batches, [PatchSinksAnalysis()], progress)[0]
