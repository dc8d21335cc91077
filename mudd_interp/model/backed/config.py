"""``model.cfg`` of a backed model: its transformers configuration under our names."""

from typing import Any

import torch

from mudd_interp.axes import Stream, unknown_name
from mudd_interp.model.live_config import ConfigView

NAMES = {
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_key_value_heads": "num_key_value_heads",
    "d_model": "hidden_size",
    "d_vocab": "vocab_size",
    "d_vocab_out": "vocab_size",
    "n_ctx": "max_position_embeddings",
    "eps": "rms_norm_eps",
    "act_fn": "hidden_act",
}
"""What transformers calls each size."""


class BackedConfig(ConfigView):
    """A live view of a transformers configuration; what is not here is read from it.

    Args:
        module: The Hugging Face model.
        d_head: Width of what a head mixes.
        name: What the model was loaded by.
    """

    streams: tuple[Stream, ...] = ("r",)
    normalization_type = "RMS"
    final_rms = True
    uses_rms_norm = True
    parallel_attn_mlp = False
    attn_only = False
    attention_dir = "causal"
    positional_embedding_type = "rotary"
    d_mlp = None
    n_devices = 1

    def __init__(self, module: Any, d_head: int, name: str):
        self._module, self._d_head, self._name = (module,), d_head, name

    def __getattr__(self, name: str) -> Any:
        """Fields of the transformers configuration, under our names or its own."""
        if name.startswith("_"):
            raise AttributeError(name)
        config = self._module[0].config
        theirs = NAMES.get(name, name)
        if not hasattr(config, theirs):
            known = [*NAMES, *dir(config)]
            raise AttributeError(unknown_name("configuration field", name, known))
        return getattr(config, theirs)

    @property
    def d_head(self) -> int:
        """Width of what a head mixes."""
        return self._d_head

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._module[0].lm_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the streams, and of most weights."""
        return self._module[0].model.embed_tokens.weight.dtype

    @property
    def model_name(self) -> str:
        """The name or path that the model was loaded by."""
        return self._name

    def __repr__(self) -> str:
        """The transformers configuration."""
        return f"BackedConfig({self._module[0].config})"
