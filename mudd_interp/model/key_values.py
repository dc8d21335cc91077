"""Decoding with a cache of keys and values, in ``HookedMUDDTransformer``."""

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from mudd_interp.model.attention import LayerKeyValues
from mudd_interp.model.decoding import Decoding, Reader
from mudd_interp.model.generate import Generate


class GenerateMethods(Generate):
    """The decoding of ``HookedMUDDTransformer``."""

    def new_kv_cache(self: Any, batch: int, pos: int) -> list[LayerKeyValues]:
        """An empty cache for :meth:`forward`'s ``past_kv_cache``: one entry for each block.

        Decoding keeps keys and values per block; of the outputs X_j, which the dense connections
        mix within a token only, those of the current tokens are enough. In memory the positions of
        a head follow each other: so its newest query reads them in one go.
        """
        shape = (batch, self.config.kv_heads, pos, self.config.head_width)

        def empty() -> Float[Tensor, "batch pos kv_head d_head"]:
            return self.embed.W_E.new_empty(shape).transpose(1, 2)

        return [LayerKeyValues(empty(), empty()) for _ in range(self.config.n_layers)]

    def _reader(self: Any, how: Decoding, rows: int, room: int) -> Reader:
        past = self.new_kv_cache(rows, room) if how.use_past_kv_cache else None

        def read(tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch d_vocab"]:
            unseen = tokens if past is None else tokens[:, past[0].length :]
            return self.logits(unseen, past)[:, -1].clone()  # a view would keep the prompt's

        return read
