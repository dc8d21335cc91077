"""Qwen3 with attention residuals: several codes write ``model_type: qwen3_attnres``.

They compute different things, and what they call a mode is not the same in each; the names of their
parameters tell them apart. See https://github.com/wdlctc/open-attention-residuals (its
``modeling_attnres.py``, and another code for training from scratch) and
https://github.com/wdlctc/delta-attention-residuals-code.
"""

from collections.abc import Collection, Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from mudd_interp.axes import unknown_name
from mudd_interp.checkpoints.layout import (
    Layout,
    Names,
    Placed,
    Shape,
    StoredWeight,
    as_linear,
    true_or_false,
    whole,
)
from mudd_interp.config import ModelConfig, wiring
from mudd_interp.config.released import IGNORED
from mudd_interp.schema import shown

MODEL_TYPE = "qwen3_attnres"

SIZES = (
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
)
FIXED: Mapping[str, tuple[object, ...]] = {
    "hidden_act": ("silu",),
    "attnres_gate_type": ("bias",),
    "attnres_use_null_source": (False,),
    "use_sliding_window": (False,),
    "sliding_window": (None,),
    "rope_scaling": (None,),
}
"""Fields of which one value is read here, which also goes without saying."""
WHY = {
    "attnres_gate_type": (
        "with a gate what is read is no weighted sum of the candidates alone, and with "
        "sigmoid_vector W would be a vector over d_model"
    ),
}
OTHERS = (
    "rms_norm_eps",
    "attention_bias",
    "tie_word_embeddings",
    "layer_types",
    "rope_theta",
    "rope_parameters",
    "attnres_mode",
    "attnres_num_blocks",
)
UNUSED = (
    "attnres_init_bias",
    "attnres_gate_init",
    "attention_dropout",
    "initializer_range",
    "max_window_layers",
    "attnres_recency_bias_init",
)
"""Fields that matter in training, or where windows slide."""

OPEN = {"candidates": "states", "recency_bias": True, "head": "sum"}
DELTA = {"residual": True, "head": "sum"}
KINDS: Mapping[tuple[str, bool, bool], Mapping[str, Any]] = {
    ("block", True, False): OPEN,
    ("full", True, False): OPEN,
    ("block", True, True): {"embedding": "both", "recency_bias": True},
    ("block", False, True): {},
    ("full", False, True): {},
    ("delta_v", False, False): {**DELTA, "embedding": "none", "value_apart": True},
    ("delta_block", False, False): {**DELTA, "candidates": "differences"},
}
"""By mode, and whether there are recency biases (``attn_res_bias``) and a softmax at the head
(``final_res_proj``)."""
MODES = tuple(dict.fromkeys(mode for mode, _, _ in KINDS))
NOT_ROUTED = {"block_v": "block", "delta_block_v": "delta_block"}
"""Modes that read values apart by their name, but whose code hands them to an attention that drops
them."""

ENDS = {
    "embed.W_E": "model.embed_tokens.weight",
    "ln_final.w": "model.norm.weight",
    "unembed.W_U": "lm_head.weight",
}
BLOCK = {
    "ln1": "input_layernorm",
    "ln1_q": "input_layernorm",
    "ln1_k": "input_layernorm",
    "ln1_v": "input_layernorm",
    "ln2": "post_attention_layernorm",
    "attn.q_norm": "self_attn.q_norm",
    "attn.k_norm": "self_attn.k_norm",
    "attn.Q": "self_attn.q_proj",
    "attn.K": "self_attn.k_proj",
    "attn.V": "self_attn.v_proj",
    "attn.O": "self_attn.o_proj",
    "mlp.gate": "mlp.gate_proj",
    "mlp.in": "mlp.up_proj",
    "mlp.out": "mlp.down_proj",
}
QUERY = {"q": "proj.weight", "w": "norm.weight", "b": "bias"}


def config_of(values: Mapping[str, Any], names: Names) -> ModelConfig:
    """The ``config.json`` of a Qwen3 with attention residuals as a configuration.

    Args:
        values: Its contents.
        names: Those of the parameters.

    Raises:
        ValueError: If a field is unknown, missing or of the wrong type, or asks for what is not
            read here; or if mode and names are those of no code that is known.
    """
    _check_fields(values)
    sizes = {name: whole(values, name) for name in SIZES}
    mode, block_size = _mode(values), _block_size(values, sizes["num_hidden_layers"])
    return ModelConfig(
        n_layers=sizes["num_hidden_layers"],
        d_model=sizes["hidden_size"],
        n_heads=sizes["num_attention_heads"],
        n_key_value_heads=sizes["num_key_value_heads"],
        d_head=sizes["head_dim"],
        d_vocab=sizes["vocab_size"],
        n_ctx=sizes["max_position_embeddings"],
        d_mlp=sizes["intermediate_size"],
        eps=values.get("rms_norm_eps", 1e-6),
        attn_bias=true_or_false(values, "attention_bias", False),
        use_qk_norm=True,
        rotary_base=_rotary_base(values),
        rotary_rounding="float32_tables",
        wiring=wiring("attnres", block_size=block_size, **_kind(mode, names())),
    )


def _check_fields(values: Mapping[str, Any]) -> None:
    known = (*SIZES, *FIXED, *OTHERS, *UNUSED)
    for name in values:
        if name not in known and name not in IGNORED and not name.startswith("_"):
            raise ValueError(unknown_name(f"field of a {MODEL_TYPE} configuration", name, known))
    for name, (only,) in FIXED.items():
        if values.get(name, only) != only:
            why = f": {WHY[name]}" if name in WHY else ""
            raise ValueError(f"{name} must be {only!r}, got {shown(values[name])}{why}.")
    windows = values.get("layer_types") or ()
    if any(kind != "full_attention" for kind in windows):
        raise ValueError(
            f"layer_types must all be full_attention, got {shown(windows)}: windows that slide are "
            "not read here."
        )


def _mode(values: Mapping[str, Any]) -> str:
    mode: Any = values.get("attnres_mode", "block")
    if mode in NOT_ROUTED:
        raise ValueError(
            f"attnres_mode {mode!r} is not read here: its code computes a V of its own and then "
            f"drops it, so it does not do what it says (nor what {NOT_ROUTED[mode]!r} does with "
            "V apart). delta_v reads V apart."
        )
    if mode not in MODES:
        raise ValueError(f"attnres_mode must be one of {', '.join(MODES)}, got {shown(mode)}.")
    return mode


def _block_size(values: Mapping[str, Any], n_layers: int) -> int:
    """In sublayers; the field counts blocks of as many layers each, the last one rounded up."""
    n_blocks = whole(values, "attnres_num_blocks", 8)
    if "block" not in _mode(values):
        return 1
    if n_blocks > n_layers:
        raise ValueError(
            f"attnres_num_blocks must be at most the number of layers, {n_layers}, got {n_blocks}: "
            "a block holds whole layers."
        )
    return 2 * -(-n_layers // n_blocks)


def _rotary_base(values: Mapping[str, Any]) -> float:
    given: Any = values.get("rope_parameters") or {}
    if not isinstance(given, Mapping) or given.get("rope_type", "default") != "default":
        raise ValueError(
            f"rope_parameters must be of rope_type 'default', got {shown(given)}: scaled positions "
            "are not read here."
        )
    base: Any = given.get("rope_theta", values.get("rope_theta"))
    if not isinstance(base, (int, float)) or isinstance(base, bool):
        raise ValueError(f"rope_theta must be a number, got {shown(base)}.")
    return float(base)


def _kind(mode: str, names: Collection[str]) -> Mapping[str, Any]:
    """What a code computes, by its mode and the names of its parameters."""
    biased = any(name.endswith(".attn_res_bias") for name in names)
    routed = "model.final_res_proj.weight" in names
    kind = KINDS.get((mode, biased, routed))
    if kind is None:
        parts = {"attn_res_bias": biased, "final_res_proj": routed}
        found = " and ".join(
            f"{'with' if is_there else 'without'} {p}" for p, is_there in parts.items()
        )
        raise ValueError(
            f"no code that is known has attnres_mode {mode!r} {found}: config.json and weights are "
            "of two models, or of a code that computes something else."
        )
    return kind


def places(
    cfg: ModelConfig,  # noqa: ARG001 (a layout's)
    shapes: Mapping[str, Shape],
    available: Collection[str],
) -> Placed:
    """Where each of our parameters is; a tied unembedding may have no name of its own."""
    return {name: _stored(name, shape, available) for name, shape in shapes.items()}


def _stored(name: str, shape: Shape, available: Collection[str]) -> StoredWeight:
    if name in ENDS:
        tied = name == "unembed.W_U" and ENDS[name] not in available
        return StoredWeight(ENDS["embed.W_E" if tied else name], *as_linear(name, shape))
    part, _, leaf = name.rpartition(".")
    if part == "attnres.head":
        return _of_query("model.final_res", leaf, shape)
    group, layer, inside = part.split(".", 2)
    if group == "attnres":
        return _of_query(f"model.layers.{layer}.{inside}_res", leaf, shape)
    kind, _, which = leaf.partition("_")
    their = BLOCK[f"{inside}.{which}" if which else inside]
    suffix = "weight" if kind.lower() == "w" else "bias"
    return StoredWeight(f"model.layers.{layer}.{their}.{suffix}", *as_linear(name, shape))


def _of_query(prefix: str, leaf: str, shape: Shape) -> StoredWeight:
    stored = f"{prefix}_{QUERY[leaf]}"
    return StoredWeight(stored, (1, *shape) if leaf == "q" else shape, lambda x: _shaped(x, shape))


def _shaped(stored: Float[Tensor, "..."], shape: Shape) -> Float[Tensor, "..."]:
    return stored.reshape(shape)


def never_read(cfg: ModelConfig, name: str) -> bool:
    """Queries of the first attention, where there is nothing yet that it could choose from."""
    first = tuple(f"model.layers.0.{part}_res_" for part in ("attn", "v"))
    return bool(cfg.wiring.to_dict()["residual"]) and name.startswith(first)


QWEN3_ATTNRES_LAYOUT = Layout(
    config=config_of,
    weights=places,
    never_read=never_read,
    identity=lambda _, cfg: cfg.identity(),
)
