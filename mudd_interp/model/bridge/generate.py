"""Decoding with a bridged model."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.utilities.position_ids import accepts_mask_derived_position_ids

from mudd_interp.model.decoding import Reader


def reader_of(bridge: Any, run: Callable[..., Any], use_past_kv_cache: bool) -> Reader:
    """What reads tokens with a bridge, with the keys and values that its Hugging Face model keeps.

    Args:
        bridge: The TransformerBridge.
        run: Calls it.
        use_past_kv_cache: Keep keys and values, if the architecture can.

    Raises:
        ValueError: If the model does not write text from left to right.
    """
    if not bridge.adapter.supports_generation:
        raise ValueError(f"{bridge.cfg.architecture} does not write text from left to right.")
    if not (use_past_kv_cache and bridge.adapter.supports_kv_cache):
        return lambda tokens: run(tokens)[:, -1].clone()
    takes_positions = accepts_mask_derived_position_ids(bridge.original_model)
    past: Any = None

    def read(tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch d_vocab"]:
        nonlocal past
        new = tokens if past is None else tokens[:, -1:]
        known: dict[str, Any] = {}
        if past is not None:  # on some machines transformers does not find them out by itself
            known["attention_mask"] = torch.ones_like(tokens)
            if takes_positions:
                known["position_ids"] = torch.full_like(new, tokens.shape[1] - 1)
        logits, past = run(new, "logits_and_cache", use_cache=True, past_key_values=past, **known)
        return logits[:, -1].clone()

    return read
