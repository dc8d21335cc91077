"""Layouts of transformers' Vision Transformers: ViT and DeiT, for image classification.

They are read as models of this project, with a plain residual: a class token, learned positions,
and in DeiT a second token that a distilled model was taught by.
"""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from mudd_interp.axes import unknown_name
from mudd_interp.checkpoints.layout import Layout, Placed, Shape, StoredWeight, as_linear
from mudd_interp.config import Classes, ModelConfig, Patches, wiring
from mudd_interp.config.model_config import ActFn

PREFIX = {"vit": 1, "deit": 2}
"""Tokens before the patches, by ``model_type``."""

SCALES: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "vit": {},
    "deit": {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
}
"""How pixels are scaled. ViT's are in -1..1. DeiT's checkpoints are for ImageNet's mean and std."""

SIZES: Mapping[str, int] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
}
"""Fields that are whole numbers, with what goes without saying."""

ACTIVATIONS: Mapping[str, ActFn] = {
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_pytorch_tanh",
    "gelu_new": "gelu_pytorch_tanh",
}
EPS = 1e-12

TOKENS = ("cls_token", "distillation_token")
"""Those before the patches, in their order."""

ENDS = {
    "embed.W_E": "embeddings.patch_embeddings.projection.weight",
    "embed.b_E": "embeddings.patch_embeddings.projection.bias",
    "embed.W_pos": "embeddings.position_embeddings",
    "ln_final.w": "layernorm.weight",
    "ln_final.b": "layernorm.bias",
}
BLOCK = {
    "ln1": "layernorm_before",
    "ln2": "layernorm_after",
    "attn.Q": "attention.attention.query",
    "attn.K": "attention.attention.key",
    "attn.V": "attention.attention.value",
    "attn.O": "attention.output.dense",
    "mlp.in": "intermediate.dense",
    "mlp.out": "output.dense",
}


def config_of(values: Mapping[str, Any]) -> ModelConfig:
    """The ``config.json`` of a ViT or a DeiT as a configuration.

    Raises:
        ValueError: If it is not for image classification, or a field has a value that is not read
            here.
    """
    kind: str = values["model_type"]
    heads = values.get("architectures") or []
    if not any(str(name).endswith("ForImageClassification") for name in heads):
        raise ValueError(
            f"architectures must name a model for image classification, got {heads}: a {kind} "
            "without a head tells no classes."
        )
    sizes = {name: _whole(values, name, usual) for name, usual in SIZES.items()}
    if values.get("qkv_bias", True) is not True:
        raise ValueError("qkv_bias must be true: models without it are not read here.")
    act = values.get("hidden_act", "gelu")
    if act not in ACTIVATIONS:
        raise ValueError(f"{unknown_name('hidden_act', str(act), ACTIVATIONS)}")
    names = _names(values)
    scale = SCALES[kind] if sizes["num_channels"] == 3 else {}
    front = Patches(
        image_size=sizes["image_size"],
        patch_size=sizes["patch_size"],
        n_channels=sizes["num_channels"],
        n_prefix=PREFIX[kind],
        positions="learned",
        **scale,
    )
    return ModelConfig(
        n_layers=sizes["num_hidden_layers"],
        d_model=sizes["hidden_size"],
        n_heads=sizes["num_attention_heads"],
        d_vocab=len(names),
        n_ctx=front.n_positions,
        d_mlp=sizes["intermediate_size"],
        normalization_type="LN",
        eps=float(values.get("layer_norm_eps", EPS)),
        gated_mlp=False,
        act_fn=ACTIVATIONS[act],
        attn_bias=True,
        mlp_bias=True,
        attention_dir="bidirectional",
        rotary_dim=0,
        wiring=wiring("plain"),
        front=front,
        task=Classes(pooling="first", names=names if len(set(names)) == len(names) else None),
    )


def _whole(values: Mapping[str, Any], name: str, usual: int) -> int:
    value: Any = values.get(name, usual)
    if type(value) is not int or value < 1:
        raise ValueError(f"`{name}` must be a whole number of at least 1, got {value!r}.")
    return value


def _names(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes by number; transformers leaves two that are called LABEL_n out."""
    given: Any = values.get("id2label") or {str(n): f"LABEL_{n}" for n in range(2)}
    try:
        names = {int(number): str(name) for number, name in dict(given).items()}
    except (TypeError, ValueError) as error:
        raise ValueError(f"id2label must give a name for each number: {error}.") from error
    if sorted(names) != list(range(len(names))):
        raise ValueError(f"id2label must count its classes from 0, got {sorted(names)[:5]} ...")
    return tuple(names[number] for number in range(len(names)))


def places(
    kind: str,
    cfg: ModelConfig,
    shapes: Mapping[str, Shape],
    available: Collection[str],  # noqa: ARG001 (a layout's)
) -> Placed:
    """Where each of our parameters is."""
    return {name: _stored(kind, cfg, name, shape) for name, shape in shapes.items()}


def _stored(kind: str, cfg: ModelConfig, name: str, shape: Shape) -> StoredWeight:
    if name.startswith("unembed."):
        suffix = "weight" if name.endswith("W_U") else "bias"
        return StoredWeight(f"classifier.{suffix}", *as_linear(name, shape))
    if name == "embed.W_E":
        front: Any = cfg.front
        kernel = (shape[1], front.n_channels, front.patch_size, front.patch_size)
        return StoredWeight(f"{kind}.{ENDS[name]}", kernel, lambda stored: stored.flatten(1).T)
    if name == "embed.W_pos":
        return StoredWeight(f"{kind}.{ENDS[name]}", (1, *shape), lambda stored: stored[0])
    if name.startswith("embed.prefix."):
        token = TOKENS[int(name.rpartition(".")[2])]
        return StoredWeight(
            f"{kind}.embeddings.{token}", (1, 1, *shape), lambda stored: stored[0, 0]
        )
    if name in ENDS:
        return StoredWeight(f"{kind}.{ENDS[name]}", *as_linear(name, shape))
    _, number, rest = name.split(".", 2)
    part, _, leaf = rest.rpartition(".")
    letter, _, which = leaf.partition("_")
    their = BLOCK[f"{part}.{which}" if which else part]
    suffix = "weight" if letter.lower() == "w" else "bias"
    return StoredWeight(f"{kind}.encoder.layer.{number}.{their}.{suffix}", *as_linear(name, shape))


VIT_LAYOUTS: Mapping[str, Layout] = {
    kind: Layout(
        config=lambda values, _: config_of(values),
        weights=partial(places, kind),
        identity=lambda _, cfg: cfg.identity(),
    )
    for kind in PREFIX
}
