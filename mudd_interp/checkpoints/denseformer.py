"""DenseFormer's layouts: of its authors' training code, and of their package of modules.

Both are GPT-2's blocks with rotary positions; ``layout`` in ``config.json`` says which it is. The
training code has an average after each group of ``increase_T_every`` blocks, and its dilation
counts groups; the package counts blocks.
"""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor

from mudd_interp.axes import unknown_name
from mudd_interp.checkpoints.layout import (
    FUSED,
    Layout,
    Placed,
    Shape,
    StoredWeight,
    as_linear,
    fused,
    true_or_false,
    whole,
)
from mudd_interp.config import ModelConfig, wiring

MODEL_TYPE = "denseformer"
SIZES = ("n_layer", "n_embd", "n_head", "vocab_size", "sequence_length")
STEPS = {"training": ("increase_T_every", "dilation_factor"), "package": ("period", "dilation")}
"""The fields for period and dilation, by layout."""
EPS = 1e-5
"""Of every norm; it is fixed in the code, as is the base of the rotary frequencies, 10,000."""

ENDS = {"embed.W_E": "wte.weight", "ln_final.w": "ln_f.weight", "ln_final.b": "ln_f.bias"}
BLOCK = {
    "ln1": "ln_1",
    "ln2": "ln_2",
    "attn.O": "attn.c_proj",
    "mlp.in": "mlp.c_fc",
    "mlp.out": "mlp.c_proj",
}


def config_of(values: Mapping[str, Any]) -> ModelConfig:
    """A DenseFormer's ``config.json`` as a configuration.

    Raises:
        ValueError: If a field is unknown, missing or of the wrong type, or positions are not
            rotary.
    """
    steps = STEPS.get(values.get("layout", "training"))
    if steps is None:
        raise ValueError(f"layout must be {' or '.join(STEPS)}, got {values['layout']!r}.")
    known = ("model_type", "layout", "bias", "dropout", "positional_encoder", *SIZES, *steps)
    for name in values:
        if name not in known:
            raise ValueError(unknown_name("field of a DenseFormer configuration", name, known))
    sizes = {name: whole(values, name) for name in (*SIZES, *steps)}
    if values.get("positional_encoder") != "rotary":
        raise ValueError(
            f"positional_encoder must be 'rotary', got {values.get('positional_encoder')!r}: no "
            "other is read here."
        )
    bias = true_or_false(values, "bias", False)
    period, dilation = (sizes[name] for name in steps)
    grouped = steps == STEPS["training"]
    if grouped and sizes["n_layer"] % period:
        raise ValueError(
            f"n_layer {sizes['n_layer']} is not divisible by {steps[0]} {period}: the training "
            "code has whole groups of blocks only."
        )
    return ModelConfig(
        n_layers=sizes["n_layer"],
        d_model=sizes["n_embd"],
        n_heads=sizes["n_head"],
        d_vocab=sizes["vocab_size"],
        n_ctx=sizes["sequence_length"],
        d_mlp=4 * sizes["n_embd"],
        normalization_type="LN",
        eps=EPS,
        gated_mlp=False,
        act_fn="gelu",
        attn_bias=bias,
        mlp_bias=bias,
        rotary_rounding="float32",
        wiring=wiring("static", period=period, dilation=period * dilation if grouped else dilation),
    )


def places(cfg: ModelConfig, shapes: Mapping[str, Shape], available: Collection[str]) -> Placed:
    """Where each of our parameters is, in either layout: its own names say which it is."""
    training = "transformer.wte.weight" in available
    found = {name: _stored(cfg, name, shape, training) for name, shape in shapes.items()}
    # Norms and projections without bias have none in the checkpoint.
    return {
        name: 0.0 if name.endswith(".b") and not cfg.attn_bias else stored
        for name, stored in found.items()
    }


def _stored(cfg: ModelConfig, name: str, shape: Shape, training: bool) -> StoredWeight:
    if name == "unembed.W_U":
        return StoredWeight("lm_head.weight", *as_linear(name, shape))
    if name in ENDS:
        inside = "transformer." if training else ""
        return StoredWeight(inside + ENDS[name], *as_linear(name, shape))
    group, number, rest = name.split(".", 2)
    period: int = cfg.wiring.to_dict()["period"]
    if group == "dense":
        average = f"weights.{int(number) // period}" if training else f"dwa_modules.alphas.{number}"
        return StoredWeight(f"{average}.weight", (1, *shape), lambda stored: stored[0])
    if training:
        block = f"transformer.h.{int(number) // period}.{int(number) % period}"
    else:
        block = f"blocks.{number}"
    part, _, leaf = rest.rpartition(".")
    kind, _, which = leaf.partition("_")
    suffix = "weight" if kind.lower() == "w" else "bias"
    if which and which in FUSED:
        halves = partial(_by_halves, shape[0]) if which in "QK" else None
        return fused(name, shape, f"{block}.attn.c_attn.{suffix}", halves)
    their = BLOCK[f"{part}.{which}" if which else part]
    return StoredWeight(f"{block}.{their}.{suffix}", *as_linear(name, shape))


def _by_halves(heads: int, rows: Float[Tensor, "row ..."]) -> Float[Tensor, "row ..."]:
    """Rows that are rotated in pairs (2i, 2i + 1), in the order in which (i, i + half) are."""
    pairs = rows.unflatten(0, (heads, -1, 2))
    return pairs.transpose(1, 2).reshape(rows.shape)


def never_read(cfg: ModelConfig, name: str) -> bool:  # noqa: ARG001 (a layout's)
    """The table of rotary frequencies, which follows from the configuration."""
    return name.endswith("wpe.freqs")


DENSEFORMER_LAYOUT = Layout(
    config=lambda values, _: config_of(values),
    weights=places,
    never_read=never_read,
    identity=lambda _, cfg: cfg.identity(),
)
