"""Arguments of TransformerLens' methods that mean nothing here: each is refused in words."""

from collections.abc import Iterable, Mapping

from mudd_interp.axes import unknown_name

PADDING = "batches are never padded"
TEXT_ONLY = "the models read text only"
TWO_STACKS = "it is for encoder-decoder models"

GENERATE: dict[str, str] = {
    "padding_side": PADDING,
    "attention_mask": f"{PADDING}, so every token of a prompt counts",
    "pixel_values": TEXT_ONLY,
    "forced_bos_token_id": TWO_STACKS,
}
"""Of ``generate`` and ``generate_stream``, each with the reason."""

FORWARD: dict[str, str] = {
    "padding_side": PADDING,
    "attention_mask": f"{PADDING}; loss_fn takes one, for logits that you mask yourself",
    "position_ids": "positions are counted from the start of the sequence",
    "labels": "the loss is that of the tokens that are read; for others take the logits, and "
    "model.loss_fn(logits, tokens)",
    "tokens": "take the logits, and model.loss_fn(logits, tokens)",
    "shortformer_pos_embed": "positions are rotated in here, or part of X_0",
    "input_ids": "token ids are the first argument, `input`",
    "inputs_embeds": "give them as `input`, with start_at_layer=0",
    "past_key_values": "keys and values are kept by generate, and by model.new_kv_cache for "
    "`past_kv_cache` of a HookedMUDDTransformer",
    "use_cache": "generate keeps keys and values",
    "use_past_kv_cache": "generate keeps keys and values",
    "output_attentions": "run_with_cache keeps them, cache['pattern', layer]",
    "output_hidden_states": "run_with_cache keeps them, cache['resid_post', layer]",
    "return_dict": "return_type says what is returned",
    "pixel_values": TEXT_ONLY,
    "input_values": TEXT_ONLY,
    "decoder_input": TWO_STACKS,
    "decoder_input_ids": TWO_STACKS,
    "one_zero_attention_mask": PADDING,
    "token_type_ids": TWO_STACKS,
}
"""Of ``forward``, each with the reason or what to use instead."""

TOKENS: dict[str, str] = {"padding_side": PADDING, "default_padding_side": PADDING}
"""Of the methods between text and tokens, each with the reason."""

FORWARD_TAKES = ("return_type", "loss_per_token", "prepend_bos", "start_at_layer", "stop_at_layer")
GENERATE_TAKES = ("max_new_tokens", "do_sample", "temperature", "return_type")


def refuse(
    method: str, reasons: Mapping[str, str], taken: Iterable[str], given: Mapping[str, object]
) -> None:
    """Refuse arguments that mean nothing here, and those that do not exist.

    An argument that is ``None`` or ``False`` asks for nothing, and passes.

    Args:
        method: Whose arguments they are.
        reasons: Those that mean nothing, each with the reason.
        taken: Some that it does take, to name the nearest.
        given: What came.

    Raises:
        ValueError: If one is given, with the reason or the nearest name.
    """
    for name, value in given.items():
        if name not in reasons:
            known = (*taken, *reasons)
            raise ValueError(f"{method}: {unknown_name('argument', name, known)}")
        if value is not None and value is not False:
            raise ValueError(f"{method} takes no {name} here ({reasons[name]}): leave it out.")


def check_return_type(return_type: object) -> None:
    """Refuse what :meth:`forward` cannot return."""
    if return_type not in ("logits", "loss", "both", None):
        raise ValueError(
            f"return_type must be 'logits', 'loss', 'both' or None, got {return_type!r}."
        )
