"""The released MUDD layout: which of its parameters is which of ours, and through which view.

Every view here is free: our parameters keep the memory layout of the released ones.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial

from jaxtyping import Float
from torch import Tensor

from mudd_interp.config import ModelConfig

Shape = tuple[int, ...]
View = Callable[[Float[Tensor, "*stored"]], Float[Tensor, "*ours"]]


@dataclass(frozen=True)
class StoredWeight:
    """A parameter as a checkpoint stores it.

    Attributes:
        name: Its name in the checkpoint.
        shape: Its shape there.
        view: From there to ours.
    """

    name: str
    shape: Shape
    view: View


NORM = {"w": "weight", "b": "bias"}
ENDS = {
    "embed.W_E": "tok_embeddings.weight",
    "unembed.W_U": "output.weight",
    "ln_final.w": "norm.weight",
    "ln_final.b": "norm.bias",
}
NORMS = {
    "ln1": "attention_norm",
    "ln1_q": "attention_norms.0",
    "ln1_k": "attention_norms.1",
    "ln1_v": "attention_norms.2",
    "ln2": "ffn_norm",
    "attn.q_norm": "attention.q_norm",
    "attn.k_norm": "attention.k_norm",
}
ATTENTION = {"Q": "wq", "K": "wk", "V": "wv", "O": "wo"}
UNGATED = {"in": "w1", "out": "w2"}
GATED = {"gate": "w1", "in": "w3", "out": "w2"}
DENSE = {
    "a": "dense_bs.{}",
    "W_1": "dynamic_dense.{}.w1.weight",
    "W_2": "dynamic_dense.{}.w2.weight",
}


def released_name(name: str, gated_mlp: bool) -> str:
    """The released name of one of our parameters, e.g. ``layers.3.attention.wq.weight``."""
    if name in ENDS:
        return ENDS[name]
    group, index, rest = name.split(".", 2)
    if group == "dense":
        return DENSE[rest].format(index)
    part, _, leaf = rest.rpartition(".")
    if part in NORMS:
        return f"layers.{index}.{NORMS[part]}.{NORM[leaf]}"
    kind, _, which = leaf.partition("_")
    suffix = {"W": "weight", "b": "bias"}[kind]
    if part == "attn":
        return f"layers.{index}.attention.{ATTENTION[which]}.{suffix}"
    linear = (GATED if gated_mlp else UNGATED)[which]
    return f"layers.{index}.feed_forward.{linear}.{suffix}"


def released_layout(
    cfg: ModelConfig, shapes: Mapping[str, Shape], available: Collection[str]
) -> dict[str, StoredWeight]:
    """Where each of our parameters is in a released checkpoint.

    Args:
        cfg: The model's configuration.
        shapes: The shape of each of our parameters.
        available: The names in the checkpoint. A plain model has one fused ``wqkv``, or else three
            matrices.
    """
    layout: dict[str, StoredWeight] = {}
    for name, shape in shapes.items():
        released = released_name(name, cfg.gated_mlp)
        fused = name.endswith(("_Q", "_K", "_V")) and cfg.wiring.kind == "plain"
        if fused and released not in available:
            layout[name] = _fused(cfg, name, released, shape)
        else:
            layout[name] = StoredWeight(released, *_stored(name, shape))
    return layout


def never_read(cfg: ModelConfig, name: str) -> bool:
    """Whether the released class makes a parameter that it never reads (in a plain model)."""
    return cfg.wiring.kind == "plain" and name.startswith(("dense_bs.", "dynamic_dense."))


def _stored(name: str, shape: Shape) -> tuple[Shape, View]:
    """The shape of a parameter in the checkpoint, and the view that makes it ours."""
    leaf = name.rpartition(".")[2]
    if leaf in ("W_Q", "W_K", "W_V"):
        heads, d_model, d_head = shape
        return (heads * d_head, d_model), partial(_by_head, heads=heads)
    if leaf in ("b_Q", "b_K", "b_V"):
        return (shape[0] * shape[1],), partial(_bias_by_head, heads=shape[0])
    if leaf == "W_O":
        heads, d_head, d_model = shape
        return (d_model, heads * d_head), partial(_out_by_head, heads=heads)
    if leaf.startswith("W_") and leaf != "W_E":
        return shape[::-1], _transposed
    return shape, _same


def _fused(cfg: ModelConfig, name: str, released: str, shape: Shape) -> StoredWeight:
    """A slice of the rows of ``wqkv``: queries, then keys, then values."""
    stored, view = _stored(name, shape)
    queries, keys = cfg.n_heads * cfg.head_width, cfg.kv_heads * cfg.head_width
    which = name[-1]
    start = {"Q": 0, "K": queries, "V": queries + keys}[which]
    fused = released.replace(ATTENTION[which], "wqkv")
    rows = slice(start, start + stored[0])
    return StoredWeight(fused, (queries + 2 * keys, *stored[1:]), lambda stack: view(stack[rows]))


def _same(stored: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return stored


def _transposed(stored: Float[Tensor, "d_out d_in"]) -> Float[Tensor, "d_in d_out"]:
    return stored.T


def _by_head(
    stored: Float[Tensor, "heads_d_head d_model"], heads: int
) -> Float[Tensor, "head d_model d_head"]:
    return stored.unflatten(0, (heads, -1)).transpose(1, 2)


def _bias_by_head(
    stored: Float[Tensor, " heads_d_head"], heads: int
) -> Float[Tensor, "head d_head"]:
    return stored.unflatten(0, (heads, -1))


def _out_by_head(
    stored: Float[Tensor, "d_model heads_d_head"], heads: int
) -> Float[Tensor, "head d_head d_model"]:
    return stored.unflatten(1, (heads, -1)).permute(1, 2, 0)


def own_layout(shapes: Mapping[str, Shape]) -> dict[str, StoredWeight]:
    """Where each parameter is in a folder of our own: under its own name, as it is."""
    return {name: StoredWeight(name, shape, _same) for name, shape in shapes.items()}
