"""``model.cfg``: the frozen configuration under the names that TransformerLens' tools read."""

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from mudd_interp.model.transformer import HookedMUDDTransformer


class LiveConfig:
    """A live view of a model's configuration.

    Every field of ``ModelConfig`` is readable here; ``device`` and ``dtype`` are those of the
    model's weights now. ``d_mlp`` is a number where every block has the same width. The three
    ``use_*`` flags of TransformerLens are always off: their hooks do not exist here, or need none
    (``attn.hook_result`` and the stream inputs are hooked directly).
    """

    attn_only = False
    use_attn_result = False
    use_split_qkv_input = False
    use_hook_mlp_in = False
    default_prepend_bos = False
    positional_embedding_type = "rotary"

    def __init__(self, model: "HookedMUDDTransformer"):
        self._model = (model,)

    def __getattr__(self, name: str) -> Any:
        """Fields of the frozen configuration."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._model[0].config, name)

    @property
    def d_mlp(self) -> int | tuple[int, ...]:
        """FFN width: one number, or one for each block where they differ."""
        widths = self._model[0].config.mlp_widths
        return widths[0] if len(set(widths)) == 1 else widths

    @property
    def d_head(self) -> int:
        """Width of a head, also where the configuration leaves it to ``d_model``."""
        return self._model[0].config.head_width

    @property
    def n_key_value_heads(self) -> int:
        """Heads of keys and values, also where the configuration leaves them to ``n_heads``."""
        return self._model[0].config.kv_heads

    @property
    def rotary_dim(self) -> int:
        """Rotated dimensions per head, also where the configuration leaves them to ``d_head``."""
        return self._model[0].config.rotated

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._model[0].embed.W_E.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the weights."""
        return self._model[0].embed.W_E.dtype

    @property
    def model_name(self) -> str:
        """The name or path that the model was loaded by."""
        return self._model[0].info.name

    def __repr__(self) -> str:
        """The frozen configuration, with device and dtype."""
        return f"LiveConfig({self._model[0].config}, device={self.device}, dtype={self.dtype})"
