"""Decoding with a baseline."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.utilities.position_ids import accepts_mask_derived_position_ids

from mudd_interp.model.decoding import Decoding, Reader
from mudd_interp.model.generate import Generate


class BaselineGenerate(Generate):
    """The decoding of a baseline, with the keys and values that its Hugging Face model keeps."""

    def _reader(self: Any, how: Decoding, rows: int, room: int) -> Reader:  # noqa: ARG002
        adapter = self.bridge.adapter
        if not adapter.supports_generation:
            raise ValueError(f"{self.cfg.architecture} does not write text from left to right.")
        if not (how.use_past_kv_cache and adapter.supports_kv_cache):
            return lambda tokens: self._run(tokens)[:, -1].clone()
        takes_positions = accepts_mask_derived_position_ids(self.bridge.original_model)
        past: Any = None

        def read(tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch d_vocab"]:
            nonlocal past
            new = tokens if past is None else tokens[:, -1:]
            known: dict[str, Any] = {}
            if past is not None:  # on some machines transformers does not find them out by itself
                known["attention_mask"] = torch.ones_like(tokens)
                if takes_positions:
                    known["position_ids"] = torch.full_like(new, tokens.shape[1] - 1)
            logits, past = self._run(
                new, "logits_and_cache", use_cache=True, past_key_values=past, **known
            )
            return logits[:, -1].clone()

        return read
