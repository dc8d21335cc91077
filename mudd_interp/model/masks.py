"""Which positions attention sees from each position."""

import math
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mudd_interp.config import ModelConfig


@runtime_checkable
class Mask(Protocol):
    """What attention is told about positions: for its own steps, and for the fused kernel."""

    def on(
        self, scores: Float[Tensor, "batch head query key"]
    ) -> Float[Tensor, "batch head query key"]:
        """Scores with minus infinity where a query does not see a key; may be done in place."""
        ...

    def fused(self, queries: int, keys: int, device: torch.device) -> dict[str, Any]:
        """The arguments of ``scaled_dot_product_attention`` that say the same."""
        ...


class Causal:
    """A position sees itself and those before it; the queries are the last of the keys."""

    def on(
        self, scores: Float[Tensor, "batch head query key"]
    ) -> Float[Tensor, "batch head query key"]:
        """See :class:`Mask`; in place."""
        query, key = scores.shape[-2:]
        return scores.add_(scores.new_full((query, key), -math.inf).triu_(key - query + 1))

    def fused(self, queries: int, keys: int, device: torch.device) -> dict[str, Any]:
        """See :class:`Mask`: the kernel's own flag serves equal lengths; one query sees all."""
        if queries == keys or queries == 1:
            return {"is_causal": queries == keys > 1}
        return {
            "attn_mask": torch.ones(queries, keys, dtype=torch.bool, device=device).tril(
                keys - queries
            )
        }


class Windowed(Causal):
    """A position sees itself and those before it, so many in all.

    Args:
        window: How many.
    """

    def __init__(self, window: int):
        self.window = window

    def on(
        self, scores: Float[Tensor, "batch head query key"]
    ) -> Float[Tensor, "batch head query key"]:
        """See :class:`Mask`; in place."""
        query, key = scores.shape[-2:]
        seen = self._seen(query, key, scores.device)
        return scores.masked_fill_(seen.logical_not(), -math.inf)

    def fused(self, queries: int, keys: int, device: torch.device) -> dict[str, Any]:
        """See :class:`Mask`: the kernel's own flag where no window is too short."""
        if keys <= self.window:
            return super().fused(queries, keys, device)
        return {"attn_mask": self._seen(queries, keys, device)}

    def _seen(self, queries: int, keys: int, device: torch.device) -> Bool[Tensor, "query key"]:
        every = torch.ones(queries, keys, dtype=torch.bool, device=device)
        newest = keys - queries  # the key at the first query's own position
        return every.tril(newest).triu(newest - self.window + 1)


class Bidirectional:
    """A position sees every position."""

    def on(
        self, scores: Float[Tensor, "batch head query key"]
    ) -> Float[Tensor, "batch head query key"]:
        """See :class:`Mask`."""
        return scores

    def fused(self, queries: int, keys: int, device: torch.device) -> dict[str, Any]:  # noqa: ARG002 (what a mask is told)
        """See :class:`Mask`: nothing is masked."""
        return {}


def make_mask(cfg: ModelConfig, layer: int) -> Mask:
    """The mask of a block, by the configuration."""
    if cfg.attention_windows is not None:
        return Windowed(cfg.attention_windows[layer])
    return Causal() if cfg.attention_dir == "causal" else Bidirectional()
