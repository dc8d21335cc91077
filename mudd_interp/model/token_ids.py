"""Token ids as models take them: their shape, and the vocabulary that they are of."""

from typing import Any

from jaxtyping import Int, Int64
from torch import Tensor

from mudd_interp.ids import id_tensor


def check_tokens(tokens: Int[Tensor, "..."], seen: int, n_ctx: int, d_vocab: int) -> None:
    """Refuse ids that a model cannot read.

    Args:
        tokens: What is to be run.
        seen: Positions that came before, when decoding.
        n_ctx: The model's context, in tokens.
        d_vocab: Its vocabulary: ids are 0 to ``d_vocab - 1``.

    Raises:
        ValueError: If there are no tokens, too many, or ids outside the vocabulary.
    """
    if tokens.ndim != 2 or tokens.numel() == 0:
        raise ValueError(
            "expected token ids of shape [batch pos] with at least one token, got shape "
            f"{list(tokens.shape)}: the prompt is empty or has an axis too many."
        )
    if seen + tokens.shape[1] > n_ctx:
        raise ValueError(
            f"{seen + tokens.shape[1]} tokens do not fit the context of {n_ctx}: shorten the "
            "prompt, or cut it into batches with mudd_interp.data."
        )
    check_vocabulary(tokens, d_vocab)


def check_vocabulary(ids: Int[Tensor, "..."], d_vocab: int) -> None:
    """Refuse ids outside the vocabulary.

    Raises:
        ValueError: With one of them.
    """
    if not ids.numel():
        return
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= d_vocab:
        raise ValueError(
            f"token id {low if low < 0 else high} is outside the vocabulary of {d_vocab} (ids 0 "
            f"to {d_vocab - 1}): was the text encoded with another model's tokenizer?"
        )


def is_text(given: object) -> bool:
    """Whether a text or texts are given, and not ids."""
    return isinstance(given, str) or (
        isinstance(given, list | tuple) and any(isinstance(each, str) for each in given)
    )


def as_batch(tokens: object) -> Int64[Tensor, "batch pos"]:
    """Ids ``[batch pos]``, of whatever form; ``[pos]`` is a row, and an id one of one token.

    Raises:
        ValueError: If they are no ids, or have more axes.
    """
    ids = id_tensor(tokens)
    if ids.ndim > 2:
        raise ValueError(f"expected token ids of shape [batch pos], got {list(ids.shape)}.")
    return ids.reshape(1, -1) if ids.ndim < 2 else ids


def padded_with(tokens: Int64[Tensor, "batch pos"], tokenizer: Any) -> int | None:
    """The pad token that ids hold, ``None`` for none.

    Where that token also begins or ends texts, only a pair of them at an end is padding.
    """
    pad = getattr(tokenizer, "pad_token_id", None)
    if pad is None or tokens.shape[1] < 2:
        return None
    is_pad = tokens == pad
    if pad in (tokenizer.eos_token_id, tokenizer.bos_token_id):
        is_pad = is_pad[:, :-1] & is_pad[:, 1:]
        is_pad = is_pad[:, [0, -1]]
    return pad if is_pad.any() else None
