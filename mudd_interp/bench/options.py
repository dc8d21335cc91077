"""How a bench measures."""

from dataclasses import dataclass

import torch

from mudd_interp.bench.sizes import Size


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to measure.

    Attributes:
        size: How large the models are.
        size_name: The name of that size.
        device: Where the models are.
        dtype: Their precision.
        repeats: How often each function runs, after one run to warm up.
    """

    size: Size
    size_name: str
    device: torch.device
    dtype: torch.dtype
    repeats: int

    @property
    def dtype_name(self) -> str:
        """``"float32"`` for ``torch.float32``."""
        return str(self.dtype).removeprefix("torch.")
