"""Which precisions there are, and the least in which numbers are computed."""

import torch
from jaxtyping import Float
from torch import Tensor

FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def float_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """A precision from itself or its name, such as ``"bfloat16"``; ``None`` stays ``None``.

    Raises:
        ValueError: If it is none of :data:`FLOAT_DTYPES`.
    """
    known = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype is not None and known not in FLOAT_DTYPES:
        names = ", ".join(map(str, FLOAT_DTYPES))
        raise ValueError(f"dtype must be one of {names}, got {dtype!r}.")
    return known


def wide(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """``x`` in at least float32, where norms, softmax and sums are computed."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
