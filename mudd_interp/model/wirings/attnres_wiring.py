"""W of attention residuals, composed of the weights of candidates and of what these are sums of."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mudd_interp import axes
from mudd_interp.axes import Stream
from mudd_interp.model.wirings.candidates import Candidates
from mudd_interp.precision import wide
from mudd_interp.sublayers import SublayerWiring, alternating, embedding_only, final_reads
from mudd_interp.wiring import Gates, Read, Rows, Tape, Weights

Row = Float[Tensor, " write"]


class _Held(NamedTuple):
    """What a sublayer, or the head, may take of each write, the same at every token."""

    candidates: list[Row]
    state: Row
    joined: Row


class AttnResWiring(SublayerWiring):
    """W is no tensor of the model: it is composed of alpha, which is hooked.

    What is in one candidate has one weight.

    Args:
        n_layers: Number of blocks.
        begin: The candidates of a pass that begins with an embedding.
        residual: Whether the running state is added to what the softmax makes.
        softmax_head: Whether the head reads by a softmax; else all writes.
        streams: The inputs of a block that are read apart.
    """

    gates: Gates = "source"

    def __init__(
        self,
        n_layers: int,
        *,
        begin: Callable[[Tensor], Candidates],
        residual: bool,
        softmax_head: bool,
        streams: tuple[Stream, ...],
    ):
        order, finals = alternating(n_layers, streams), final_reads(n_layers)
        super().__init__(n_layers, order, finals, streams)
        self.residual, self.softmax_head = residual, softmax_head
        self._held = list(_schedule(begin, 2 * n_layers))

    def n_candidates(self, sublayer: int) -> int:
        """How many candidates a sublayer reads; behind the last one, the head."""
        return len(self._held[sublayer].candidates)

    def candidates(self, read: Read) -> Float[Tensor, "candidate write"]:
        """The candidates of a read as rows: how much of each write is in each of them.

        These are whole numbers. A read that takes the running state only has none.
        """
        k = self._number(read)
        if self._alpha(read) is None:
            return torch.zeros(0, k + 1)
        return torch.stack(self._held[k].candidates)[:, : k + 1]

    def needs(self, read: Read) -> tuple[str, ...]:
        """X_0, for its shape, and alpha."""
        alpha = self._alpha(read)
        return (axes.EMBED,) if alpha is None else (axes.EMBED, alpha)

    @property
    def depths(self) -> Mapping[int, tuple[str, ...]]:
        """See :class:`Wiring`: the candidates, of which the head makes what it would read."""
        before = {
            layer: (
                axes.attnres(2 * layer, "hook_candidates")
                if self.n_candidates(2 * layer)
                else axes.EMBED,
            )
            for layer in range(self.n_layers)
        }
        return before | {self.n_layers: (self.finals[0].hook,)}

    def static(self, read: Read) -> Float[Tensor, " source"] | None:
        """See :class:`Wiring`: the running state, where it is added or all that is read."""
        return self._fixed(read)

    def composed(self, reads: Sequence[Read], tape: Tape) -> Iterator[tuple[Read, Weights]]:
        """See :class:`SublayerWiring`."""
        for read in reads:
            yield read, self._composed(read, tape)

    def _composed(self, read: Read, tape: Tape) -> Weights:
        hook, fixed = self._alpha(read), self._fixed(read)
        if hook is None:
            assert fixed is not None
            return embedding_only(tape)[..., 0] * fixed.to(tape[axes.EMBED].device)
        alpha = wide(tape[hook])
        rows = Rows([row[:, None].to(alpha) for row in self.candidates(read)])
        found = rows.read(alpha[..., None])[..., 0]
        return found if fixed is None else found + fixed.to(alpha)

    def _fixed(self, read: Read) -> Row | None:
        """What a read takes besides its candidates; ``None`` if nothing."""
        k = self._number(read)
        held = self._held[k]
        if read.norm_hook is None:
            return held.joined[: k + 1]
        return held.state[: k + 1] if self.residual or self._alpha(read) is None else None

    def _alpha(self, read: Read) -> str | None:
        """The hook on the weights of candidates; ``None`` for a read that has none."""
        k = self._number(read)
        if read in self.finals:
            return f"{axes.ATTNRES_HEAD}.hook_alpha" if self.softmax_head else None
        if read.norm_hook is None or not self.n_candidates(k):
            return None
        if read.stream == "v":
            return axes.attnres_values(read.layer)
        return axes.attnres(k, "hook_alpha")

    @staticmethod
    def _number(read: Read) -> int:
        """How many sublayers have written before a read."""
        return read.row + 1


def _schedule(begin: Callable[[Tensor], Candidates], n_sublayers: int) -> Iterator[_Held]:
    """What every sublayer and the head may take, from writes that are one each."""
    writes = torch.eye(n_sublayers + 1, device="cpu")
    held = begin(writes[0])
    for write in writes[1:]:
        yield _Held(held.now(), held.state, held.joined)
        held.write(write)
    yield _Held(held.now(), held.state, held.joined)
