"""The wiring of models whose sublayers read and write one by one.

These have hyper-connections, or attention residuals.

The writes are the embedding and what each attention and FFN wrote: no state is kept that contains
what it read, so W is composed, and the architecture's own basis is the delta basis.
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

    An architecture says how W is composed (:meth:`composed`), and of what (:meth:`needs`).

    Rows are all inputs behind the first, in which there is one source only.

    Args:
        n_layers: Number of blocks.
        finals: How many streams the head norms.
        streams: The inputs of a block that are read apart; then stream r is what is not normed.

    Attributes:
        n_layers: Number of blocks.
        sites: The reads of the sublayers: attention and FFN of each block in turn.
    """

    basis: Basis = "delta"

    def __init__(self, n_layers: int, finals: int = 1, streams: tuple[Stream, ...] = ("r",)):
        self.n_layers, self.streams = n_layers, streams
        wrote = (axes.attn_out, axes.mlp_out)
        self.deltas = (
            Write("embed", axes.EMBED),
            *(Write(_site(k), wrote[k % 2](k // 2)) for k in range(2 * n_layers)),
        )
        self.writes = self.sources = self.deltas
        self.sites = tuple(read for k in range(2 * n_layers) for read in _reads(k, streams))
        self.finals: tuple[Read, ...] = (
            (Read("final", axes.RESID_FINAL, axes.FINAL_SCALE, n_layers, "r", 2 * n_layers - 1),)
            if finals == 1
            else tuple(_final(each, n_layers) for each in range(finals))
        )
        self.reads = (*self.sites, *self.finals)
        self.rows = self.inputs[1:]
        self._by_row = {(read.stream, read.row): read for read in self.inputs}
        self._by_place = {
            (r.layer, r.stream): r for r in self.sites if not r.label.startswith("mlp")
        }

    @property
    def moving(self) -> tuple[str, ...]:
        """See :class:`Wiring`: all that W is composed of."""
        if self.gates == "static":
            return ()
        needed = dict.fromkeys(name for read in self.reads for name in self.needs(read))
        return tuple(name for name in needed if name != axes.EMBED)

    def read(self, layer: int, stream: Stream = "r") -> Read:
        """See :class:`Wiring`: what the attention of a block reads.

        Raises:
            ValueError: If the head reads several streams, which are meant.
        """
        if layer < self.n_layers:
            return self._by_place.get((layer, stream)) or self._by_place[layer, "r"]
        only, *others = self.finals
        if others:
            names = ", ".join(read.label for read in self.finals)
            raise ValueError(
                f"the head of this model reads {len(self.finals)} streams, each through a norm of "
                f"its own ({names}): there is no one final stream; give a block."
            )
        return only

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
        return tuple(range(min(read.row + 2, len(self.sources))))

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


def _site(k: int) -> str:
    return f"{'mlp' if k % 2 else 'attn'}.{k // 2}"


def _reads(k: int, streams: tuple[Stream, ...]) -> Iterator[Read]:
    """What a sublayer reads, in the order in which a block asks for it."""
    layer, label, scale = k // 2, _site(k), axes.norm_scale
    if k % 2:
        hook = axes.block(layer, "hook_resid_mid")
        yield Read(label, hook, scale(layer, "ln2"), layer, "r", k - 1)
    elif layer == 0 or len(streams) == 1:
        yield Read(label, axes.resid_pre(layer), scale(layer, "ln1"), layer, "r", k - 1)
    else:
        yield Read(f"resid.{layer}", axes.resid_pre(layer), None, layer, "r", k - 1)
        for stream in streams:
            if stream != "r":
                hook, norm = axes.stream_input(layer, stream), scale(layer, f"ln1_{stream}")
                yield Read(f"{label}.{stream}", hook, norm, layer, stream, k - 1)


def _final(each: int, n_layers: int) -> Read:
    hook, norm = axes.final_row(each), axes.final_row_scale(each)
    return Read(f"final.{each}", hook, norm, n_layers, "r", 2 * n_layers - 1 + each)
