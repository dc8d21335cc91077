"""Configurations by name: the sizes of the paper's tables, and the released models."""

from typing import Any

from mudd_interp.axes import unknown_name
from mudd_interp.config.ends import Classes, Patches
from mudd_interp.config.released import released_fields
from mudd_interp.config.widths import reallocate, swiglu_width
from mudd_interp.config.wiring import wiring

SIZES = {
    "405M": (24, 1024, 16),
    "834M": (24, 1536, 24),
    "1.4B": (24, 2048, 32),
    "797M": (34, 1280, 20),
    "1.34B": (42, 1536, 24),
}
"""Layers, width and heads of Table 2."""

LARGEST = {"6.9B": (32, 4096, 32)}
"""The size of Table 1 that is not in Table 2. The paper does not say how many heads: as Llama."""

DEEP_NARROW = ("797M", "1.34B")
"""The deep and narrow sizes, which the paper trains with PrePostDANorm."""

_AS_RELEASED = {"vocab_size": 50432, "use_qk_norm": True, "expand_last": True, "round64": True}
_PYTHIA, _FORMER = {"model_type": "muddpythia"}, {"model_type": "muddformer"}
RELEASED: dict[str, dict[str, Any]] = {
    "MUDDPythia-1.4B": {"n_layer": 24, "dim": 2048, "n_head": 16} | _PYTHIA | _AS_RELEASED,
    "MUDDPythia-2.8B": {"n_layer": 32, "dim": 2560, "n_head": 32} | _PYTHIA | _AS_RELEASED,
    "MUDDFormer-2.8B": {"n_layer": 32, "dim": 2560, "n_head": 32} | _FORMER | _AS_RELEASED,
}
"""The released models' configurations, in the released fields."""

FAMILIES = ("MUDDFormer", "Transformer++")

VISION_SIZES = {"S": (384, 6), "M": (512, 8)}
"""Width and heads of Vision Transformers; all have 12 blocks, and FFNs four times as wide."""

VISION = ("ViT-S/16", "ViT-M/16", "MUDDViT-S/16")
"""The Vision Transformers of the paper's Table 8 (camera-ready)."""


def preset_names() -> tuple[str, ...]:
    """Every name that :func:`preset_fields` knows."""
    sizes = (*SIZES, *LARGEST)
    language = (f"{family}-{size}" for family in FAMILIES for size in sizes)
    return (*RELEASED, *language, *VISION)


def preset_fields(name: str) -> dict[str, Any]:
    """The keyword arguments of :class:`ModelConfig` for a preset.

    Raises:
        ValueError: If there is no such preset, with the nearest names.
    """
    if name in RELEASED:
        return released_fields(RELEASED[name])
    if name not in preset_names():
        raise ValueError(
            unknown_name("preset", name, preset_names())
            + f" There are {', '.join(preset_names())}."
        )
    if name in VISION:
        return _vision(name)
    family, _, size = name.partition("-")
    return _sized(size, dense=family == "MUDDFormer")


def _sized(size: str, dense: bool) -> dict[str, Any]:
    n_layers, d_model, n_heads = (SIZES | LARGEST)[size]
    width = swiglu_width(d_model)
    fields = {
        "n_layers": n_layers,
        "d_model": d_model,
        "n_heads": n_heads,
        "d_vocab": 50432,
        "n_ctx": 2048,
    }
    if not dense:
        return fields | {"d_mlp": width, "wiring": wiring("plain")}
    kind = "prepost" if size in DEEP_NARROW else "mudd"
    return fields | {
        "d_mlp": reallocate(width, n_layers),
        "wiring": wiring(kind, expand_last=True, round64=True),
    }


def _vision(name: str) -> dict[str, Any]:
    """As in big_vision, which the authors trained with: no class token, a layer before the classes.

    The paper does not say how wide the last weight MLP's hidden layer is, nor what PrePostDANorm
    reads: here as in the authors' fork, four times as wide, unrounded, and variant "residual".
    """
    d_model, n_heads = VISION_SIZES[name[name.index("ViT-") + len("ViT-")]]
    front = Patches(image_size=224, patch_size=16, n_channels=3)
    dense = name.startswith("MUDD")
    return {
        "n_layers": 12,
        "d_model": d_model,
        "n_heads": n_heads,
        "d_vocab": 1000,
        "n_ctx": front.n_patches,
        "d_mlp": 4 * d_model,
        "normalization_type": "LN",
        "gated_mlp": False,
        "act_fn": "gelu_pytorch_tanh",
        "attn_bias": True,
        "mlp_bias": True,
        "attention_dir": "bidirectional",
        "rotary_dim": 0,
        "wiring": wiring("prepost", variant="residual", expand_last=True)
        if dense
        else wiring("plain"),
        "front": front,
        "task": Classes(pre_logits=True),
    }
