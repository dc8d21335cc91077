"""The models that are measured: random weights, in the sizes for which results are stated."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mudd_interp.axes import unknown_name
from mudd_interp.config import ModelConfig
from mudd_interp.config.presets import RELEASED
from mudd_interp.data import Batches, bundled_batches, token_batches
from mudd_interp.model import HookedMUDDTransformer

DYNAMIC_STD = 0.02
"""Spread of the random ``W_2`` of the dense weights (it is zero in a fresh model, which is why that
one is a plain Transformer)."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is measured.

    Attributes:
        n_layers: Blocks of the model.
        d_model: Its width.
        n_heads: Its heads.
        d_vocab: Its vocabulary.
        tokens: Length of the sequence, batch 1; when decoding, of the prompt.
        new_tokens: Tokens to decode.
        sequences: Sequences of 256 tokens in a long sweep by the bundled pair and in a short one.
        checkpoint: The released configuration of the checkpoint that is loaded.
        large: The released configuration of the largest model that has to fit.
        large_tokens: How many tokens that model reads.
        growth_tokens: Lengths at which the growth of cost is measured.
        growth_layers: Depths, likewise.
        figures: Sequences of the default figures; ``None`` for all.
        paper: The models of the paper's Table 4, by its names.
        paper_tokens: The length of their prompt.
    """

    n_layers: int
    d_model: int
    n_heads: int
    d_vocab: int = 50304
    tokens: int = 512
    new_tokens: int = 128
    sequences: tuple[int, int] = (1024, 64)
    checkpoint: str = "MUDDPythia-1.4B"
    large: str = "MUDDPythia-2.8B"
    large_tokens: int = 256
    growth_tokens: tuple[int, ...] = (128, 256, 512, 1024, 2048)
    growth_layers: tuple[int, ...] = (6, 12, 24, 48)
    figures: int | None = None
    paper: tuple[str, ...] = ("1.3B", "2.8B", "6.9B")
    paper_tokens: int = 4096


SIZES = {
    "small": Size(n_layers=12, d_model=768, n_heads=12),
    "410m": Size(n_layers=24, d_model=1024, n_heads=16),
    "toy": Size(
        n_layers=2,
        d_model=64,
        n_heads=4,
        d_vocab=101,
        tokens=24,
        new_tokens=4,
        sequences=(4, 2),
        checkpoint="toy",
        large="toy",
        large_tokens=24,
        growth_tokens=(8, 16),
        growth_layers=(2, 3),
        figures=2,
        paper=("toy",),
        paper_tokens=24,
    ),
}
"""``toy`` is for trying out the command; its numbers mean nothing."""

_TOY_CHECKPOINT = {"n_layer": 2, "dim": 64, "n_head": 4, "vocab_size": 101}


def size_of(name: str) -> Size:
    """The size of a given name.

    Raises:
        ValueError: If there is no such size, with the nearest names.
    """
    if name not in SIZES:
        raise ValueError(unknown_name("size", name, SIZES))
    return SIZES[name]


def checkpoint_config(size: Size) -> dict[str, Any]:
    """The released ``config.json`` of the checkpoint that is loaded."""
    if size.checkpoint == "toy":
        return RELEASED["MUDDPythia-1.4B"] | _TOY_CHECKPOINT
    return RELEASED[size.checkpoint]


def random_tokens(
    size: Size, n_tokens: int, device: torch.device, rows: int = 1
) -> Int64[Tensor, "batch pos"]:
    """Random token ids, the same each time."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(size.d_vocab, (rows, n_tokens), generator=generator).to(device)


def held_out(sequences: int) -> Batches:
    """Batches of the bundled held-out sequences, repeated if more are wanted than there are."""
    pack = torch.cat(list(bundled_batches()))
    times = -(-sequences // len(pack))
    return token_batches(pack.repeat(times, 1)[:sequences], description="bundled, repeated")


def neox(size: Size, device: torch.device, dtype: torch.dtype, attention: str = "sdpa") -> Any:
    """Transformers' GPT-NeoX of a size, configured as Pythia is; random weights."""
    # it takes two seconds to import
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = GPTNeoXConfig(
        vocab_size=size.d_vocab,
        hidden_size=size.d_model,
        num_hidden_layers=size.n_layers,
        num_attention_heads=size.n_heads,
        intermediate_size=4 * size.d_model,
        max_position_embeddings=2048,
        use_parallel_residual=True,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.25,
        },
    )
    torch.manual_seed(0)
    module: Any = GPTNeoXForCausalLM(config)
    module.set_attn_implementation(attention)
    # so that it does not stop: decoding is measured over a given number of tokens
    module.generation_config.eos_token_id = None
    module.generation_config.pad_token_id = 0
    return module.to(device=device, dtype=dtype).eval()


def mudd_pythia(size: Size, device: torch.device, dtype: torch.dtype) -> HookedMUDDTransformer:
    """A MUDDPythia of a size, configured as the released ones are; random weights."""
    released = RELEASED["MUDDPythia-1.4B"] | {
        "vocab_size": size.d_vocab,
        "n_layer": size.n_layers,
        "n_head": size.n_heads,
        "dim": size.d_model,
    }
    return randomised(ModelConfig.from_released(released), device, dtype)


def growing(
    name: str, size: Size, device: torch.device, dtype: torch.dtype
) -> HookedMUDDTransformer:
    """A MUDDPythia of a size, or (``"plain twin"``) the same blocks without dense connections."""
    mudd = mudd_pythia(size, device, dtype)
    return mudd if name == "MUDDPythia" else randomised(mudd.config.plain(), device, dtype)


def randomised(cfg: ModelConfig, device: torch.device, dtype: torch.dtype) -> HookedMUDDTransformer:
    """A model with random weights, including those of the dense connections."""
    torch.manual_seed(0)
    model = HookedMUDDTransformer(cfg, device=device, dtype=dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("dense.") and name.endswith(".W_2"):
                parameter.normal_(std=DYNAMIC_STD)
    return model


def largest_difference(
    a: Float[Tensor, "batch pos d_vocab"], b: Float[Tensor, "batch pos d_vocab"]
) -> float:
    """Largest absolute difference of two models' logits, in nats."""
    return (a.float() - b.float()).abs().max().item()
