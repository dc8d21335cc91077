"""Models whose dense weights are written by hand, so that it is known who reads what."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, cast

import torch

from mudd_interp.axes import Stream
from mudd_interp.config import ModelConfig
from mudd_interp.model import HookedMUDDTransformer
from mudd_interp.model.block import Block
from mudd_interp.model.wirings.mudd import Aggregation
from tests.parity.family import SMALL, random_model

FOUR_BLOCKS = replace(ModelConfig(**SMALL), n_layers=4, d_mlp=(24,) * 4)


def planted(
    weights: Mapping[tuple[int, Stream], list[float]], cfg: ModelConfig = FOUR_BLOCKS
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
            aggregation = cast(Aggregation, model.dense[str(i)])
            aggregation.get_parameter("W_2").zero_()
            for row, stream in enumerate(aggregation.streams):
                plain = [0.0] * (i + 1) + [1.0]
                values = weights.get((i, stream), plain)
                aggregation.get_parameter("a")[row] = torch.tensor(values, dtype=torch.float64)
    return model


def cancelled_weight() -> HookedMUDDTransformer:
    """A model of single tokens with a large weight of no effect.

    Block 0 writes nothing, so X_1 is X_0. Block 1 reads nothing and writes ones: X_2. The last
    aggregate is X_1 + 50 X_2, and the final LayerNorm removes what is the same in all dimensions:
    everything depends on the edge ``r 1<-1``, and nothing on ``r 1<-2``.
    """
    cfg = replace(FOUR_BLOCKS, n_layers=2, d_mlp=(24, 24), normalization_type="LN", mlp_bias=True)
    model = planted({(0, "r"): [0.0, 0.0], (1, "r"): [0.0, 1.0, 50.0]}, cfg)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("attn.W_O", "mlp.W_out", "mlp.b_out")):
                parameter.fill_(name == "blocks.1.mlp.b_out")
    return model


def induction_head(keys: Literal["edge", "chain", "nothing"]) -> HookedMUDDTransformer:
    """An induction head, 2.0, that needs what the previous-token head 0.0 wrote.

    The width is divided into a constant, the token, the token before, and the prediction. Head 0.0
    looks one position back and writes the token before. Head 2.0 compares the token with the token
    before of all keys, and writes the token that it finds as prediction. All other heads and FFNs
    write nothing. The keys of block 2 see the token before

    - ``edge``: in X_1, by a dense edge. Block 1 reads the embedding only, so X_2 lacks it;
    - ``chain``: in X_2, where the residual stream carried it, as in a plain Transformer;
    - ``nothing``: not at all. Block 1 reads the embedding only, and the keys read X_2.
    """
    n, d_head, strong = 24, 32, 4.0  # tokens; 8 rotated dimensions, and one for each token
    cfg = ModelConfig(
        n_layers=3,
        d_model=80,
        n_heads=2,
        d_vocab=n,
        d_mlp=8,
        n_ctx=48,
        d_head=d_head,
        rotary_dim=8,
        rotary_base=100.0,
    )
    weights: dict[tuple[int, Stream], list[float]] = {
        (0, "r"): [0, 1] if keys == "chain" else [1, 0]
    }
    if keys == "edge":
        weights[1, "k"] = [0, 1, 0]
    model = planted(weights, cfg)
    one, token, before, prediction = torch.eye(80, dtype=torch.float64)[:73].split([1, n, n, n])
    turned, matched = torch.eye(d_head, dtype=torch.float64).split([8, n])
    angle = 100.0 ** -(torch.arange(4, dtype=torch.float64) / 4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith((".W_O", ".W_out")):
                parameter.zero_()
            elif name.endswith(".w"):
                parameter.fill_(1)
        model.embed.W_E.copy_(one + token)
        model.unembed.W_U.copy_(strong * prediction.T)
        first, last = (cast(Block, model.blocks[layer]).attn for layer in (0, 2))
        # Keys are turned by one position more than queries: the product is largest one back.
        first.W_Q[0] = strong * one.T @ turned[:4].sum(0, keepdim=True)
        first.W_K[0] = strong * one.T @ (torch.cat([angle.cos(), angle.sin()]) @ turned)[None]
        first.W_V[0] = token.T @ matched
        first.W_O[0] = 0.2 * matched.T @ before
        last.W_Q[0] = strong * token.T @ matched
        last.W_K[0] = strong * before.T @ matched + one.T @ turned[:1]
        last.W_V[0] = token.T @ matched
        last.W_O[0] = matched.T @ prediction
    return model
