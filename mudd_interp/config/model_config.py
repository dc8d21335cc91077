"""``ModelConfig``: the whole model family as one frozen, validated configuration."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, cast, get_args

from mudd_interp.axes import Stream, unknown_name
from mudd_interp.config.ends import (
    FRONTS,
    TASKS,
    Classes,
    FrontConfig,
    NextTokenTask,
    Patches,
    TaskConfig,
    TokenInput,
    end_from_dict,
)
from mudd_interp.config.presets import preset_fields
from mudd_interp.config.released import released_fields
from mudd_interp.config.widths import LARGEST_SIZE, MOST_LAYERS
from mudd_interp.config.wiring import (
    FLAGS,
    WiringConfig,
    flags_of_wiring,
    wiring,
    wiring_from_dict,
    wiring_of_flags,
)
from mudd_interp.files import parse_json

RotaryRounding = Literal["none", "float32", "float32_tables", "bfloat16", "float16"]
AttentionDir = Literal["causal", "bidirectional"]
ActFn = Literal["silu", "gelu", "gelu_pytorch_tanh", "relu2"]

UNSAID: Mapping[str, Any] = {
    "attention_dir": "causal",
    "learned_positions": False,
    "front": TokenInput(),
    "task": NextTokenTask(),
    "rotary_before_qk_norm": False,
    "attention_windows": None,
    "value_embeddings": False,
}
"""What goes without saying in a saved configuration: version 0.1 had nothing else, and digests are
over what is said."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """One configuration for the whole family, from a plain Transformer to MUDDFormer.

    Attributes:
        n_layers: Number of blocks, L.
        d_model: Width of the residual stream, D.
        n_heads: Attention heads per block.
        d_vocab: Rows of the embedding and of the unembedding; the number of classes, where they are
            what a model tells.
        n_ctx: Longest sequence, in tokens; of a model of images, how many patches they have.
        d_head: Width of a head; ``None`` means ``d_model // n_heads``.
        n_key_value_heads: Heads of keys and values; ``None`` means ``n_heads``.
        d_mlp: FFN width of each block; one number stands for the same width everywhere.
        normalization_type: ``"RMS"`` (MUDDFormer) or ``"LN"`` with bias (MUDDPythia, GPT-NeoX).
        eps: Epsilon of every norm, of QK-norm and of the dense weights' norm too; ``None`` for the
            smallest step of the precision that a norm is computed in, at least float32.
        gated_mlp: ``act(x W_gate) * (x W_in)`` instead of ``act(x W_in)``.
        act_fn: ``"silu"``, ``"gelu"`` (the exact one), ``"gelu_pytorch_tanh"`` (the usual
            approximation, which Vision Transformers are trained with), or ``"relu2"``, the square
            of ReLU.
        attn_bias: Biases on the four attention projections.
        mlp_bias: Biases on the FFN projections.
        parallel_attn_mlp: Parallel residual: attention and FFN both read the block's R input.
        use_qk_norm: RMSNorm with a gain over d_head on queries and keys, before rotary.
        attention_dir: Whether a position sees those before it only (``"causal"``), or all of them.
        rotary_dim: Rotated dimensions per head, even; ``None`` means ``d_head``, and with 0
            attention is not told positions.
        rotary_base: Base of the rotary frequencies.
        rotary_rounding: Precision to which the cos/sin tables are rounded before use. The released
            code rounds them (bfloat16 for MUDDFormer, float16 for MUDDPythia) in every dtype;
            ``"float32"`` rounds the frequencies only, as DenseFormer's does;
            ``"float32_tables"`` computes the whole tables in float32, as transformers and nanochat
            do.
        wiring: How blocks are connected: ``mudd_interp.MUDD(...)``, ``PrePost(...)``,
            ``Static(...)``, ``Hyper(...)``, ``AttnRes(...)``, ``Scalars()`` or ``Plain()``, with
            fields of their own.
        front: What is read: ``TokenInput()``, or ``Patches(...)`` of images.
        task: What is predicted: ``NextTokenTask()``, or ``Classes(...)``.
        init_std: Standard deviation of weight matrices at initialisation; ``None`` means
            sqrt(2 / (5 d_model)). The paper does not say. Output projections get 1/sqrt(2 L) of it.
        learned_positions: A learned vector for each position is part of X_0, as in GPT-2.
        rotary_before_qk_norm: With QK-norm, whether what is normed has been rotated already.
        attention_windows: How many positions, its own and those before it, a position sees in each
            block; ``None`` for all of them.
        value_embeddings: In every other block, the last one among them, each token has a vector of
            its own that is added to the values of attention, times a gate of each key-value head
            that reads the first 12 channels: ``3 * sigmoid(x W)`` (nanochat).

    Fields left at ``None`` stay so, and :func:`dataclasses.replace` derives them again; read
    ``head_width``, ``kv_heads`` and ``rotated`` for the actual values.

    Raises:
        ValueError: If fields are out of range or contradict each other.
    """

    n_layers: int
    d_model: int
    n_heads: int
    d_vocab: int
    d_mlp: int | tuple[int, ...]
    n_ctx: int = 2048
    d_head: int | None = None
    n_key_value_heads: int | None = None
    normalization_type: Literal["RMS", "LN"] = "RMS"
    eps: float | None = 1e-6
    gated_mlp: bool = True
    act_fn: ActFn = "silu"
    attn_bias: bool = False
    mlp_bias: bool = False
    parallel_attn_mlp: bool = False
    use_qk_norm: bool = False
    attention_dir: AttentionDir = "causal"
    rotary_dim: int | None = None
    rotary_base: float = 10000.0
    rotary_rounding: RotaryRounding = "none"
    wiring: WiringConfig = field(default_factory=lambda: wiring("mudd"))
    front: FrontConfig = UNSAID["front"]
    task: TaskConfig = UNSAID["task"]
    init_std: float | None = None
    learned_positions: bool = False
    rotary_before_qk_norm: bool = False
    attention_windows: tuple[int, ...] | None = None
    value_embeddings: bool = False

    def __post_init__(self) -> None:
        """Spell out widths and order streams, then check the whole."""
        self._check_sizes("n_layers", "d_model", "n_heads", "d_vocab", "n_ctx")
        self._check_head()
        self._normalise()
        self._check_choices()
        self._check_widths()
        self._check_attention()
        given: Any = self.wiring
        if not isinstance(given, WiringConfig):
            raise ValueError(
                f"wiring must be mudd_interp.MUDD(...), Static(...), PrePost(...), Hyper(...), "
                f"AttnRes(...), Scalars() or Plain(), got {given!r}."
            )
        given.check(self)
        self._check_ends()

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _check_head(self) -> None:
        self._check_sizes(
            *(n for n in ("d_head", "n_key_value_heads") if getattr(self, n) is not None)
        )
        if self.d_head is None and self.d_model % self.n_heads:
            raise ValueError(
                f"d_model {self.d_model} is not divisible by n_heads {self.n_heads}: change one "
                "of them, or give d_head."
            )

    def _normalise(self) -> None:
        widths = self.d_mlp
        self._set(d_mlp=(widths,) * self.n_layers if isinstance(widths, int) else tuple(widths))

    def _check_sizes(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}.")
            if value > (largest := MOST_LAYERS if name == "n_layers" else LARGEST_SIZE):
                raise ValueError(f"{name} must be at most {largest:,}.")

    def _check_choices(self) -> None:
        choices = {
            "normalization_type": ("RMS", "LN"),
            "act_fn": get_args(ActFn),
            "rotary_rounding": get_args(RotaryRounding),
            "attention_dir": get_args(AttentionDir),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}."
                )
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(each.default, bool) and not isinstance(value, bool):
                raise ValueError(f"{each.name} must be true or false, got {value!r}.")
        for name in ("eps", "rotary_base"):
            value = getattr(self, name)
            if (name, value) != ("eps", None) and not (_is_number(value) and value > 0):
                raise ValueError(f"{name} must be a positive number, got {value!r}.")
        if self.init_std is not None and not (_is_number(self.init_std) and self.init_std >= 0):
            raise ValueError(f"init_std must be a number from 0, got {self.init_std!r}.")

    def _check_widths(self) -> None:
        given = cast(tuple[Any, ...], self.d_mlp)
        whole = all(type(width) is int and 1 <= width <= LARGEST_SIZE for width in given)
        if len(given) != self.n_layers or not whole:
            raise ValueError(
                f"d_mlp must be one positive width, or one for each of the {self.n_layers} blocks, "
                f"got {self.d_mlp!r}."
            )
        if self.n_heads % self.kv_heads:
            raise ValueError(
                f"n_heads {self.n_heads} is not divisible by n_key_value_heads {self.kv_heads}."
            )
        whole = type(self.rotated) is int
        if not whole or not 0 <= self.rotated <= self.head_width or self.rotated % 2:
            raise ValueError(
                f"rotary_dim must be even and between 0 and d_head {self.head_width}, "
                f"got {self.rotary_dim}."
            )

    def _check_attention(self) -> None:
        if self.rotary_before_qk_norm and not self.use_qk_norm:
            raise ValueError("rotary_before_qk_norm needs use_qk_norm: there is nothing to norm.")
        windows: Any = self.attention_windows
        if windows is None:
            return
        listed = isinstance(windows, tuple) and len(windows) == self.n_layers
        if not listed or not all(type(window) is int and window >= 1 for window in windows):
            raise ValueError(
                f"attention_windows must be a whole number of at least 1 for each of the "
                f"{self.n_layers} blocks, got {windows!r}."
            )
        if self.attention_dir != "causal":
            raise ValueError(
                f"attention_windows need attention_dir 'causal', got {self.attention_dir!r}."
            )

    def _check_ends(self) -> None:
        for name, kind in (("front", FrontConfig), ("task", TaskConfig)):
            if not isinstance(getattr(self, name), kind):
                raise ValueError(
                    f"{name} must be a {kind.__name__}, such as {UNSAID[name]!r}, got "
                    f"{getattr(self, name)!r}."
                )
        if isinstance(self.front, TokenInput) != isinstance(self.task, NextTokenTask):
            raise ValueError(
                f"{self.front!r} does not go with {self.task!r}: tokens predict the next token, "
                "images have classes."
            )
        if self.value_embeddings and not isinstance(self.front, TokenInput):
            raise ValueError("value_embeddings are of tokens, and this model reads images.")
        if isinstance(self.front, Patches) and self.n_ctx != self.front.n_positions:
            raise ValueError(
                f"n_ctx must be the number of patches of an image, and of what stands before them, "
                f"{self.front.n_positions}, got {self.n_ctx}."
            )
        names = self.task.names if isinstance(self.task, Classes) else None
        if names is not None and len(names) != self.d_vocab:
            raise ValueError(
                f"expected d_vocab names of classes, {self.d_vocab}, got {len(names)}."
            )

    @property
    def mlp_widths(self) -> tuple[int, ...]:
        """FFN width of each block."""
        return cast(tuple[int, ...], self.d_mlp)

    @property
    def head_width(self) -> int:
        """``d_head``, resolved."""
        return self.d_model // self.n_heads if self.d_head is None else self.d_head

    @property
    def kv_heads(self) -> int:
        """``n_key_value_heads``, resolved."""
        return self.n_heads if self.n_key_value_heads is None else self.n_key_value_heads

    @property
    def rotated(self) -> int:
        """``rotary_dim``, resolved."""
        return self.head_width if self.rotary_dim is None else self.rotary_dim

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The distinct input streams of a block: all four, or r alone when all four are one."""
        return self.wiring.streams

    def plain(self) -> "ModelConfig":
        """The plain twin: the same blocks without dense connections."""
        return replace(self, wiring=wiring("plain"))

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready copy; :meth:`from_dict` reads it back.

        What goes without saying (:data:`UNSAID`) is left out.
        """
        values: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        values = {n: v for n, v in values.items() if n not in UNSAID or v != UNSAID[n]}
        return {n: _written(v) for n, v in values.items()}

    def identity(self) -> dict[str, Any]:
        """What a model's digest covers: :meth:`to_dict`, spelled as in version 0.1."""
        values = self.to_dict()
        del values["wiring"]
        return values | flags_of_wiring(self.wiring)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelConfig":
        """Read what :meth:`to_dict` wrote, now or in version 0.1, where flags were the wiring.

        Raises:
            ValueError: If a field is unknown, missing or of the wrong type, with its name.
        """
        values = _with_wiring(values)
        known = [each.name for each in fields(cls)]
        for name in values:
            if name not in known:
                raise ValueError(unknown_name("configuration field", name, known))
        required = ("n_layers", "d_model", "n_heads", "d_vocab", "d_mlp")
        missing = [name for name in required if name not in values]
        if missing:
            raise ValueError(f"the configuration lacks the field `{missing[0]}`: add it.")
        read: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        try:
            for name, kinds in (("front", FRONTS), ("task", TASKS)):
                if name in read:
                    read[name] = end_from_dict(name, read[name], kinds)
            return cls(**read)
        except TypeError as error:
            raise ValueError(f"a field has a value of the wrong type: {error}") from error

    def to_json(self) -> str:
        """The configuration as JSON text."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "ModelConfig":
        """Read what :meth:`to_json` wrote.

        Raises:
            ValueError: If it is not a JSON object, or as :meth:`from_dict`.
        """
        values = parse_json(text, "the configuration")
        if not isinstance(values, dict):
            raise ValueError(f"expected a JSON object of fields, got {text[:60]!r}.")
        return cls.from_dict(values)

    @classmethod
    def from_released(cls, config: Mapping[str, Any]) -> "ModelConfig":
        """A released ``config.json`` (model_type ``muddformer`` or ``muddpythia``) as ours.

        Fields that transformers or the released classes keep for themselves are ignored;
        ``vocab_size``, ``n_layer``, ``n_head`` and ``dim`` are required, and the others default as
        in the released class. ``dense`` false is the plain model, with re-allocated FFN widths.

        Raises:
            ValueError: If a field is missing, unknown or contradicts another, or if the released
                code could not run the model.
        """
        return cls(**released_fields(config))

    @classmethod
    def preset(cls, name: str) -> "ModelConfig":
        """A configuration by name.

        ``"MUDDPythia-1.4B"``, ``"MUDDPythia-2.8B"`` and ``"MUDDFormer-2.8B"`` are the released
        models. ``"MUDDFormer-405M"``, ``-834M``, ``-1.4B``, ``-797M``, ``-1.34B`` and the twins
        ``"Transformer++-405M"``, ... are the sizes of Table 2; the last two are deep and narrow,
        and their MUDDFormers have PrePostDANorm (the paper's Eq. 10). ``-6.9B`` is of Table 1, with
        32 heads, which the paper does not say. What the tables leave open is set as in the authors'
        training code: no QK-norm, the last weight MLP four times as wide, hidden widths rounded to
        64; rotary tables are exact. ``"ViT-S/16"``, ``"ViT-M/16"`` and ``"MUDDViT-S/16"`` are the
        Vision Transformers of Table 8 (camera-ready).

        Raises:
            ValueError: If there is no such preset, with the nearest names.
        """
        return cls(**preset_fields(name))


def _with_wiring(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a file with the wiring as a value."""
    flags = {name: values[name] for name in FLAGS if name in values}
    rest = {name: value for name, value in values.items() if name not in FLAGS}
    if flags and "wiring" in values:
        raise ValueError(
            f"`{next(iter(flags))}` and `wiring` exclude each other: the first is how version 0.1 "
            "spelled a part of the second. Leave it out."
        )
    try:
        tagged = "wiring" in values
        found = wiring_from_dict(values["wiring"]) if tagged else wiring_of_flags(flags)
    except TypeError as error:
        raise ValueError(f"a field has a value of the wrong type: {error}") from error
    return rest | {"wiring": found}


def _written(value: Any) -> Any:
    """A field's value, JSON-ready."""
    if isinstance(value, WiringConfig | FrontConfig | TaskConfig):
        return value.to_dict()
    return list(value) if isinstance(value, tuple) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
