"""The bench ``wirings``: what each architecture costs beside its plain twin."""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from mudd_interp.analysis import DenseWeightsAnalysis, LayerSimilarityAnalysis, sweep
from mudd_interp.bench.measure import Row, compared, interleaved
from mudd_interp.bench.options import Options
from mudd_interp.bench.sizes import DYNAMIC_STD, random_tokens
from mudd_interp.config import ModelConfig
from mudd_interp.model import HookedMUDDTransformer
from mudd_interp.model.wirings import MUDD, AttnRes, Hyper, Plain, Scalars, Static
from mudd_interp.model.wirings.base import Architecture

PLAIN = "plain"

WIRINGS: Mapping[str, Architecture] = {
    PLAIN: Plain(),
    "MUDDFormer": MUDD(),
    "DenseFormer": Static(),
    "HC": Hyper(gates="tanh", mixing="free"),
    "mHC": Hyper(exact="rows", head="gate"),
    "mHC-lite": Hyper(mixing="permutations"),
    "attention residuals": AttnRes(),
    "attention residuals, blocks of 4": AttnRes(block_size=8),
    "residual scalars": Scalars(),
}
"""What is measured; they have the same blocks."""


@torch.no_grad()
def wirings(options: Options) -> list[Row]:
    """Forward and the statistics of two figures of every wiring, beside the plain one's."""
    size = options.size
    tokens = random_tokens(size, size.tokens, options.device)
    models = {name: _model(wiring, options) for name, wiring in WIRINGS.items()}
    calls = {f"forward {name}": partial(model, tokens) for name, model in models.items()}
    calls |= {f"statistics {name}": partial(_walk, model, tokens) for name, model in models.items()}
    seconds = interleaved(options.repeats, options.device, calls)
    return [
        compared(
            f"{what}, {name}", seconds[f"{what} {name}"], "plain twin", seconds[f"{what} {PLAIN}"]
        )
        for what in ("forward", "statistics")
        for name in WIRINGS
        if name != PLAIN
    ]


def _walk(model: HookedMUDDTransformer, tokens: Tensor) -> None:
    sweep(model, [tokens], (LayerSimilarityAnalysis(), DenseWeightsAnalysis()))


def _model(wiring: Architecture, options: Options) -> HookedMUDDTransformer:
    """A model whose connections are not those that it begins with."""
    size = options.size
    cfg = ModelConfig(
        n_layers=size.n_layers,
        d_model=size.d_model,
        n_heads=size.n_heads,
        d_vocab=size.d_vocab,
        d_mlp=size.d_model * 11 // 4,
        wiring=wiring,
    )
    torch.manual_seed(0)
    model = HookedMUDDTransformer(cfg, device=options.device, dtype=options.dtype)
    for module in model.connections.modules.values():
        for parameter in module.parameters():
            parameter.add_(DYNAMIC_STD * torch.randn_like(parameter))
    return model
