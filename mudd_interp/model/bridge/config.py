"""``model.cfg`` of a bridged model: a bridge's configuration, read under our names too."""

from collections.abc import Callable
from typing import Any

import torch

from mudd_interp.axes import Stream, unknown_name
from mudd_interp.model.live_config import ConfigView

CONTEXTS = (
    "max_position_embeddings",
    "n_positions",
    "max_context_length",
    "max_length",
    "seq_length",
    "max_sequence_length",
    "max_seq_len",
)
"""What transformers' configurations call the longest text."""


class BridgeConfig(ConfigView):
    """A live view of a TransformerBridge's configuration.

    What is not here is read from the bridge's own. A bridged model has no dense connections and
    one stream. The ``use_*`` flags of TransformerLens are off: ``attn.hook_result`` and the
    stream inputs are hooked directly. Nothing can be set.
    """

    streams: tuple[Stream, ...] = ("r",)

    def __init__(self, bridge: Any):
        self._bridge = (bridge,)

    def __getattr__(self, name: str) -> Any:
        """Fields of the bridge's configuration."""
        if name.startswith("_"):
            raise AttributeError(name)
        config = self._bridge[0].cfg
        if not hasattr(config, name):
            raise AttributeError(unknown_name("configuration field", name, dir(config)))
        return getattr(config, name)

    @property
    def d_head(self) -> int:
        """Width of a head."""
        return self._bridge[0].cfg.d_head

    @property
    def d_vocab_out(self) -> int:
        """Columns of the unembedding."""
        return self._bridge[0].unembed.W_U.shape[1]

    @property
    def n_key_value_heads(self) -> int:
        """Heads of keys and values."""
        return self._bridge[0].cfg.n_key_value_heads or self._bridge[0].cfg.n_heads

    @property
    def d_mlp(self) -> int | tuple[int, ...] | None:
        """Width of the FFN, of each layer where they differ; ``None`` where it is of experts."""
        return self.measured["d_mlp"]

    @property
    def measured(self) -> dict[str, int | tuple[int, ...] | None]:
        """Heads and widths as the weights have them, of each layer where they differ.

        Fields of a configuration are not always what the weights are: not every architecture calls
        the width of its FFN by one name. ``None`` is for what a layer has not (latent attention has
        no one width of a head, and experts have widths of their own), and for a context that the
        model's own configuration does not bound.
        """
        blocks = self._bridge[0].blocks
        return {
            "n_heads": _of_layers(blocks, lambda block: block.attn.W_Q.shape[0]),
            "n_key_value_heads": _of_layers(blocks, lambda block: block.attn.W_K.shape[0]),
            "d_head": _of_layers(blocks, lambda block: block.attn.W_Q.shape[-1]),
            "d_mlp": _of_layers(blocks, lambda block: block.mlp.W_in.shape[-1]),
            "n_ctx": self.n_ctx if self._has_bound() else None,
        }

    def _has_bound(self) -> bool:
        config = self._bridge[0].original_model.config.get_text_config()
        return any(getattr(config, name, None) == self.n_ctx for name in CONTEXTS)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._bridge[0].embed.W_E.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the weights."""
        return self._bridge[0].embed.W_E.dtype

    def __repr__(self) -> str:
        """The bridge's configuration."""
        return f"BridgeConfig({self._bridge[0].cfg})"


def _of_layers(blocks: Any, size: Callable[[Any], int]) -> int | tuple[int, ...] | None:
    """A size of all layers, or of each where they differ; ``None`` where one has not got it."""
    try:
        sizes = tuple(size(block) for block in blocks)
    # The bridge's word for a weight that an architecture, or one layer of it, has not.
    except (AttributeError, NotImplementedError, ValueError):
        return None
    return sizes[0] if len(set(sizes)) == 1 else sizes
