"""``HookedMUDDTransformer``: the whole family as one hooked model."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mudd_interp.config import ModelConfig
from mudd_interp.model.attention import LayerKeyValues
from mudd_interp.model.decoding import Decoding, Reader
from mudd_interp.model.embed import Embed
from mudd_interp.model.key_values import empty_key_values, reader_of
from mudd_interp.model.language import LanguageModel
from mudd_interp.model.layers import Unembed
from mudd_interp.model.named import ELSEWHERE
from mudd_interp.model.stack import WiredBlocks
from mudd_interp.model.weights import MUDDEnds
from mudd_interp.protocol import ModelInfo, require_traits


class HookedMUDDTransformer(LanguageModel, WiredBlocks):
    """MUDDFormer, MUDDPythia, their plain twins and every rung between, by configuration.

    A fresh model has random weights with the paper's initialisation of the dense connections (so
    it *is* its plain twin) and is in evaluation mode, as TransformerLens' patching tools expect.
    """

    elsewhere = ELSEWHERE

    embed: Embed
    unembed: Unembed

    def __init__(
        self,
        cfg: ModelConfig,
        tokenizer: Any = None,
        info: ModelInfo | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__(cfg, Embed(cfg), Unembed(cfg), info, device, dtype)
        self.tokenizer = tokenizer

    # --- What a language model is asked (model.language) ----------------------------------------

    @property
    def ends(self) -> MUDDEnds:
        """Its embedding, final norm and unembedding."""
        return MUDDEnds(
            self.tokens, self.embed, self.ln_final, self.unembed, self.connections.reduced
        )

    def run(
        self,
        given: Tensor,
        return_type: str | None = "logits",
        start: int | None = None,
        stop: int | None = None,
        past: Sequence[LayerKeyValues] | None = None,
    ) -> Tensor | None:
        """See :meth:`LanguageModel.run`."""
        if start is None:
            stream = self.final_stream(given, past, stop)
        else:
            stream = self._stream_from(given, start, stop)
        if stop is not None:
            return stream
        final = self.ln_final(stream)
        return None if return_type is None else self.unembed(final)

    def _stream_from(
        self, x: Float[Tensor, "batch pos d_model"], start: int, stop: int | None
    ) -> Float[Tensor, "batch pos d_model"]:
        if start and not self.wiring.additive:
            raise ValueError(
                f"block {start} reads X_0..X_{start}, each with weights of its own, so one stream "
                "does not say how to go on: give them all to model.logits_from, or start at 0 "
                "with X_0."
            )
        return self.run_blocks([x] * (start + 1), stop_at_layer=stop)

    def embed_ids(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
        """X_0 of token ids."""
        return self.embed(tokens)

    def positions_seen(self, past: Any) -> int:
        """How many positions came before, by a cache of keys and values.

        Raises:
            ValueError: If it is none of this model.
        """
        if past is None:
            return 0
        self._require_causal()
        listed = isinstance(past, Sequence) and len(past) == self.config.n_layers
        if not listed or not isinstance(past[0], LayerKeyValues):
            raise ValueError(
                f"past_kv_cache must hold keys and values of {self.config.n_layers} blocks, from "
                f"model.new_kv_cache(batch, pos), got {type(past).__name__}."
            )
        return past[0].length

    def new_kv_cache(self, batch: int, pos: int) -> list[LayerKeyValues]:
        """An empty cache for :meth:`forward`'s ``past_kv_cache``: one entry for each block.

        Decoding keeps keys and values per block; of the outputs X_j, which the dense connections
        mix within a token only, those of the current tokens are enough.

        Raises:
            ValueError: If positions see later ones: each new token then changes all before it.
        """
        self._require_causal()
        return empty_key_values(self.config, batch, pos, self.ln_final.w)

    def _require_causal(self) -> None:
        require_traits(self, "a cache of keys and values", ["causal"])

    def reader(self, how: Decoding, rows: int, room: int) -> Reader:
        """See :class:`~mudd_interp.model.decoding.Decoder`."""
        return reader_of(
            self.logits, self.new_kv_cache(rows, room) if how.use_past_kv_cache else None
        )

    # --- The forward pass -----------------------------------------------------------------------

    def logits(
        self, tokens: Int[Tensor, "batch pos"], past: Sequence[LayerKeyValues] | None = None
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Logits of valid token ids."""
        return self.unembed(self.ln_final(self.final_stream(tokens, past)))
