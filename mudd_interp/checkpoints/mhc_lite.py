"""The layout of mHC-lite's training code: GPT-2 with hyper-connections, or a plain residual.

``hyper_conn_type`` in ``config.json`` says which connections they are. The code norms each stream
at the end and then sums them, and its Sinkhorn ends on the sums over new streams.
"""

import math
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
    as_it_is,
    as_linear,
    fused,
    true_or_false,
    whole,
)
from mudd_interp.config import ModelConfig, wiring

MODEL_TYPE = "mhc_lite_gpt"
MARK = "hyper_conn_type"
"""The field by which a ``config.json`` without a model_type is recognised: the code writes none."""

SIZES = ("n_layer", "n_embd", "n_head", "vocab_size", "block_size")
KINDS: Mapping[str, Mapping[str, Any]] = {
    "hc": {"gates": "tanh", "mixing": "free"},
    "mhc": {"gates": "sigmoid", "mixing": "sinkhorn", "exact": "columns", "rounds": 20},
    "mhc_lite": {"gates": "sigmoid", "mixing": "permutations"},
}
EPS = 1e-5
"""Of every LayerNorm; the norm in front of gates has none."""

ENDS = {
    "embed.W_E": ("transformer.wte.weight", "lm_head.weight"),
    "embed.W_pos": ("transformer.wpe.weight",),
    "unembed.W_U": ("lm_head.weight", "transformer.wte.weight"),
}
BLOCK = {
    "ln1": ("attn", "0"),
    "ln2": ("mlp", "0"),
    "attn.Q": ("attn", "1.c_attn"),
    "attn.K": ("attn", "1.c_attn"),
    "attn.V": ("attn", "1.c_attn"),
    "attn.O": ("attn", "1.c_proj"),
    "mlp.in": ("mlp", "1.c_fc"),
    "mlp.out": ("mlp", "1.c_proj"),
}
"""Which branch of a block each part is in, and where."""
SCALES: Mapping[str, Mapping[str, tuple[str, Shape]]] = {
    "sigmoid": {
        "pre": ("pre_branch_scale", (1,)),
        "mix": ("residual_scale", (1,)),
        "post": ("h_post_scale", ()),
    },
    "tanh": {
        "pre": ("dynamic_alpha_scale", ()),
        "mix": ("dynamic_alpha_scale", ()),
        "post": ("dynamic_beta_scale", ()),
    },
}
"""What the dynamic part of each gate is multiplied by, and the shape of that number."""


def config_of(values: Mapping[str, Any]) -> ModelConfig:
    """The ``config.json`` of mHC-lite's code as a configuration.

    Raises:
        ValueError: If a field is unknown, missing or of the wrong type.
    """
    known = ("model_type", MARK, "hyper_conn_n", "bias", "dropout", *SIZES)
    for name in values:
        if name not in known:
            raise ValueError(unknown_name("field of an mHC-lite configuration", name, known))
    sizes = {name: whole(values, name) for name in SIZES}
    kind: Any = values.get(MARK, "none")
    if kind != "none" and kind not in KINDS:
        raise ValueError(f"{MARK} must be one of none, {', '.join(KINDS)}, got {kind!r}.")
    bias, n = true_or_false(values, "bias", True), whole(values, "hyper_conn_n", 1)
    hyper = kind != "none" and n > 1  # the code too takes one stream as a plain residual
    connections = {"n_streams": n, "head": "norms", "eps": 0.0, **KINDS[kind]} if hyper else {}
    return ModelConfig(
        n_layers=sizes["n_layer"],
        d_model=sizes["n_embd"],
        n_heads=sizes["n_head"],
        d_vocab=sizes["vocab_size"],
        n_ctx=sizes["block_size"],
        d_mlp=4 * sizes["n_embd"],
        normalization_type="LN",
        eps=EPS,
        gated_mlp=False,
        act_fn="gelu",
        attn_bias=bias,
        mlp_bias=bias,
        rotary_dim=0,
        learned_positions=True,
        wiring=wiring("hyper" if hyper else "plain", **connections),
    )


def places(cfg: ModelConfig, shapes: Mapping[str, Shape], available: Collection[str]) -> Placed:
    """Where each of our parameters is: a branch has two names, and so has the tied embedding."""
    return {name: _stored(cfg, name, shape, available) for name, shape in shapes.items()}


def _stored(
    cfg: ModelConfig, name: str, shape: Shape, available: Collection[str]
) -> StoredWeight | float:
    if name.endswith(".b") and name.startswith(("blocks.", "ln_final.")) and not cfg.attn_bias:
        return 0.0  # norms without bias have none in the checkpoint
    if name in ENDS:
        return StoredWeight(_one_of(ENDS[name], available), *as_linear(name, shape))
    if name.startswith("ln_final."):
        leaf = "weight" if name.endswith(".w") else "bias"
        return StoredWeight(f"transformer.ln_f.{leaf}", shape, as_it_is)
    group, layer, rest = name.split(".", 2)
    if group == "hyper":
        return _of_gates(cfg, f"transformer.h.{layer}.hc_{rest}", shape)
    part, _, leaf = rest.rpartition(".")
    kind, _, which = leaf.partition("_")
    branch, inside = BLOCK[f"{part}.{which}" if which else part]
    block, leaf = f"transformer.h.{layer}", "weight" if kind.lower() == "w" else "bias"
    names = (
        f"{block}.branch_{branch}.{inside}.{leaf}",
        f"{block}.hc_{branch}.branch.{inside}.{leaf}",
    )
    stored = _one_of(names, available)
    if which and which in FUSED:
        return fused(name, shape, stored)
    return StoredWeight(stored, *as_linear(name, shape))


def _one_of(names: Collection[str], available: Collection[str]) -> str:
    """The first of the names of one tensor that the checkpoint has."""
    return next((name for name in names if name in available), next(iter(names)))


def _of_gates(cfg: ModelConfig, name: str, shape: Shape) -> StoredWeight:
    """A parameter of the gates in front of a sublayer, by ``...hc_attn.pre.b`` and so on."""
    site, gate, leaf = name.rsplit(".", 2)
    values = cfg.wiring.to_dict()
    n, each = values["n_streams"], values["gates"] == "tanh"
    if gate == "norm":
        return StoredWeight(f"{site}.norm.gamma", shape, _plus_one)
    if leaf == "a":
        stored, its = SCALES["tanh" if each else "sigmoid"][gate]
        return StoredWeight(f"{site}.{stored}", its, partial(_shaped, shape))
    if gate == "post":
        stored = f"{site}.{'static_beta' if leaf == 'b' else 'dynamic_beta_fn'}"
        its = shape[:1] if each and leaf == "W" else shape
        return StoredWeight(stored, its, partial(_shaped, shape))
    stored = f"{site}.{'static_alpha' if leaf == 'b' else 'dynamic_alpha_fn'}"
    if each and leaf == "W":
        return StoredWeight(stored, (shape[0], 1 + n), partial(_of_columns, gate))
    if values["mixing"] == "permutations":
        width, view = n + math.factorial(n), partial(_of_list, gate, n, shape)
        return StoredWeight(stored, (width,) if leaf == "b" else (shape[0], width), view)
    its = (n, 1 + n) if leaf == "b" else (shape[0], n * (1 + n))
    return StoredWeight(stored, its, partial(_of_table, gate, n, shape))


def _plus_one(gamma: Float[Tensor, " width"]) -> Float[Tensor, " width"]:
    return gamma.double() + 1  # in float32 a model in float64 would have the rounding


def _shaped(shape: Shape, stored: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    return stored.reshape(shape)


def _of_columns(gate: str, stored: Float[Tensor, "width _"]) -> Float[Tensor, "width _"]:
    """A column for p, then one for each new stream."""
    return stored[:, :1] if gate == "pre" else stored[:, 1:]


def _of_list(gate: str, n: int, shape: Shape, stored: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Numbers for p of each stream, then one for each permutation."""
    return (stored[..., :n] if gate == "pre" else stored[..., n:]).reshape(shape)


def _of_table(
    gate: str, n: int, shape: Shape, stored: Float[Tensor, "..."]
) -> Float[Tensor, "..."]:
    """A row for each old stream: its p, then what each new stream gets of it."""
    table = stored.reshape(-1, n, 1 + n)
    ours = table[..., 0] if gate == "pre" else table[..., 1:].transpose(1, 2)
    return ours.reshape(shape)


def never_read(cfg: ModelConfig, name: str) -> bool:  # noqa: ARG001 (a layout's)
    """The second name of a branch or of the tied embedding: the same tensor once more."""
    return ".branch" in name or name in ENDS["embed.W_E"]


MHC_LITE_LAYOUT = Layout(
    config=lambda values, _: config_of(values),
    weights=places,
    never_read=never_read,
    identity=lambda _, cfg: cfg.identity(),
)
