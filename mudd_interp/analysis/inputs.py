"""What is refused before a model sees it: training mode, and anything but a batch or sequence."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Int64
from torch import Tensor

from mudd_interp.data import TokenBatches
from mudd_interp.ids import id_tensor
from mudd_interp.protocol import HookedModel


def require_evaluation(model: HookedModel) -> None:
    """Refuse a model in training mode.

    Raises:
        ValueError: With what to do.
    """
    if getattr(model, "training", False):
        raise ValueError("the model is in training mode: call model.eval() first.")


def checked(batches: TokenBatches, model: HookedModel) -> Iterable[Int64[Tensor, "batch pos"]]:
    """The batches, each checked before a model sees it.

    Raises:
        ValueError: While walking: if one is not a batch ``[batch pos]`` of ids, or is padded.
    """
    if isinstance(batches, Tensor | np.ndarray | str):
        raise ValueError(
            f"expected an iterable of batches, got a {type(batches).__name__}: wrap a tensor as "
            "[tokens], and turn text into batches with mudd_interp.data."
        )
    for given in batches:
        tokens = token_batch(given)
        _check_padding(tokens, model.tokenizer)
        yield tokens


def token_batch(given: Any) -> Int64[Tensor, "batch pos"]:
    """A batch of token ids, in any form that :func:`mudd_interp.ids.id_tensor` takes.

    Raises:
        ValueError: If it is not one, with what was expected and what came.
    """
    tokens = id_tensor(given)
    if tokens.ndim != 2 or tokens.numel() == 0:
        kind = "int64" if isinstance(given, Tensor) else f"a {type(given).__name__}"
        least = " with at least one token" if not tokens.numel() else ""
        raise ValueError(
            f"expected batches that are int64 tensors [batch pos]{least}, got {kind} of shape "
            f"{list(tokens.shape)}."
        )
    return tokens


def one_sequence(tokens: Any) -> Int64[Tensor, "1 pos"]:
    """One sequence, given as ``[pos]`` or ``[1 pos]``, as a batch of one.

    Raises:
        ValueError: If it is anything else.
    """
    ids = tokens if isinstance(tokens, Tensor) else id_tensor(tokens)
    batch = token_batch(ids[None] if ids.ndim == 1 else ids)
    if len(batch) != 1:
        raise ValueError(f"expected one sequence, got {len(batch)}: run them one by one.")
    return batch


def _check_padding(tokens: Int64[Tensor, "batch pos"], tokenizer: Any) -> None:
    """Refuse padding: a pad token, or, if it also separates texts, a pair of them at an end."""
    pad = getattr(tokenizer, "pad_token_id", None)
    if pad is None or tokens.shape[1] < 2:
        return
    is_pad = tokens == pad
    if pad in (tokenizer.eos_token_id, tokenizer.bos_token_id):
        is_pad = is_pad[:, :-1] & is_pad[:, 1:]
        is_pad = is_pad[:, [0, -1]]
    if is_pad.any():
        raise ValueError(
            f"a batch is padded (token id {pad} is {tokenizer.pad_token!r}): every position "
            "counts, so pack the texts with mudd_interp.data, or run them one by one."
        )


def check_position(position: int, positions: int) -> None:
    """Refuse a position that a sequence does not have.

    Raises:
        ValueError: With the range of its positions.
    """
    if not 0 <= position < positions:
        raise ValueError(f"position must lie in 0..{positions - 1}, got {position}.")
