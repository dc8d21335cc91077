"""Mean and spread of a number over the inputs of every block, stream by stream."""

from abc import abstractmethod
from functools import partial
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float, Float64
from torch import Tensor

from mudd_interp import axes
from mudd_interp.analysis.base import Accumulator
from mudd_interp.analysis.moments import Moments
from mudd_interp.analysis.provenance import Provenance
from mudd_interp.analysis.result import Result
from mudd_interp.protocol import Hook, HookedModel

R_co = TypeVar("R_co", bound=Result, covariant=True)


class StreamMomentSums(Accumulator[R_co]):
    """Moments of what is measured of each stream of each block, and of what the final norm reads.

    Args:
        model: The model.
        kind: The result, with arrays ``mean`` and ``m2`` ``[stream layer_plus_1]``: NaN where layer
            L has no such stream.
    """

    def __init__(self, model: HookedModel, kind: type[R_co]):
        self._streams, self._n_layers, self._kind = model.wiring.streams, model.cfg.n_layers, kind
        self._hooks = {
            (row, layer): axes.stream_input(layer, stream)
            for row, stream in enumerate(self._streams)
            for layer in range(self._n_layers)
        }
        self._hooks[self._streams.index("r"), self._n_layers] = axes.RESID_FINAL
        self._moments = {key: Moments.empty(1) for key in self._hooks}

    @abstractmethod
    def measured(
        self, x: Float[Tensor, "batch pos d_model"]
    ) -> Float64[np.ndarray, "observation 1"]:
        """What is measured of a stream in a batch, before the norm."""

    def hooks(self) -> list[Hook]:
        """A hook on each stream of each block, and on what enters the final norm."""
        return [(name, partial(self._see, key)) for key, name in self._hooks.items()]

    def _see(
        self,
        key: tuple[int, int],
        x: Float[Tensor, "batch pos d_model"],
        hook: Any,  # noqa: ARG002 (a hook's signature)
    ) -> None:
        self._moments[key] = self._moments[key].merge(Moments.of(self.measured(x)))

    def finish(self, provenance: Provenance) -> R_co:
        """The result of all batches so far."""
        mean = np.full((len(self._streams), self._n_layers + 1), np.nan)
        m2 = mean.copy()
        for key, moments in self._moments.items():
            mean[key], m2[key] = moments.mean.item(), moments.m2.item()
        arrays: dict[str, Any] = {"mean": mean, "m2": m2}
        return self._kind(provenance=provenance, streams=self._streams, **arrays)
