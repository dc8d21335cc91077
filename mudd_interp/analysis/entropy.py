"""How widely an attention head spreads its attention."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mudd_interp.analysis.base import Accumulator, Analysis
from mudd_interp.analysis.heads import HOLDS_NAN, pattern_hooks
from mudd_interp.analysis.inputs import PATTERNS
from mudd_interp.analysis.provenance import Provenance
from mudd_interp.analysis.result import Result
from mudd_interp.analysis.walk import Progress, walk
from mudd_interp.axes import Stream
from mudd_interp.data import TokenBatches
from mudd_interp.precision import wide
from mudd_interp.protocol import Hook, HookedModel, Trait


@dataclass(frozen=True, eq=False, kw_only=True)
class HeadEntropy(Result):
    """Mean entropy of a head's attention, over sequences and positions: in nats.

    ``-Σ_k p_k log p_k`` of the attention probabilities of one query, with 0 log 0 = 0. Query t
    (0-based) sees t + 1 keys, so its entropy lies in 0..log(t + 1): 0 where all attention is on one
    key. The mean depends on the length of the sequences.

    Attributes:
        entropy_sum: Sum of the entropies over tokens.
    """

    entropy_sum: Float64[np.ndarray, "layer head"]

    @property
    def frame(self) -> pd.DataFrame:
        """Columns ``layer``, ``head`` and ``entropy`` (nats)."""
        layer, head = np.indices(self.entropy_sum.shape)
        entropy = self.entropy_sum.ravel() / self.provenance.tokens
        return pd.DataFrame({"layer": layer.ravel(), "head": head.ravel(), "entropy": entropy})

    def _merged(self, other: Any) -> dict[str, np.ndarray]:
        return {"entropy_sum": self.entropy_sum + other.entropy_sum}


@dataclass(frozen=True)
class HeadEntropyAnalysis(Analysis[HeadEntropy]):
    """Computes :class:`HeadEntropy`; it has no options."""

    name = "head_entropy"
    result = HeadEntropy

    @property
    def required(self) -> frozenset[Trait]:
        """Rows that sum to one: of others there is no entropy."""
        return PATTERNS

    def start(self, model: HookedModel) -> "EntropySums":
        """Empty sums for one model."""
        return EntropySums(model)


class EntropySums(Accumulator[HeadEntropy]):
    """Sums of entropies; each layer's pattern is summed when its hook fires."""

    def __init__(self, model: HookedModel):
        self._streams: tuple[Stream, ...] = model.wiring.streams
        self._sums = np.zeros((model.cfg.n_layers, model.cfg.n_heads))

    def hooks(self) -> list[Hook]:
        """A hook on each block's attention pattern: the slow path of attention."""
        return pattern_hooks(len(self._sums), self._see)

    def _see(
        self,
        layer: int,
        pattern: Float[Tensor, "batch head query key"],
        hook: Any,  # noqa: ARG002 (a hook's signature)
    ) -> None:
        for heads in pattern.detach():
            self._sums[layer] += row_entropy(heads).cpu().double().sum(-1).numpy()

    def finish(self, provenance: Provenance) -> HeadEntropy:
        """The result of all batches so far.

        Raises:
            ValueError: If a pattern held NaN.
        """
        if np.isnan(self._sums).any():
            raise ValueError(HOLDS_NAN)
        return HeadEntropy(
            provenance=provenance, streams=self._streams, entropy_sum=self._sums.copy()
        )


def row_entropy(
    pattern: Float[Tensor, "head query key"],
) -> Float[Tensor, "head query"]:
    """The entropy of each query's attention, in nats, computed in at least float32."""
    return torch.special.entr(wide(pattern)).sum(-1)


def head_entropy(
    model: HookedModel, batches: TokenBatches, progress: Progress | None = None
) -> HeadEntropy:
    """Mean entropy of each head's attention, in nats.

    The arguments and errors are those of :func:`layer_similarity`; also a pattern with NaN.
    """
    return walk(model, batches, [HeadEntropyAnalysis()], progress)[0]
