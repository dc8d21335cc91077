"""The states of a forward pass, stacked for the mix."""

import torch
from jaxtyping import Float
from torch import Tensor


class StateStack:
    """The outputs X_0, X_1, ... of a forward pass, stacked.

    Without gradients they fill one preallocated buffer in place, so nothing is copied twice; with
    gradients each mix stacks them anew, since backward needs them as they were.
    """

    def __init__(self, capacity: int):
        self._capacity = capacity
        self._outputs: list[Float[Tensor, "batch pos d_model"]] = []
        self._buffer: Float[Tensor, "batch pos capacity d_model"] | None = None

    def __len__(self) -> int:
        """How many there are."""
        return len(self._outputs)

    def append(self, x: Float[Tensor, "batch pos d_model"]) -> None:
        """Add the next one."""
        if torch.is_grad_enabled():
            self._outputs.append(x)
            return
        if self._buffer is None:
            batch, pos, d_model = x.shape
            self._buffer = x.new_empty(batch, pos, self._capacity, d_model)
        self._buffer[:, :, len(self._outputs)] = x
        self._outputs.append(self._buffer[:, :, len(self._outputs)])

    def stacked(self) -> Float[Tensor, "batch pos source d_model"]:
        """All so far."""
        if self._buffer is not None:
            return self._buffer[:, :, : len(self._outputs)]
        return torch.stack(self._outputs, dim=2)
