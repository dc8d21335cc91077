"""The rungs of the paper's Table 5 at any size, and how each begins as the same function."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import torch

from mudd_interp.axes import unknown_name
from mudd_interp.config import ModelConfig, reallocate, wiring
from mudd_interp.costs.built import count
from mudd_interp.model import HookedMUDDTransformer
from mudd_interp.model.block import Block
from mudd_interp.model.layers import init_weights
from mudd_interp.model.wirings import MUDD
from mudd_interp.training.tokenizer import D_VOCAB
from mudd_interp.wiring import newest_source

N_CTX = 256


@dataclass(frozen=True)
class Rung:
    """A row of Table 5, the deep model of Figure 5, or a relative of MUDDFormer.

    Attributes:
        title: As the paper, or its authors, call it.
        kind: Of the wiring.
        values: The wiring's fields.
        realloc: Whether FFN widths grow over depth (paper, section 2.6).
        paper: The paper's validation perplexity at 405M parameters, to two digits; ``None`` for
            what Table 5 does not have.
    """

    title: str
    kind: str
    values: Mapping[str, Any]
    realloc: bool = False
    paper: float | None = None


def _plain(title: str, paper: float, realloc: bool = False) -> Rung:
    return Rung(title, "plain", MappingProxyType({}), realloc, paper)


def _mudd(title: str, paper: float, realloc: bool = False, **values: Any) -> Rung:
    return Rung(title, "mudd", MappingProxyType(values), realloc, paper)


def _relative(title: str, kind: str, **values: Any) -> Rung:
    return Rung(title, kind, MappingProxyType(values))


RUNGS: Mapping[str, Rung] = MappingProxyType(
    {
        "plain": _plain("Transformer++", 11.68),
        "static": _mudd("+ static", 11.44, ways="one", dynamic=False),
        "dynamic": _mudd("+ dynamic", 11.09, ways="one"),
        "multiway-static": _mudd("+ multiway static", 11.27, dynamic=False),
        "multiway-dynamic": _mudd("+ multiway dynamic", 10.83),
        "muddformer": _mudd("MUDDFormer", 10.77, realloc=True),
        "plain-realloc": _plain("Transformer++ + re-alloc", 11.93, realloc=True),
        "without-q": _mudd("MUDDFormer - Q", 10.89, realloc=True, ways="kvr"),
        "without-k": _mudd("MUDDFormer - K", 10.90, realloc=True, ways="qvr"),
        "without-v": _mudd("MUDDFormer - V", 11.05, realloc=True, ways="qkr"),
        "without-r": _mudd("MUDDFormer - R", 11.14, realloc=True, ways="qkv"),
        "prepost": Rung("MUDDFormer, PrePostDANorm", "prepost", MappingProxyType({}), True),
        "denseformer": _relative("DenseFormer", "static", period=2, dilation=2),
        "hyper": _relative("mHC", "hyper", exact="rows", head="gate"),
        "attnres": _relative("Attention Residuals", "attnres"),
    }
)
"""By name: those of Table 5 in the paper's order, the deep model of Figure 5, and relatives."""

TABLE_5 = tuple(name for name, rung in RUNGS.items() if rung.paper is not None)

ZOO = ("plain", "multiway-dynamic", "denseformer", "hyper", "attnres")
"""Relatives of MUDDFormer, with what they are held against: all have the same FFN widths."""


@dataclass(frozen=True)
class Size:
    """Depth, width and heads of a model; all else follows from them.

    Attributes:
        n_layers: Blocks.
        d_model: Width, a multiple of 8.
        n_heads: Heads per block.
    """

    n_layers: int
    d_model: int
    n_heads: int

    @property
    def name(self) -> str:
        """Depth and width, ``12x64``; with the heads, ``12x128h4``, unless they are 16 wide."""
        heads = "" if self.d_model == 16 * self.n_heads else f"h{self.n_heads}"
        return f"{self.n_layers}x{self.d_model}{heads}"

    @property
    def d_mlp(self) -> int:
        """Mean FFN width: 11/4 of the model's, as in the bundled pair."""
        return self.d_model * 11 // 4

    @property
    def parameters(self) -> int:
        """Parameters of the blocks' matrices, N: the same for every rung but for dense weights."""
        return self.n_layers * (4 * self.d_model + 3 * self.d_mlp) * self.d_model


def config(size: Size, rung: str) -> ModelConfig:
    """The configuration of a rung at a size.

    Raises:
        ValueError: If there is no such rung.
    """
    if rung not in RUNGS:
        raise ValueError(unknown_name("rung", rung, RUNGS))
    found, width = RUNGS[rung], size.d_mlp
    return ModelConfig(
        n_layers=size.n_layers,
        d_model=size.d_model,
        n_heads=size.n_heads,
        d_vocab=D_VOCAB,
        n_ctx=N_CTX,
        # In steps of an eighth of the width the total stays what it is, at every size used here.
        d_mlp=reallocate(width, size.n_layers, size.d_model // 8) if found.realloc else width,
        wiring=wiring(found.kind, **found.values),
    )


def training_flops(cfg: ModelConfig, tokens: int) -> int:
    """FLOPs of training on so many tokens, in rows of 256: three times those of the forward pass.

    All matrix products count, with the unembedding, attention within its causal triangle, and the
    weights and sums of dense connections; norms and activations do not.
    """
    width = cfg.d_model
    matrices = sum(4 * width * width + 3 * width * mlp for mlp in cfg.mlp_widths)
    attended = (N_CTX + 1) // 2  # keys of a query, on average
    products = matrices + cfg.n_layers * 2 * attended * width + width * cfg.d_vocab
    if isinstance(cfg.wiring, MUDD):
        for row in range(cfg.n_layers):
            ways, sources = len(cfg.wiring.of_row(row, cfg.n_layers)), newest_source(row) + 1
            products += ways * sources * width
            if cfg.wiring.dynamic:
                hidden = cfg.wiring.hidden(row, cfg.n_layers)
                products += width * hidden + hidden * ways * sources
    else:
        products += _products_of_connections(cfg)
    return round(3 * 2 * products * tokens)


@cache
def _products_of_connections(cfg: ModelConfig) -> float:
    """Products for each token that a plain twin has not, as torch counts them."""
    found = count(cfg, N_CTX)
    return (found.flops - found.twin_flops) / (2 * N_CTX)


def fresh_model(cfg: ModelConfig, seed: int, tokenizer: Any = None) -> HookedMUDDTransformer:
    """A model with weights drawn part by part, each part from a generator of its own.

    So two rungs have the same embedding, attention and unembedding, and the same FFN wherever its
    width is the same, whatever else they have. As dense weights begin as the plain residual, rungs
    with the same FFN widths begin as the same function.
    """
    model = HookedMUDDTransformer(cfg, tokenizer=tokenizer)
    blocks = [cast(Block, block) for block in model.blocks]
    parts = [model.embed, model.unembed]
    parts += [part for block in blocks for part in (block.attn, block.mlp)]
    for number, part in enumerate(parts):
        torch.manual_seed(_seed(seed, 0, number))
        init_weights(part, cfg)
    torch.manual_seed(_seed(seed, 1, 0))
    model.connections.init_weights()
    return model


def _seed(*numbers: int) -> int:
    """A seed of its own for each list of numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
