"""Does composed mixing drift to uniform? T of hyper-connections, alone and multiplied up."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mudd_interp.analysis.base import Accumulator, Analysis
from mudd_interp.analysis.inputs import MIXING
from mudd_interp.analysis.moments import Moments, merged_moments
from mudd_interp.analysis.provenance import Provenance
from mudd_interp.analysis.result import Result
from mudd_interp.analysis.walk import Progress, walk
from mudd_interp.data import TokenBatches
from mudd_interp.precision import wide
from mudd_interp.protocol import Hook, HookedModel, Observer

KINDS = ("alone", "composed")


@dataclass(frozen=True, eq=False, kw_only=True)
class StreamMixing(Result):
    """How far the mixing of n streams is from mixing them all alike, sublayer by sublayer.

    ``‖T − J/n‖_F / √(n−1)``, where J is all ones: 0 where every stream becomes the mean of all, so
    that what was written to one is in each of them alike; 1 for the identity and any other
    permutation, between them if T is doubly stochastic, and without bound if it is not. Of T
    ``alone``, and ``composed``, of ``T_k ... T_0``: what is left of the differences that the
    streams began with. Dimensionless; it does not depend on which stream is which.

    Attributes:
        mean: Mean over tokens.
        m2: Sum of squared differences from the mean; ``std`` is ``sqrt(m2 / tokens)``.
    """

    needed: ClassVar[Mapping[str, Any]] = MappingProxyType({"sublayers": list[str]})
    labelled: ClassVar[Mapping[str, str]] = MappingProxyType({"sublayer": "sublayers"})
    lengths: ClassVar[Mapping[str, int]] = MappingProxyType({"kind": len(KINDS)})

    mean: Float64[np.ndarray, "kind sublayer"]
    m2: Float64[np.ndarray, "kind sublayer"]

    @property
    def sublayers(self) -> list[str]:
        """``attn.0``, ``mlp.0``, ..."""
        return self.provenance.options["sublayers"]

    @property
    def frame(self) -> pd.DataFrame:
        """Columns ``kind`` (``alone``, ``composed``), ``depth``, ``sublayer``, ``mean``, ``std``.

        Depth counts sublayers from 0; std is the population's.
        """
        depths = len(self.sublayers)
        return pd.DataFrame(
            {
                "kind": np.repeat(np.array(KINDS, dtype=object), depths),
                "depth": np.tile(np.arange(depths), len(KINDS)),
                "sublayer": np.tile(np.array(self.sublayers, dtype=object), len(KINDS)),
                "mean": self.mean.ravel(),
                "std": np.sqrt(self.m2 / self.provenance.tokens).ravel(),
            }
        )

    def _merged(self, other: Any) -> dict[str, np.ndarray]:
        return merged_moments(self, other)


@dataclass(frozen=True)
class StreamMixingAnalysis(Analysis[StreamMixing]):
    """Computes :class:`StreamMixing`; it has no options."""

    name = "stream_mixing"
    result = StreamMixing
    requires = MIXING

    def start(self, model: HookedModel) -> "MixingSums":
        """Empty sums for one model."""
        return MixingSums(model)


class MixingSums(Accumulator[StreamMixing]):
    """T of each sublayer as it comes, and the product of all so far."""

    def __init__(self, model: HookedModel):
        self._streams, self._hooks = model.wiring.streams, model.wiring.mixed
        self._moments = {name: Moments.empty(len(KINDS)) for name in self._hooks.values()}
        self._product: Tensor | None = None
        self.options: Mapping[str, Any] = {"sublayers": list(self._hooks)}

    def hooks(self) -> list[Hook]:
        """A look at each T, in the order of depth."""
        return [(name, Observer(self._see)) for name in self._hooks.values()]

    def begin(self, tokens: Any) -> None:  # noqa: ARG002 (an accumulator's)
        """See :class:`Accumulator`."""
        self._product = None

    def _see(self, mix: Float[Tensor, "batch pos new old"], hook: Any) -> None:
        mix = wide(mix.detach())
        self._product = mix if self._product is None else mix @ self._product
        both = torch.stack([_unevenness(each) for each in (mix, self._product)], dim=-1)
        values = both.flatten(0, -2).cpu().double().numpy()
        self._moments[hook.name] = self._moments[hook.name].merge(Moments.of(values))

    def finish(self, provenance: Provenance) -> StreamMixing:
        """The result of all batches so far."""
        arrays: dict[str, Any] = {
            name: np.stack([getattr(each, name) for each in self._moments.values()], axis=-1)
            for name in ("mean", "m2")
        }
        return StreamMixing(provenance=provenance, streams=self._streams, **arrays)


def _unevenness(mix: Float[Tensor, "*token new old"]) -> Float[Tensor, "*token"]:
    n = mix.shape[-1]
    return (mix - 1 / n).norm(dim=(-2, -1)) / (n - 1) ** 0.5


def stream_mixing(
    model: HookedModel, batches: TokenBatches, progress: Progress | None = None
) -> StreamMixing:
    """How far T of each sublayer, and their product, are from mixing all streams alike.

    The arguments and errors are those of :func:`layer_similarity`; the model must mix streams.
    """
    return walk(model, batches, [StreamMixingAnalysis()], progress)[0]
