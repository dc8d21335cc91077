"""``model.cfg`` of a baseline: a bridge's configuration, read under our names too."""

from typing import Any

import torch

from mudd_interp.axes import Stream


class BaselineConfig:
    """A live view of a TransformerBridge's configuration.

    What is not here is read from the bridge's own. A baseline has no dense connections, and its
    streams are one. The ``use_*`` flags of TransformerLens are off: ``attn.hook_result`` and the
    stream inputs are hooked directly.
    """

    dense = "none"
    multiway = False
    plain_streams: tuple[Stream, ...] = ()
    pre_post_norm = "none"
    streams: tuple[Stream, ...] = ("r",)
    use_attn_result = False
    use_split_qkv_input = False
    use_attn_in = False
    use_hook_mlp_in = False
    default_prepend_bos = False

    def __init__(self, bridge: Any):
        self._bridge = (bridge,)

    def __getattr__(self, name: str) -> Any:
        """Fields of the bridge's configuration."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._bridge[0].cfg, name)

    @property
    def n_key_value_heads(self) -> int:
        """Heads of keys and values."""
        return self._bridge[0].cfg.n_key_value_heads or self._bridge[0].cfg.n_heads

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
        return f"BaselineConfig({self._bridge[0].cfg})"
