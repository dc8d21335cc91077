"""Which positions attention sees from each position."""

import math
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
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


def make_mask(cfg: ModelConfig) -> Mask:
    """The mask of the configuration."""
    return Causal() if cfg.attention_dir == "causal" else Bidirectional()
