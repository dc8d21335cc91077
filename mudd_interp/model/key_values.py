"""Decoding with a cache of keys and values, in ``HookedMUDDTransformer``."""

from collections.abc import Callable

from jaxtyping import Float, Int
from torch import Tensor

from mudd_interp.config import ModelConfig
from mudd_interp.model.attention import LayerKeyValues
from mudd_interp.model.decoding import Reader


def empty_key_values(
    cfg: ModelConfig, batch: int, pos: int, like: Float[Tensor, "..."]
) -> list[LayerKeyValues]:
    """A cache of keys and values that holds nothing yet, on a tensor's device in its precision.

    In memory the positions of a head follow each other: so its newest query reads them in one go.
    """
    shape = (batch, cfg.kv_heads, pos, cfg.head_width)

    def empty() -> Float[Tensor, "batch pos kv_head d_head"]:
        return like.new_empty(shape).transpose(1, 2)

    return [LayerKeyValues(empty(), empty()) for _ in range(cfg.n_layers)]


def reader_of(
    logits: Callable[..., Float[Tensor, "batch pos d_vocab"]], past: list[LayerKeyValues] | None
) -> Reader:
    """What reads tokens with a model's ``logits(tokens, past)``; of ``past`` those not seen yet."""

    def read(tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch d_vocab"]:
        unseen = tokens if past is None else tokens[:, past[0].length :]
        return logits(unseen, past)[:, -1].clone()  # a view would keep the prompt's

    return read
