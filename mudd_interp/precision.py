"""The least precision in which numbers are computed."""

import torch
from jaxtyping import Float
from torch import Tensor


def wide(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """``x`` in at least float32, where norms, softmax and sums are computed."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
