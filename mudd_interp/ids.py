"""Token ids, whatever form they come in, as an int64 tensor."""

from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from mudd_interp.values import plain_ids


def id_tensor(given: Any, what: str = "token ids") -> Int64[Tensor, "..."]:
    """Ids as an int64 tensor of the same shape, on the same device; int64 is not copied.

    Args:
        given: A tensor or NumPy array of any integer type, an integer, or (nested) lists or tuples
            of them.
        what: What they are, for the message.

    Raises:
        ValueError: If they are not integers (booleans are not), rows differ in length, or one does
            not fit int64.
    """
    if not isinstance(given, Tensor) or given.dtype == torch.uint64:
        ids = _of_lists(plain_ids(given, what), what)
        return ids.to(given.device) if isinstance(given, Tensor) else ids
    if given.dtype == torch.bool or given.is_floating_point() or given.is_complex():
        raise ValueError(
            f"{what} must be integers, got {str(given.dtype).removeprefix('torch.')} of shape "
            f"{list(given.shape)}: convert them with .long() if they are ids."
        )
    return given.to(torch.int64)  # int64 as it is


def _of_lists(ids: Any, what: str) -> Int64[Tensor, "..."]:
    try:
        return torch.tensor(ids, dtype=torch.int64)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{what} must be a number, a list, or lists of one length: these differ in length "
            "or depth. Batches are never padded."
        ) from error
