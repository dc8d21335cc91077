"""What the softmax of attention residuals is over: sums of writes, as they grow with depth.

Each kind works on whatever can be added: the tensors of a pass, or rows of W. So what a pass mixes
and what W is composed of is one schedule.
"""

from abc import ABC, abstractmethod
from typing import Literal

from jaxtyping import Float
from torch import Tensor

Embedding = Literal["block", "both", "none"]

Sum = Float[Tensor, "..."]
"""A sum of writes: ``[batch pos d_model]`` in a pass, or a row of W ``[write]``."""


class Candidates(ABC):
    """Sums of writes.

    Args:
        embedding: The first write.
        block_size: Sublayers from one snapshot to the next.
        residual: Whether the running state is added to what the softmax makes.

    Attributes:
        state: The running state: the sum of all writes.
    """

    def __init__(self, embedding: Sum, block_size: int, residual: bool):
        self.state = embedding
        self._block_size, self._residual = block_size, residual
        self._written = 0

    def now(self) -> list[Sum]:
        """The candidates of the next read, the newest last.

        None where the running state is added and holds nothing but the embedding.
        """
        return [] if self._residual and not self._written else self._so_far()

    @property
    def joined(self) -> Sum:
        """What the next write is added to, unless it begins a block."""
        return self.state

    @joined.setter
    def joined(self, changed: Sum) -> None:
        self.state = changed

    def write(self, y: Sum) -> None:
        """What a sublayer wrote, after its read."""
        self._before(y, self._written % self._block_size == 0)
        self.state = self.state + y
        self._written += 1

    @abstractmethod
    def _so_far(self) -> list[Sum]:
        """The candidates."""

    @abstractmethod
    def _before(self, y: Sum, opens: bool) -> None:
        """Take a write into account that is not in the state yet, and may open a block."""


class Sums(Candidates):
    """Sums of whole blocks, and of what the present one has written so far (Kimi).

    Args:
        embedding: The first write.
        block_size: See :class:`Candidates`.
        residual: See :class:`Candidates`.
        begins: Whether the embedding is a block, and part of the first block of sublayers too, or
            in no candidate.
    """

    def __init__(self, embedding: Sum, block_size: int, residual: bool, begins: Embedding):
        super().__init__(embedding, block_size, residual)
        self._whole = [embedding] if begins == "both" else []
        self._open = None if begins == "none" else embedding
        self._runs_on = begins == "both"

    def _so_far(self) -> list[Sum]:
        return self._whole if self._open is None else [*self._whole, self._open]

    @property
    def joined(self) -> Sum:
        """See :class:`Candidates`: the block that is open, unless a running state is added."""
        if self._residual:
            return self.state
        assert self._open is not None
        return self._open

    @joined.setter
    def joined(self, changed: Sum) -> None:
        if self._residual:
            self.state = changed
        else:
            self.state = self.state + (changed - self.joined)
            self._open = changed

    def _before(self, y: Sum, opens: bool) -> None:
        if opens and not self._runs_on and self._open is not None:
            self._whole, self._open = [*self._whole, self._open], None
        self._open = y if self._open is None else self._open + y
        self._runs_on = False


class States(Candidates):
    """Running states, of which each holds those before it, and the present one.

    After every whole block the newest snapshot is the present state, so both are there twice, as in
    open-attention-residuals.
    """

    def __init__(self, embedding: Sum, block_size: int, residual: bool):
        super().__init__(embedding, block_size, residual)
        self._kept: list[Sum] = []

    def _so_far(self) -> list[Sum]:
        newest = [self.state] if self._written % self._block_size == 0 else []
        return [*self._kept, *newest, self.state]

    def _before(self, y: Sum, opens: bool) -> None:  # noqa: ARG002 (an abstract method's)
        if opens:
            self._kept = [*self._kept, self.state]


class Differences(Candidates):
    """From each snapshot the *entry* before it is taken away, not the state before it.

    So entries overlap from the third on, as in the code of Delta Attention Residuals. What the
    present block has written is in none.
    """

    def __init__(self, embedding: Sum, block_size: int, residual: bool):
        super().__init__(embedding, block_size, residual)
        self._entries: list[Sum] = []

    def _so_far(self) -> list[Sum]:
        return self._entries

    def _before(self, y: Sum, opens: bool) -> None:  # noqa: ARG002 (an abstract method's)
        if opens:
            last = self._entries[-1:]
            entry = self.state - last[0] if last else self.state
            self._entries = [*self._entries, entry]
