"""nanochat's own layout: residual scalars, value embeddings, smear, and norms without weights.

transformers has a model of that name too, without any of these; it is read by transformers. A
``config.json`` here has the fields of nanochat's ``model_config``.
"""

import math
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mudd_interp.axes import unknown_name
from mudd_interp.checkpoints.layout import (
    Layout,
    Placed,
    Shape,
    StoredWeight,
    View,
    as_linear,
    whole,
)
from mudd_interp.config import ModelConfig, NextTokenTask, TokenInput, wiring

MODEL_TYPE = "nanochat_karpathy"
TRANSFORMERS_TYPE = "nanochat"
MARK = "n_kv_head"
"""The field by which a ``config.json`` is told from that of transformers' model."""

SIZES = ("n_layer", "n_embd", "n_head", MARK, "vocab_size", "sequence_len")
NUMBERS = {"logit_softcap": 15.0, "rope_base": 100000.0}
"""What the code has as constants; a configuration may say it."""
PADDED = 64
"""Vocabularies are padded with rows that no token has, to a multiple of this."""
SHARPER = 1.2
"""What queries and keys are multiplied by behind their norm."""

COMPILED = "_orig_mod."
"""What torch's compiler puts before the names of a model that it compiled."""

ENDS = {
    "embed.W_E": "transformer.wte.weight",
    "embed.smear.W_gate": "smear_gate.weight",
    "embed.smear.smear_lambda": "smear_lambda",
    "scalars.resid_lambdas": "resid_lambdas",
    "scalars.x0_lambdas": "x0_lambdas",
    "scalars.backout_lambda": "backout_lambda",
    "unembed.W_U": "lm_head.weight",
}
BLOCK = {
    "attn.W_Q": "attn.c_q",
    "attn.W_K": "attn.c_k",
    "attn.W_V": "attn.c_v",
    "attn.W_O": "attn.c_proj",
    "attn.value_embed.W_gate": "attn.ve_gate",
    "mlp.W_in": "mlp.c_fc",
    "mlp.W_out": "mlp.c_proj",
}
CONSTANT = {"ln1.w": 1.0, "ln2.w": 1.0, "attn.q_norm.w": SHARPER, "attn.k_norm.w": SHARPER}
"""Gains of norms that have no weights there."""
OLDER = {"resid_lambdas": 1.0, "x0_lambdas": 0.0}
"""What nanochat itself takes where an older checkpoint has none."""
NEEDED = {
    "smear_lambda": "smear",
    "backout_lambda": "backout",
    "value_embeds.": "value embeddings",
}
"""What it has no such rule for, by the beginning of a name."""


def config_of(values: Mapping[str, Any]) -> ModelConfig:
    """A nanochat ``model_config`` as a configuration.

    Raises:
        ValueError: If a field is unknown, missing or out of range.
    """
    known = ("model_type", "window_pattern", *SIZES, *NUMBERS)
    for name in values:
        if name not in known:
            raise ValueError(unknown_name("field of a nanochat configuration", name, known))
    sizes = {name: whole(values, name) for name in SIZES}
    n_layers, length = sizes["n_layer"], sizes["sequence_len"]
    return ModelConfig(
        n_layers=n_layers,
        d_model=sizes["n_embd"],
        n_heads=sizes["n_head"],
        n_key_value_heads=sizes[MARK],
        d_vocab=sizes["vocab_size"],
        n_ctx=length,
        d_mlp=4 * sizes["n_embd"],
        eps=None,
        gated_mlp=False,
        act_fn="relu2",
        use_qk_norm=True,
        rotary_before_qk_norm=True,
        rotary_base=_number(values, "rope_base"),
        rotary_rounding="float32_tables",
        attention_windows=windows(values.get("window_pattern", "L"), n_layers, length),
        value_embeddings=True,
        wiring=wiring("scalars"),
        front=TokenInput(normed=True, smear=True),
        task=NextTokenTask(softcap=_number(values, "logit_softcap")),
    )


def _number(values: Mapping[str, Any], name: str) -> float:
    value: Any = values.get(name, NUMBERS[name])
    if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
        raise ValueError(f"`{name}` must be a positive number, got {value!r}.")
    return float(value)


def windows(pattern: Any, n_layers: int, length: int) -> tuple[int, ...] | None:
    """How many positions each block sees, of its own and earlier ones.

    The pattern goes round: L is all, S a quarter of the length, up to a multiple of 128, besides a
    position's own. The last block sees all.

    Returns:
        ``None`` where no window is shorter than the length.

    Raises:
        ValueError: If a letter is neither L nor S.
    """
    letters = pattern.upper() if isinstance(pattern, str) else ""
    if not letters or set(letters) - {"L", "S"}:
        raise ValueError(f"window_pattern must be of the letters S and L, got {pattern!r}.")
    sees = {"L": length, "S": min(length, 1 + 128 * math.ceil(length / 512))}
    found = [sees[letters[layer % len(letters)]] for layer in range(n_layers - 1)]
    return (*found, length) if min(found, default=length) < length else None


def places(cfg: ModelConfig, shapes: Mapping[str, Shape], available: Collection[str]) -> Placed:
    """Where each of our parameters is.

    Raises:
        ValueError: If an earlier nanochat wrote the checkpoint.
    """
    prefix = COMPILED if COMPILED + ENDS["embed.W_E"] in available else ""
    names = {name.removeprefix(prefix) for name in available}
    refuse_older(names)
    found = {name: _stored(cfg, name, shape, prefix) for name, shape in shapes.items()}
    for name, value in OLDER.items():
        if name not in names:
            found[f"scalars.{name}"] = value
    return found


def refuse_older(names: Collection[str]) -> None:
    """Refuse a checkpoint of an earlier nanochat, which lacks what today's always has.

    Raises:
        ValueError: With what it lacks, and what to do.
    """
    lacking = [
        what for start, what in NEEDED.items() if not any(n.startswith(start) for n in names)
    ]
    if not lacking:
        return
    if OLDER.keys() & names:
        raise ValueError(
            f"the checkpoint has no {' and no '.join(lacking)}: it is of an earlier nanochat, "
            "whose code differed in more than its files say (the scale of queries and keys, the "
            "base of rotary positions, gates), so it is not read here. Take a newer one."
        )
    raise ValueError(
        f"the checkpoint has no {' and no '.join([*lacking, 'residual scalars'])}: it is a plain "
        "Transformer of nanochat's first versions. Convert it to transformers' nanochat (its "
        "model_type is then nanochat, with hidden_size in config.json), and load that folder."
    )


def _stored(cfg: ModelConfig, name: str, shape: Shape, prefix: str) -> StoredWeight | float:
    if name == "ln_final.w":
        return 1.0
    if name in ENDS:
        return StoredWeight(prefix + ENDS[name], *_padded(cfg, name, *as_linear(name, shape)))
    _, layer, rest = name.split(".", 2)
    if rest in CONSTANT:
        return CONSTANT[rest]
    if rest == "attn.value_embed.W_E":
        flat = (shape[0], shape[1] * shape[2])
        view = partial(_by_key_value_head, heads=shape[1])
        return StoredWeight(f"{prefix}value_embeds.{layer}.weight", *_padded(cfg, name, flat, view))
    stored, view = as_linear(name, shape)
    if rest in ("attn.W_Q", "attn.W_K"):
        view = partial(_mirrored, view)
    return StoredWeight(f"{prefix}transformer.h.{layer}.{BLOCK[rest]}.weight", stored, view)


def _padded(cfg: ModelConfig, name: str, stored: Shape, view: View) -> tuple[Shape, View]:
    """A table with a row for each token, of which the last rows are padding."""
    if not name.endswith(("W_E", "W_U")):
        return stored, view
    rows = math.ceil(cfg.d_vocab / PADDED) * PADDED
    return (rows, *stored[1:]), lambda table: view(table[: cfg.d_vocab])


def _by_key_value_head(
    table: Float[Tensor, "d_vocab kv_head_d_head"], heads: int
) -> Float[Tensor, "d_vocab kv_head d_head"]:
    return table.unflatten(1, (heads, -1))


def _mirrored(view: View, stored: Float[Tensor, "..."]) -> Float[Tensor, "head d_model d_head"]:
    """Queries or keys that are rotated backwards, for a rotation forwards.

    With the sign of each pair's second number changed it is the same rotation in a mirror, and
    products of a query and a key are as they were.
    """
    first, second = view(stored).chunk(2, dim=-1)
    return torch.cat([first, -second], dim=-1)


NANOCHAT_LAYOUT = Layout(
    config=lambda values, _: config_of(values),
    weights=places,
    identity=lambda _, cfg: cfg.identity(),
)
