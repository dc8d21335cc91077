"""Models whose dense weights are written by hand, so that it is known who reads what."""

from collections.abc import Mapping
from dataclasses import replace

import torch

from mudd_interp.axes import Aggregate
from mudd_interp.config import ModelConfig
from mudd_interp.model import HookedMUDDTransformer
from tests.parity.family import SMALL, random_model

FOUR_BLOCKS = replace(ModelConfig(**SMALL), n_layers=4, d_mlp=(24,) * 4)


def planted(
    weights: Mapping[Aggregate, list[float]], cfg: ModelConfig = FOUR_BLOCKS
) -> HookedMUDDTransformer:
    """A random model in float64 that reads with these weights at every token.

    Args:
        weights: By aggregation ``i`` and stream, the weights of X_0..X_{i+1}; what is not given is
            the plain residual.
        cfg: Its configuration; weights that depend on the token are zero.
    """
    model = random_model(cfg)
    with torch.no_grad():
        for i in range(cfg.n_layers):
            aggregation = model.dense[str(i)]
            aggregation.get_parameter("W_2").zero_()
            for row, stream in enumerate(cfg.ways(i)):
                plain = [0.0] * (i + 1) + [1.0]
                values = weights.get((i, stream), plain)
                aggregation.get_parameter("a")[row] = torch.tensor(values, dtype=torch.float64)
    return model


def cancelled_weight() -> HookedMUDDTransformer:
    """A model of single tokens with a large weight of no effect.

    Block 0 writes nothing, so X_1 is X_0. Block 1 reads nothing and writes ones: X_2. The last
    aggregate is X_1 + 50 X_2, and the final LayerNorm takes away what is the same in all
    dimensions: all depends on the edge ``r 1<-1``, and nothing on ``r 1<-2``.
    """
    cfg = replace(FOUR_BLOCKS, n_layers=2, d_mlp=(24, 24), normalization_type="LN", mlp_bias=True)
    model = planted({(0, "r"): [0.0, 0.0], (1, "r"): [0.0, 1.0, 50.0]}, cfg)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("attn.W_O", "mlp.W_out", "mlp.b_out")):
                parameter.fill_(name == "blocks.1.mlp.b_out")
    return model
