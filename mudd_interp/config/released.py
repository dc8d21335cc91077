"""A released ``config.json`` as the fields of :class:`ModelConfig`.

The released code's own names (``dim``, ``n_local_heads``, ...) are used here and in
``checkpoints``, nowhere else.
"""

import math
from collections.abc import Mapping
from typing import Any

from mudd_interp.axes import unknown_name
from mudd_interp.config.widths import LARGEST_SIZE, MOST_LAYERS, reallocate, swiglu_width
from mudd_interp.config.wiring import WiringConfig, wiring

RELEASED_TYPES = ("muddformer", "muddpythia")
"""The values of ``model_type`` that mean the released MUDD layout."""

REQUIRED = ("vocab_size", "n_layer", "n_head", "dim")

DEFAULTS: dict[str, Any] = {
    "block_size": 2048,
    "intermediate_size": None,
    "n_local_heads": -1,
    "head_dim": None,
    "rope_base": 10000,
    "use_qk_norm": False,
    "tie_word_embeddings": False,
    "stack_hidden": False,
    "dense": True,
    "dynamic_dense": True,
    "sepln": True,
    "dense_type": "qkvr",
    "expand_last": False,
    "round64": False,
}
"""What the released classes assume for a field that is not given."""

OWN_DEFAULTS: dict[str, dict[str, Any]] = {
    "muddformer": {"norm_eps": 1e-6},
    "muddpythia": {
        "norm_eps": 1e-5,
        "use_parallel_residual": True,
        "use_linear_bias": True,
        "rotary_pct": 0.25,
    },
}

# What transformers' PretrainedConfig writes: all of version 4, and version 5.
_BOOKKEEPING = """
    model_type architectures auto_map transformers_version torch_dtype dtype use_bfloat16
    torchscript tf_legacy_loss pruned_heads is_encoder_decoder is_decoder add_cross_attention
    cross_attention_hidden_size tie_encoder_decoder chunk_size_feed_forward use_cache
    output_attentions output_hidden_states output_scores return_dict return_dict_in_generate
    use_return_dict id2label label2id num_labels problem_type finetuning_task
    task_specific_params tokenizer_class prefix name_or_path attn_implementation
    pad_token_id bos_token_id eos_token_id sep_token_id decoder_start_token_id
    max_length min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty
    temperature top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size
    encoder_no_repeat_ngram_size bad_words_ids num_return_sequences forced_bos_token_id
    forced_eos_token_id remove_invalid_values exponential_decay_length_penalty suppress_tokens
    begin_suppress_tokens
"""
_RUN_TIME = ("use_gradient_checkpointing", "is_training", "use_layer_cache")

IGNORED = frozenset((*_BOOKKEEPING.split(), *_RUN_TIME))
"""Fields that say nothing about the model; so do all whose name begins with ``_``."""


def released_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of :class:`ModelConfig` for a released configuration.

    Args:
        config: The contents of a released ``config.json``.

    Raises:
        ValueError: If a field is missing, unknown or of the wrong type, or if fields contradict
            each other or ask for what the released code cannot run; the error names them.
    """
    values = _values(config)
    _check_runs(values)
    dim, n_layer, n_head = values["dim"], values["n_layer"], values["n_head"]
    head_dim = dim // n_head
    common = {
        "n_layers": n_layer,
        "d_model": dim,
        "n_heads": n_head,
        "d_vocab": values["vocab_size"],
        "n_ctx": values["block_size"],
        "n_key_value_heads": _key_value_heads(values),
        "eps": values["norm_eps"],
        "use_qk_norm": values["use_qk_norm"],
        "rotary_base": float(values["rope_base"]),
        "d_mlp": _widths(values),
        "wiring": _wiring(values),
    }
    if values["model_type"] == "muddformer":
        return common | {"rotary_rounding": "bfloat16"}
    return common | {
        "normalization_type": "LN",
        "gated_mlp": False,
        "act_fn": "gelu",
        "attn_bias": True,
        "mlp_bias": values["use_linear_bias"],
        "parallel_attn_mlp": values["use_parallel_residual"],
        "rotary_dim": _rotary_dim(head_dim, values["rotary_pct"]),
        "rotary_rounding": "float16",
    }


def _values(config: Mapping[str, Any]) -> dict[str, Any]:
    model_type = config.get("model_type")
    if model_type not in RELEASED_TYPES:
        raise ValueError(
            f"model_type must be {' or '.join(RELEASED_TYPES)} in a released MUDD configuration, "
            f"got {model_type!r}: add it, or correct it."
        )
    defaults = DEFAULTS | OWN_DEFAULTS[model_type]
    known = [*REQUIRED, *defaults]
    for name in config:
        if name not in known and name not in IGNORED and not name.startswith("_"):
            raise ValueError(
                unknown_name(f"field of a released {model_type} configuration", name, known)
            )
    given = {name: config[name] for name in known if config.get(name) is not None}
    missing = [name for name in REQUIRED if name not in given]
    if missing:
        raise ValueError(
            f"the released configuration lacks {', '.join(missing)}: {', '.join(REQUIRED)} are "
            "required."
        )
    values = defaults | given
    for name, value in values.items():
        _check_type(name, value, defaults.get(name, 1))
    return values | {"model_type": model_type}


def _check_type(name: str, value: Any, example: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    number = number and abs(value) < math.inf
    if isinstance(example, bool):
        good, expected = isinstance(value, bool), "true or false"
    elif isinstance(example, str):
        good, expected = isinstance(value, str), "a string"
    elif name in ("norm_eps", "rope_base", "rotary_pct"):
        good, expected = number and value > 0, "a positive number"
    elif name == "n_local_heads":
        good, expected = number and isinstance(value, int), "a whole number"
    else:
        largest = MOST_LAYERS if name == "n_layer" else LARGEST_SIZE
        whole = number and isinstance(value, int) and 1 <= value <= largest
        good, expected = (
            value is None or whole,
            f"a whole number of at least 1, at most {largest:,}",
        )
    if not good:
        raise ValueError(f"`{name}` must be {expected} in a released configuration, got {value!r}.")


def _check_runs(values: Mapping[str, Any]) -> None:
    dim, n_head, head_dim = values["dim"], values["n_head"], values["head_dim"]
    if dim % n_head:
        raise ValueError(f"dim {dim} is not divisible by n_head {n_head}: correct one of them.")
    if head_dim is not None and head_dim != dim // n_head:
        raise ValueError(
            f"head_dim {head_dim} contradicts dim {dim} and n_head {n_head}, which make "
            f"{dim // n_head}: the released class ignores head_dim; leave it out or correct it."
        )
    if values["n_layer"] < 2:
        raise ValueError(
            "n_layer must be at least 2: the released code divides by n_layer - 1 to spread FFN "
            "widths over depth."
        )
    if values["tie_word_embeddings"]:
        raise ValueError(
            "tie_word_embeddings is true, but the released models have separate output weights: "
            "set it to false."
        )
    _check_dense(values)


def _check_dense(values: Mapping[str, Any]) -> None:
    if not values["dense"]:
        if values["sepln"]:
            raise ValueError(
                "dense is false but sepln is true: the released code cannot run that (its blocks "
                "then have no attention_norm). Set sepln to false for the plain model."
            )
        if values["dense_type"] not in ("qkvr", "l"):
            raise ValueError(f"dense_type must be 'qkvr' or 'l', got {values['dense_type']!r}.")
        return
    wrong = {
        "dense_type": (values["dense_type"] != "qkvr", "'qkvr', or dense false"),
        "dynamic_dense": (not values["dynamic_dense"], "true, or dense false"),
        "stack_hidden": (values["stack_hidden"], "false"),
        "sepln": (not values["sepln"], "true"),
    }
    for name, (is_wrong, expected) in wrong.items():
        if is_wrong:
            raise ValueError(
                f"{name} is {values[name]!r} in a dense model: the released code cannot run that. "
                f"Expected {expected}."
            )


def _key_value_heads(values: Mapping[str, Any]) -> int | None:
    n_head, given = values["n_head"], values["n_local_heads"]
    if given not in (-1, 1, n_head):
        raise ValueError(
            f"n_local_heads must be n_head ({n_head}), -1 for the same, or 1: the released "
            f"attention can run no other number, got {given}."
        )
    return 1 if given == 1 else None


def _rotary_dim(head_dim: int, rotary_pct: float) -> int:
    rotary_dim = int(head_dim * rotary_pct)
    if rotary_dim % 2 or not 2 <= rotary_dim <= head_dim:
        raise ValueError(
            f"rotary_pct {rotary_pct} of head_dim {head_dim} makes {rotary_dim} rotated "
            f"dimensions: that must be an even number from 2 to {head_dim}."
        )
    return rotary_dim


def _widths(values: Mapping[str, Any]) -> tuple[int, ...]:
    width = values["intermediate_size"]
    if width is None:
        dim = values["dim"]
        width = swiglu_width(dim) if values["model_type"] == "muddformer" else 4 * dim
    widths = reallocate(width, values["n_layer"])
    if min(widths) < 1:
        raise ValueError(
            f"intermediate_size {width} makes FFN widths {widths}: half of it must round to at "
            "least 128."
        )
    return widths


def _wiring(values: Mapping[str, Any]) -> WiringConfig:
    if not values["dense"]:
        return wiring("plain")
    return wiring("mudd", expand_last=values["expand_last"], round64=values["round64"])
