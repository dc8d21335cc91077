"""``model.cfg``: the frozen configuration under the names that TransformerLens' tools read."""

from dataclasses import FrozenInstanceError, fields
from typing import Any, Protocol, runtime_checkable

import torch

from mudd_interp.axes import unknown_name
from mudd_interp.config import ModelConfig
from mudd_interp.model.layers import Norm, epsilon
from mudd_interp.precision import wide
from mudd_interp.protocol import ModelInfo

FLAGS = {
    "use_attn_result": "`attn.hook_result` is always there, and computed when it is named",
    "use_split_qkv_input": "`hook_q_input`, `hook_k_input` and `hook_v_input` are always there, "
    "[batch pos d_model], the same for all heads",
    "use_attn_in": "`hook_q_input`, `hook_k_input` and `hook_v_input` are always there, "
    "[batch pos d_model], the same for all heads",
    "use_hook_mlp_in": "`ln2.hook_normalized` is what the FFN alone reads, and "
    "`hook_resid_mid` the stream in the middle of a block",
}
"""TransformerLens' switches for hooks, with what is there without them."""

ABSENT = object()


class ConfigView:
    """A configuration that is read live and never written: :class:`ModelShape` and more.

    Fields that are not here are those of the configuration that is viewed.
    """

    n_layers: int
    n_heads: int
    d_model: int
    d_vocab: int
    n_ctx: int

    use_attn_result = False
    use_split_qkv_input = False
    use_attn_in = False
    use_hook_mlp_in = False
    default_prepend_bos = False

    def __getattr__(self, name: str) -> Any:
        """A field of the configuration that is viewed."""
        raise AttributeError(name)

    @property
    def d_head(self) -> int:
        """Width of a head."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        raise NotImplementedError

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the weights."""
        raise NotImplementedError

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse: a model does not change with its configuration.

        Raises:
            FrozenInstanceError: Unless it is a private name, or what it is already.
        """
        if name.startswith("_"):
            object.__setattr__(self, name, value)
            return
        present = getattr(self, name, ABSENT)
        if present is ABSENT or present != value:
            raise FrozenInstanceError(f"cannot set cfg.{name}: {_instead(name, present)}.")

    def __delattr__(self, name: str) -> None:
        """Refuse."""
        raise FrozenInstanceError(f"cannot delete cfg.{name}: a model keeps its configuration.")


def _instead(name: str, present: object) -> str:
    if name in FLAGS:
        return f"it would switch nothing, {FLAGS[name]}"
    if name in ("device", "dtype"):
        return "it is where the weights are and what they are; use model.to(...)"
    if name == "default_prepend_bos":
        return "these models read text without one; give prepend_bos=True with the text"
    if present is ABSENT:
        return "there is no such field"
    return (
        f"the model is built with {name} = {present!r}, and would not change; make another one, of "
        "a configuration from dataclasses.replace(model.config, ...)"
    )


@runtime_checkable
class Configured(Protocol):
    """A model that a live configuration is read of."""

    config: ModelConfig
    ln_final: Norm
    info: ModelInfo


class LiveConfig(ConfigView):
    """A live view of a model's configuration.

    Every field of ``ModelConfig`` is readable here; ``device`` and ``dtype`` are those of the
    model's weights now. ``d_mlp`` is a number where every block has the same width. The ``use_*``
    flags of TransformerLens are always off: their hooks do not exist here, or need none
    (``attn.hook_result`` and the stream inputs are hooked directly). Nothing can be set.
    """

    attn_only = False
    final_rms = False
    n_devices = 1
    use_attn_scale = True

    def __init__(self, model: Configured):
        self._model = (model,)

    def __getattr__(self, name: str) -> Any:
        """Fields of the frozen configuration."""
        if name.startswith("_"):
            raise AttributeError(name)
        config = self._model[0].config
        if not hasattr(config, name):
            known = [each.name for each in fields(ModelConfig)] + dir(type(self))
            raise AttributeError(unknown_name("configuration field", name, known))
        return getattr(config, name)

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
    def d_vocab_out(self) -> int:
        """Columns of the unembedding: as many as the embedding has rows."""
        return self._model[0].config.d_vocab

    @property
    def attn_scale(self) -> float:
        """What scores are divided by: the root of the width of a head."""
        return self.d_head**0.5

    @property
    def uses_rms_norm(self) -> bool:
        """Whether the norms are RMSNorms."""
        return self._model[0].config.normalization_type == "RMS"

    @property
    def n_key_value_heads(self) -> int:
        """Heads of keys and values, also where the configuration leaves them to ``n_heads``."""
        return self._model[0].config.kv_heads

    @property
    def positional_embedding_type(self) -> str:
        """``"rotary"``; ``"standard"`` where they are learned and part of X_0; or ``"none"``."""
        if self.rotary_dim:
            return "rotary"
        return "standard" if self.learned_positions else "none"

    @property
    def rotary_dim(self) -> int:
        """Rotated dimensions per head, also where the configuration leaves them to ``d_head``."""
        return self._model[0].config.rotated

    @property
    def eps(self) -> float:
        """Epsilon of the norms, also where the configuration leaves it to the precision."""
        return epsilon(self._model[0].config.eps, wide(self._model[0].ln_final.w).dtype)

    @property
    def output_logits_soft_cap(self) -> float:
        """The bound of logits; -1 without one."""
        return getattr(self._model[0].config.task, "softcap", None) or -1.0

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._model[0].ln_final.w.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the weights."""
        return self._model[0].ln_final.w.dtype

    @property
    def model_name(self) -> str:
        """The name or path that the model was loaded by."""
        return self._model[0].info.name

    def __repr__(self) -> str:
        """The frozen configuration, with device and dtype."""
        return f"LiveConfig({self._model[0].config}, device={self.device}, dtype={self.dtype})"
