"""The rungs of the family that tests run through: Table 5 and the options beside it."""

from dataclasses import replace
from typing import Any, TypeVar

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mudd_interp.config import Classes, ModelConfig, Patches, TokenInput, reallocate
from mudd_interp.model import HookedMUDDTransformer, HookedViT
from mudd_interp.model.wirings import MUDD, AttnRes, Hyper, Plain, PrePost, Scalars, Static

Model = TypeVar("Model", bound=torch.nn.Module)

SMALL: dict[str, Any] = {
    "n_layers": 3,
    "d_model": 16,
    "n_heads": 2,
    "d_vocab": 29,
    "n_ctx": 24,
    "d_mlp": 24,
}
WIDER: dict[str, Any] = {**SMALL, "d_mlp": reallocate(24, 3, multiple_of=4)}
PYTHIA: dict[str, Any] = {
    "normalization_type": "LN",
    "eps": 1e-5,
    "gated_mlp": False,
    "act_fn": "gelu",
    "attn_bias": True,
    "mlp_bias": True,
    "rotary_dim": 2,
}

FAMILY: dict[str, ModelConfig] = {
    "Transformer++": ModelConfig(**SMALL, wiring=Plain()),
    "+ Static Dense": ModelConfig(**SMALL, wiring=MUDD(ways="one", dynamic=False)),
    "+ Dynamic Dense": ModelConfig(**SMALL, wiring=MUDD(ways="one")),
    "+ Multiway Static Dense": ModelConfig(**SMALL, wiring=MUDD(dynamic=False)),
    "+ Multiway Dynamic Dense": ModelConfig(**SMALL),
    "MUDDFormer": ModelConfig(**WIDER),
    "Transformer++ + Re-alloc": ModelConfig(**WIDER, wiring=Plain()),
    "MUDDFormer - Q dense": ModelConfig(**WIDER, wiring=MUDD(ways="kvr")),
    "MUDDFormer - K dense": ModelConfig(**WIDER, wiring=MUDD(ways="qvr")),
    "MUDDFormer - V dense": ModelConfig(**WIDER, wiring=MUDD(ways="qkr")),
    "MUDDFormer - R dense": ModelConfig(**WIDER, wiring=MUDD(ways="qkv")),
    "MUDDFormer as released": ModelConfig(
        **WIDER, use_qk_norm=True, wiring=MUDD(expand_last=True, round64=True)
    ),
    "MUDDFormer, one key-value head": ModelConfig(**WIDER, n_key_value_heads=1),
    "MUDDPythia": ModelConfig(**WIDER, **PYTHIA, parallel_attn_mlp=True, use_qk_norm=True),
    "MUDDPythia, sequential": ModelConfig(**WIDER, **PYTHIA),
    "GPT-NeoX": ModelConfig(**SMALL, **PYTHIA, parallel_attn_mlp=True, wiring=Plain()),
    "PrePostDANorm, Eq. 10": ModelConfig(**WIDER, wiring=PrePost()),
    "PrePostDANorm, R only": ModelConfig(**WIDER, wiring=PrePost(variant="residual")),
    "PrePostDANorm, one way": ModelConfig(**WIDER, wiring=PrePost(ways="one")),
    "PrePostDANorm, static": ModelConfig(
        **WIDER, wiring=PrePost(variant="residual", dynamic=False)
    ),
    "DenseFormer, dilation 2": ModelConfig(**SMALL, **PYTHIA, wiring=Static(dilation=2)),
    "DenseFormer, period 2": ModelConfig(**SMALL, **PYTHIA, wiring=Static(period=2, dilation=2)),
    "nanochat's scalars": ModelConfig(**SMALL, wiring=Scalars()),
}
"""Every kind of model, tiny, by the name it has in Table 5 where it has one."""

BODY: dict[str, Any] = {
    **SMALL,
    "n_key_value_heads": 1,
    "eps": None,
    "gated_mlp": False,
    "act_fn": "relu2",
    "use_qk_norm": True,
    "rotary_before_qk_norm": True,
    "rotary_rounding": "float32_tables",
    "attention_windows": (4, 3, 24),
    "value_embeddings": True,
    "front": TokenInput(normed=True, smear=True),
}
NANOCHAT: dict[str, ModelConfig] = {
    "nanochat without its softcap": ModelConfig(**BODY, wiring=Scalars()),
    "nanochat's body, MUDD connections": ModelConfig(**BODY, wiring=MUDD()),
}
"""Models with all that nanochat has besides its scalars."""

HYPER: dict[str, ModelConfig] = {
    "HC, static": ModelConfig(**SMALL, wiring=Hyper(n_streams=2, gates="static", mixing="free")),
    "HC": ModelConfig(**SMALL, **PYTHIA, wiring=Hyper(n_streams=3, gates="tanh", mixing="free")),
    "HC, not mixed, gated head": ModelConfig(
        **SMALL, wiring=Hyper(n_streams=3, gates="tanh", mixing="identity", head="gate", eps=0.0)
    ),
    "mHC": ModelConfig(**SMALL, wiring=Hyper()),
    "mHC, rows exact, gated head": ModelConfig(
        **SMALL, wiring=Hyper(n_streams=3, exact="rows", rounds=3, head="gate")
    ),
    "mHC, delayed": ModelConfig(
        **SMALL, wiring=Hyper(n_streams=2, exact="rows", delayed=True, head="last")
    ),
    "mHC, not mixed": ModelConfig(**SMALL, **PYTHIA, wiring=Hyper(mixing="identity", head="gate")),
    "mHC-lite": ModelConfig(**SMALL, wiring=Hyper(n_streams=3, mixing="permutations")),
}
"""Hyper-connections, every choice of gates, mixing and head."""

NORMED_HEADS: dict[str, ModelConfig] = {
    "mHC, each stream normed": ModelConfig(
        **SMALL, **PYTHIA, wiring=Hyper(n_streams=3, head="norms")
    ),
    "HC, each stream normed": ModelConfig(
        **SMALL, wiring=Hyper(n_streams=2, gates="tanh", mixing="free", head="norms", eps=0.0)
    ),
}
"""Hyper-connections whose head norms every stream: there is no one final stream."""

DELTA: dict[str, Any] = {"residual": True, "head": "sum"}
OPEN: dict[str, Any] = {"candidates": "states", "recency_bias": True, "head": "sum"}

ATTNRES: dict[str, ModelConfig] = {
    "AttnRes": ModelConfig(**SMALL, wiring=AttnRes()),
    "AttnRes, blocks": ModelConfig(**SMALL, **PYTHIA, wiring=AttnRes(block_size=4)),
    "AttnRes, blocks that cut layers": ModelConfig(
        **SMALL, wiring=AttnRes(block_size=3, embedding="both", recency_bias=True, head="sum")
    ),
    "AttnRes, states": ModelConfig(**SMALL, wiring=AttnRes(**OPEN)),
    "AttnRes, states of blocks": ModelConfig(
        **SMALL, wiring=AttnRes(block_size=2, candidates="states", recency_bias=True)
    ),
    "AttnRes, delta": ModelConfig(**SMALL, wiring=AttnRes(residual=True, recency_bias=True)),
    "AttnRes, delta of blocks": ModelConfig(
        **SMALL, wiring=AttnRes(**DELTA, block_size=2, candidates="differences")
    ),
}
"""Attention residuals, every choice of candidates and head."""

APART: dict[str, ModelConfig] = {
    "AttnRes, V apart": ModelConfig(**SMALL, wiring=AttnRes(block_size=4, value_apart=True)),
    "AttnRes, states, V apart": ModelConfig(
        **SMALL, **PYTHIA, wiring=AttnRes(**OPEN, value_apart=True)
    ),
    "AttnRes, delta, V apart": ModelConfig(
        **SMALL, wiring=AttnRes(**DELTA, embedding="none", value_apart=True)
    ),
}
"""Attention residuals whose values are read by a query of their own."""

VARIANTS = {*ATTNRES, *APART} - {"AttnRes, blocks", "AttnRes, delta, V apart"}
"""Models that differ by an option from others here: what goes through them is a slow test."""

BIDIRECTIONAL: dict[str, ModelConfig] = {
    "MUDDFormer, bidirectional": ModelConfig(**WIDER, attention_dir="bidirectional"),
    "bidirectional, no positions": replace(
        ModelConfig(**WIDER, **PYTHIA, attention_dir="bidirectional", wiring=Plain()), rotary_dim=0
    ),
    "bidirectional, one key-value head": ModelConfig(
        **WIDER, n_key_value_heads=1, attention_dir="bidirectional", rotary_dim=0
    ),
}
"""Models whose positions see all others."""

SEEN: dict[str, Any] = {
    **SMALL,
    **PYTHIA,
    "d_vocab": 5,
    "n_ctx": 9,
    "act_fn": "gelu_pytorch_tanh",
    "eps": 1e-6,
    "rotary_dim": 0,
    "attention_dir": "bidirectional",
    "front": Patches(image_size=12, patch_size=4, n_channels=2),
}
LAST: dict[str, Any] = {"expand_last": True}

VISION: dict[str, ModelConfig] = {
    "ViT": ModelConfig(**SEEN, task=Classes(), wiring=Plain()),
    "ViT, pre-logits": ModelConfig(**SEEN, task=Classes(pre_logits=True), wiring=Plain()),
    "MUDDViT": ModelConfig(**SEEN, task=Classes(), wiring=PrePost(variant="residual", **LAST)),
    "MUDDViT, Eq. 10": ModelConfig(**SEEN, task=Classes(), wiring=PrePost(**LAST)),
    "MUDDViT, no norms": ModelConfig(
        **SEEN, task=Classes(names=("a", "b", "c", "d", "e")), wiring=MUDD()
    ),
}
"""Models of images, tiny."""


def random_model(cfg: ModelConfig, seed: int = 0) -> HookedMUDDTransformer:
    """A model in float64 whose every parameter is random, gains and biases too."""
    torch.manual_seed(seed)
    return perturbed(HookedMUDDTransformer(cfg, dtype=torch.float64))


def random_vision_model(cfg: ModelConfig, seed: int = 0) -> HookedViT:
    """The same of images."""
    torch.manual_seed(seed)
    return perturbed(HookedViT(cfg, dtype=torch.float64))


def random_images(cfg: ModelConfig, batch: int = 2, seed: int = 1) -> torch.Tensor:
    """Images ``[batch channel row column]`` in float64."""
    assert isinstance(cfg.front, Patches)
    shape = (batch, cfg.front.n_channels, *(cfg.front.image_size,) * 2)
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, dtype=torch.float64, generator=generator) * 2 - 1


def perturbed(model: Model) -> Model:
    """A model whose every parameter was moved at random."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def random_tokens(cfg: ModelConfig, batch: int = 2, pos: int = 7, seed: int = 1) -> torch.Tensor:
    """Token ids ``[batch pos]``."""
    return torch.randint(cfg.d_vocab, (batch, pos), generator=torch.Generator().manual_seed(seed))


def letters_tokenizer() -> PreTrainedTokenizerFast:
    """Words a, b, c, ... with the ids 1, 2, 3, ..."""
    words = {chr(96 + i): i for i in range(1, 27)} | {"<|endoftext|>": 0}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )
