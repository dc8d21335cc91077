"""The architectures of transformers that are hooked here, each by its ``model_type``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from mudd_interp import axes
from mudd_interp.model.backed import altup, hyper
from mudd_interp.model.backed.attention import AttentionPlaces, Heads, of_groups, of_one_matrix
from mudd_interp.model.backed.places import Places
from mudd_interp.model.wirings.altup import AltUpWiring
from mudd_interp.model.wirings.hyper_wiring import HyperWiring
from mudd_interp.sublayers import SublayerWiring


@dataclass(frozen=True, kw_only=True)
class Kind:
    """An architecture of transformers.

    Attributes:
        class_name: Of its causal language model.
        wiring: What its configuration says of the wiring.
        tie: Ties the hook points of its blocks, and of what is between them and the final norm.
        heads: How the heads of its attention are put together.
        d_head: Width of what a head mixes, from the configuration.
        head_reads: Whether the final norm is given a read of what the sublayers wrote.
        streams: The configuration's field for the number of streams.
        gates: What the names of the parameters that its gates are computed from end with.
        shape: Of the first of them, in each block, for n streams of a width.
        in_float32: Whether its code computes gates in float32 whatever the model's precision.
        needed: What some name of a checkpoint has in it, and what a checkpoint is that has none.
    """

    class_name: str
    wiring: Callable[[Any], SublayerWiring]
    tie: Callable[[Places, Any, "Kind"], None]
    heads: Heads
    d_head: Callable[[Any], int]
    head_reads: bool
    streams: str
    gates: tuple[str, ...]
    shape: Callable[[int, int], tuple[int, ...]]
    in_float32: bool
    needed: tuple[str, str] | None = None


def _hyper(config: Any, mixes: bool) -> HyperWiring:
    return HyperWiring(
        config.num_hidden_layers,
        config.hc_mult,
        mixes=mixes,
        exact="rows",
        delayed=False,
        head="gate",
        constants=None,
        slack=2 * config.hc_eps,
    )


def _altup(config: Any) -> AltUpWiring:
    return AltUpWiring(config.num_hidden_layers, config.altup_num_inputs, config.altup_active_idx)


def _tie_hyper(places: Places, model: Any, kind: Kind) -> None:
    mixes = hasattr(model.config, "hc_sinkhorn_iters")
    for layer, module in enumerate(model.layers):
        places.end_before(layer, module, lambda x, m=module: m.attn_hc.forward(x)[-1])
        block = hyper.Block(places, layer, module, mixes)
        norm = module.input_layernorm
        places.on_norm(axes.block(layer, "ln1"), norm, norm.variance_epsilon)
        n_heads = model.config.num_attention_heads
        AttentionPlaces(places, layer, module.self_attn, kind.heads, n_heads)
        places.on_output(axes.attn_out(layer), module.self_attn)
        block.ffn(places, layer)
    hyper.Head(places, model.hc_head)


def _tie_altup(places: Places, model: Any, kind: Kind) -> None:
    for layer, module in enumerate(model.layers):
        altup.Block(places, layer, module, kind.heads, model.config.num_attention_heads)
    altup.Behind(places, model.layers[-1])


def absent(layer: int) -> dict[str, str]:
    """Hooks of a block that plain models have and these have not, each with the reason."""
    latent = "norms or low ranks stand between what is read and each head's queries and keys"
    hidden = "its FFN is transformers' own, of experts as a rule, and is hooked as a whole"
    return {
        axes.resid_post(layer): "a block puts out several streams: see `hook_streams` behind it",
        **{axes.attn(layer, f"hook_{each}"): latent for each in ("q", "k", "v")},
        **{axes.block(layer, f"mlp.hook_{each}"): hidden for each in ("pre", "post")},
    }


def _of_o_proj(attn: Any) -> Float[Tensor, "head d_head d_model"]:
    return of_one_matrix(attn.num_heads, attn.o_proj.weight)


_GATES = ("attn_hc.fn", "_hc.fn", "_hc.base", "_hc.scale", "hc_fn", "hc_base", "hc_scale")
_HEAD = (
    "hc_head",
    (
        "gate of the head (no name has hc_head in it): a DeepSeek-V4.1 has none, its sublayers "
        "read with the gates of the one before, and transformers' V4 does not compute that"
    ),
)

KINDS: Mapping[str, Kind] = {
    "deepseek_v4": Kind(
        class_name="DeepseekV4ForCausalLM",
        wiring=lambda config: _hyper(config, mixes=True),
        tie=_tie_hyper,
        heads=Heads("o_a_proj", "o_b_proj", of_groups, sink=True),
        d_head=lambda config: config.head_dim,
        head_reads=True,
        streams="hc_mult",
        gates=_GATES,
        shape=lambda n, width: ((2 + n) * n, n * width),
        in_float32=True,
        needed=_HEAD,
    ),
    "hy_v4": Kind(
        class_name="HYV4ForCausalLM",
        wiring=lambda config: _hyper(config, mixes=False),
        tie=_tie_hyper,
        heads=Heads("o_proj", "o_proj", _of_o_proj, sink=True),
        d_head=lambda config: config.v_head_dim,
        head_reads=True,
        streams="hc_mult",
        gates=_GATES,
        shape=lambda n, width: (2 * n, n * width),
        in_float32=True,
        needed=_HEAD,
    ),
    "gemma3n_text": Kind(
        class_name="Gemma3nForCausalLM",
        wiring=_altup,
        tie=_tie_altup,
        heads=Heads("o_proj", "o_proj", None, sink=False),
        d_head=lambda config: config.head_dim,
        head_reads=False,
        streams="altup_num_inputs",
        gates=("altup.prediction_coefs.weight", "altup.correction_coefs.weight"),
        shape=lambda n, width: (n * n, n),  # noqa: ARG005 (an architecture's)
        in_float32=False,
    ),
}
"""By ``model_type``."""
