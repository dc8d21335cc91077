"""The released MUDD layout: which of its parameters is which of ours, and through which view.

Every view here is free: our parameters keep the memory layout of the released ones.
"""

from collections.abc import Collection, Mapping

from mudd_interp.checkpoints.layout import Layout, Shape, StoredWeight, as_linear
from mudd_interp.config import ModelConfig

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
            layout[name] = StoredWeight(released, *as_linear(name, shape))
    return layout


def never_read(cfg: ModelConfig, name: str) -> bool:
    """Whether the released class makes a parameter that it never reads (in a plain model)."""
    return cfg.wiring.kind == "plain" and name.startswith(("dense_bs.", "dynamic_dense."))


def _fused(cfg: ModelConfig, name: str, released: str, shape: Shape) -> StoredWeight:
    """A slice of the rows of ``wqkv``: queries, then keys, then values."""
    stored, view = as_linear(name, shape)
    queries, keys = cfg.n_heads * cfg.head_width, cfg.kv_heads * cfg.head_width
    which = name[-1]
    start = {"Q": 0, "K": queries, "V": queries + keys}[which]
    fused = released.replace(ATTENTION[which], "wqkv")
    rows = slice(start, start + stored[0])
    return StoredWeight(fused, (queries + 2 * keys, *stored[1:]), lambda stack: view(stack[rows]))


RELEASED_LAYOUT = Layout(
    config=lambda values, _: ModelConfig.from_released(values),
    weights=released_layout,
    never_read=never_read,
    identity=lambda _, cfg: cfg.identity(),
)
