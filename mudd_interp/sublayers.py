"""The wiring of models whose sublayers read and write one by one.

These have hyper-connections, attention residuals, or AltUp.

The writes are the embedding and what each sublayer wrote: no state is kept that contains what it
read, so W is composed, and the architecture's own basis is the delta basis.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mudd_interp import axes
from mudd_interp.axes import Stream
from mudd_interp.precision import wide
from mudd_interp.wiring import (
    Basis,
    Hook,
    Observer,
    Read,
    See,
    Tape,
    Weights,
    Wiring,
    Write,
    changed_weights,
)


class SublayerWiring(Wiring):
    """Reads of single sublayers' writes.

    An architecture says what reads and writes in which order, how W is composed (:meth:`composed`),
    and of what (:meth:`needs`).

    Rows are all inputs behind the first.

    Args:
        n_layers: Number of blocks.
        order: Every write and every read of a sublayer, in the order of depth: a read sees the
            writes before it.
        finals: What the head reads: it sees all. None where the head is no read of writes.
        streams: The inputs of a block that are read apart; then stream r is what is not normed.

    Attributes:
        n_layers: Number of blocks.
        sites: The reads of the sublayers, in the order of depth.
    """

    basis: Basis = "delta"

    def __init__(
        self,
        n_layers: int,
        order: Sequence[Write | Read],
        finals: Sequence[Read],
        streams: tuple[Stream, ...] = ("r",),
    ):
        self.n_layers, self.finals, self.streams = n_layers, tuple(finals), streams
        self.deltas = tuple(each for each in order if isinstance(each, Write))
        self.writes = self.sources = self.deltas
        self.sites = tuple(each for each in order if isinstance(each, Read))
        self.reads = (*self.sites, *self.finals)
        self.rows = self.inputs[1:]
        self._by_row = {(read.stream, read.row): read for read in self.inputs}
        first = [read for read in reversed(self.sites) if not read.label.startswith("mlp")]
        self._by_place = {(read.layer, read.stream): read for read in first}
        self._seen = dict.fromkeys(self.finals, len(self.sources))
        written = 0
        for each in order:
            if isinstance(each, Read):
                self._seen[each] = written
            else:
                written += 1

    @property
    def moving(self) -> tuple[str, ...]:
        """See :class:`Wiring`: all that W is composed of."""
        if self.gates == "static":
            return ()
        needed = dict.fromkeys(name for read in self.reads for name in self.needs(read))
        return tuple(name for name in needed if name != axes.EMBED)

    def read(self, layer: int, stream: Stream = "r") -> Read:
        """See :class:`Wiring`: what the first sublayer of a block reads.

        Raises:
            ValueError: If the head is meant, and it reads several streams, or none.
        """
        if layer < self.n_layers:
            return self._by_place.get((layer, stream)) or self._by_place[layer, "r"]
        if len(self.finals) == 1:
            return self.finals[0]
        if not self.finals:
            raise ValueError(f"{NO_FINAL}; give a block.")
        names = ", ".join(read.label for read in self.finals)
        raise ValueError(
            f"the head of this model reads {len(self.finals)} streams, each through a norm of its "
            f"own ({names}): there is no one final stream; give a block."
        )

    def row(self, stream: Stream, row: int) -> Read:
        """See :class:`Wiring`.

        Raises:
            ValueError: If a stream has no such row: only attention reads q, k and v.
        """
        stream = stream if len(self.streams) > 1 else "r"
        if (stream, row) not in self._by_row:
            there = ", ".join(str(read.row) for read in self.rows if read.stream == stream)
            raise ValueError(f"stream {stream} has no row {row}: it has {there or 'none'}.")
        return self._by_row[stream, row]

    def seen(self, read: Read) -> tuple[Write, ...]:
        """All that was written before."""
        return tuple(self.sources[j] for j in self.columns(read))

    def columns(self, read: Read) -> tuple[int, ...]:
        """All that were written before."""
        return tuple(range(self._seen[read]))

    def weighed(self, read: Read) -> bool:  # noqa: ARG002 (an architecture's)
        """Every row has weights of its own."""
        return True

    @abstractmethod
    def composed(self, reads: Sequence[Read], tape: Tape) -> Iterator[tuple[Read, Weights]]:
        """What reads take of each delta before them, from the first to the last.

        Each step looks up on the tape only what is there when the read is, so that a pass can be
        followed while it runs.

        Args:
            reads: In the order of depth.
            tape: What the pass leaves behind.
        """

    def deltas_of(self, reads: Sequence[Read], tape: Tape) -> Iterator[tuple[Read, Weights]]:
        """See :class:`Wiring`."""
        return self.composed(sorted(reads, key=self.reads.index), tape)

    def weights(self, read: Read, tape: Tape) -> Weights:
        """See :class:`Wiring`: the deltas are what is written."""
        return self.delta(read, tape)

    def vectors(self, read: Read, tape: Tape) -> Float[Tensor, "*token source _"]:
        """See :class:`Wiring`."""
        return self.delta_vectors(read, tape)

    def plain(self, read: Read) -> Float[Tensor, " source"]:
        """See :class:`Wiring`: one of each write."""
        return torch.ones(len(self.columns(read)))

    def written_in(self, source: int) -> tuple[int, ...]:
        """See :class:`Wiring`: each write is a source."""
        return (source,)

    def watch(self, read: Read, see: See) -> list[Hook]:
        """The weights when the read is there: composed of what the pass has left by then."""
        return _Followed(self, [read], lambda _, weights: see(weights)).hooks()

    def watch_rows(self, see: Callable[[Read, Tensor], object]) -> list[Hook]:
        """See :class:`Wiring`: all of them in one go."""
        return _Followed(self, self.rows, see).hooks()


class _Followed:
    """Composes W while a pass runs, and shows the weights of each read as it comes by."""

    def __init__(
        self,
        wiring: SublayerWiring,
        reads: Sequence[Read],
        see: Callable[[Read, Tensor], object],
    ):
        self._wiring, self._reads, self._see = wiring, reads, see
        self._tape: dict[str, Tensor] = {}
        self._coming: Iterator[tuple[Read, Weights]] = iter(())

    def hooks(self) -> list[Hook]:
        """Looks at what W is composed of, and at each read."""
        needed = dict.fromkeys(name for read in self._reads for name in self._wiring.needs(read))
        return [
            *((name, Observer(self._keep)) for name in needed),
            *((read.hook, Observer(partial(self._show, read))) for read in self._reads),
        ]

    def _keep(self, x: Tensor, hook: Any) -> None:
        if hook.name == axes.EMBED:  # a new pass
            self._tape.clear()
            self._coming = self._wiring.composed(self._reads, self._tape)
        self._tape[hook.name] = x.detach()

    def _show(self, read: Read, x: Tensor, hook: Any) -> None:  # noqa: ARG002 (a hook's signature)
        come, weights = next(self._coming)
        assert come is read
        changed = changed_weights(x)
        self._see(read, weights if changed is None else changed)


def embedding_only(tape: Tape) -> Float[Tensor, "*token 1 1"]:
    """A row that is the embedding and nothing else, at each token of a tape."""
    return torch.ones_like(wide(tape[axes.EMBED])[..., :1, None])


NO_FINAL = (
    "the head of this model is no read of what its sublayers wrote (between the streams and the "
    "final norm are matrices and magnitudes), so no final stream can be divided among them"
)
"""Why there is nothing to say of the head, where it is no read."""


def alternating(n_layers: int, streams: tuple[Stream, ...] = ("r",)) -> list[Write | Read]:
    """The embedding, then of each block what attention reads and writes, and what the FFN does."""
    order: list[Write | Read] = [Write("embed", axes.EMBED)]
    for layer in range(n_layers):
        order += (
            *attention_reads(layer, 2 * layer - 1, streams),
            Write(f"attn.{layer}", axes.attn_out(layer)),
            ffn_read(layer, 2 * layer),
            Write(f"mlp.{layer}", axes.mlp_out(layer)),
        )
    return order


def attention_reads(layer: int, row: int, streams: tuple[Stream, ...]) -> Iterator[Read]:
    """What the attention of a block reads, in the order in which the block asks for it."""
    if layer == 0 or len(streams) == 1:
        yield attention_read(layer, row)
        return
    yield Read(f"resid.{layer}", axes.resid_pre(layer), None, layer, "r", row)
    for stream in streams:
        if stream != "r":
            hook, norm = axes.stream_input(layer, stream), axes.norm_scale(layer, f"ln1_{stream}")
            yield Read(f"attn.{layer}.{stream}", hook, norm, layer, stream, row)


def attention_read(layer: int, row: int) -> Read:
    """What the attention of a block reads."""
    hook, norm = axes.resid_pre(layer), axes.norm_scale(layer, "ln1")
    return Read(f"attn.{layer}", hook, norm, layer, "r", row)


def ffn_read(layer: int, row: int) -> Read:
    """What the FFN of a block reads."""
    hook, norm = axes.block(layer, "hook_resid_mid"), axes.norm_scale(layer, "ln2")
    return Read(f"mlp.{layer}", hook, norm, layer, "r", row)


def final_reads(n_layers: int, count: int = 1) -> list[Read]:
    """What the head reads behind attention and FFN of each block; one stream, or several."""
    row = 2 * n_layers - 1
    if count == 1:
        return [Read("final", axes.RESID_FINAL, axes.FINAL_SCALE, n_layers, "r", row)]
    return [
        Read(
            f"final.{each}",
            axes.final_row(each),
            axes.final_row_scale(each),
            n_layers,
            "r",
            row + each,
        )
        for each in range(count)
    ]
