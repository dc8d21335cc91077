"""``model.cfg`` of a baseline: a bridge's configuration, read under our names too."""

from typing import Any

import torch

from mudd_interp.axes import Stream, unknown_name
from mudd_interp.model.live_config import ConfigView


class BaselineConfig(ConfigView):
    """A live view of a TransformerBridge's configuration.

    What is not here is read from the bridge's own. A baseline has no dense connections, and its
    streams are one. The ``use_*`` flags of TransformerLens are off: ``attn.hook_result`` and the
    stream inputs are hooked directly. Nothing can be set.
    """

    dense = "none"
    multiway = False
    plain_streams: tuple[Stream, ...] = ()
    pre_post_norm = "none"
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
    def d_vocab_out(self) -> int:
        """Columns of the unembedding."""
        return self._bridge[0].unembed.W_U.shape[1]

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
