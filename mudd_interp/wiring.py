"""The wiring of a model: how much of each earlier write each of its reads takes, at each token.

A Transformer is a list of writes and a list of reads. A write is a tensor that something put down:
the embedding, what an attention or an FFN wrote, or a block's whole output. A read is an input of
something: query, key, value, residual or FFN input of a block, or what the final norm is given::

    read = sum_j W[read, j] * write_j

exactly, before the reader's own norm and after any norm of the writer. A wiring says what W is. It
never runs a model: it reads a tape, which a forward pass left behind.

Numbering
    ``X_0`` is the embedding and ``X_j`` the output of block ``j - 1``. Row ``i`` of W (aggregation
    ``i``, which follows block ``i``) feeds block ``i + 1``, and the last row the final norm; it
    sees ``X_0..X_{i+1}``. Where sublayers read and write one by one, the same holds of them: row
    ``i`` follows sublayer ``i`` and sees the embedding and what sublayers ``0..i`` wrote. Only this
    module counts so.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from mudd_interp.axes import Stream

Hook = tuple[str | Callable[[str], bool], Callable[..., Any]]
"""A hook name (or a predicate on names) and a function ``fn(tensor, hook) -> tensor | None``."""

Basis = Literal["state", "delta"]
"""Whether writes are running states, which contain what they read, or what one sublayer wrote."""

Gates = Literal["static", "source", "destination"]
"""On what the weights depend: on no token, on what is read, or on what reads."""

Trait = Literal["states", "numbers", "moving", "streams", "mixing"]
"""What not every wiring is: what each block puts out is a state X_j, which the next ones read; what
a read takes of a write is a number; tokens change it; the residual is several streams; and these
are mixed.
"""

Weights = Float[Tensor, "..."]
"""``[*token write]``; or ``[*token write d_model]`` where a norm makes a vector of each weight."""

Change = Callable[[Tensor], Tensor]
"""What becomes of the weights of a read: a new tensor of the same shape."""

See = Callable[[Tensor], object]
"""Looks at the weights of a read; what it returns is not used."""


@runtime_checkable
class Tape(Protocol):
    """What a pass left behind: a cache, or tensors by the names of their hooks."""

    def __getitem__(self, name: str, /) -> Tensor:
        """The tensor that a hook showed, ``[*token width]``."""
        ...


class Observer:
    """A hook that only looks: models need not guard a tensor against it.

    Args:
        look: Called with the tensor and the hook point; what it returns is not used.
    """

    def __init__(self, look: Callable[[Tensor, Any], object]):
        self.look = look

    def __call__(self, tensor: Tensor, hook: Any) -> None:
        """Look at the tensor."""
        self.look(tensor, hook)


class Changed:
    """A hook that puts changed weights in the place of those that a read is weighed with."""

    def __init__(self, change: Change):
        self.change = change

    def __call__(self, weights: Tensor, hook: Any) -> Tensor:  # noqa: ARG002 (a hook's signature)
        """The changed weights."""
        return self.change(weights)


@dataclass(frozen=True)
class Write:
    """A tensor that something put down.

    Attributes:
        label: ``"X_3"`` of a state; ``"embed"``, ``"attn.3"`` or ``"mlp.3"`` of a delta.
        hook: Where it is seen, ``[batch pos d_model]``.
    """

    label: str
    hook: str


@dataclass(frozen=True)
class Read:
    """An input of something.

    Attributes:
        label: ``"attn.3"``, or where streams differ ``"attn.3.q"`` and so on; ``"resid.3"``, the
            residual stream where nothing norms it; ``"mlp.3"``; ``"ple.3"``, what gates a layer's
            own embedding; ``"final"``.
        hook: Where it is seen, ``[batch pos d_model]``.
        norm_hook: The scale of the norm that it is put through; ``None`` where there is none.
        layer: The block that reads, or the number of blocks for the final norm.
        stream: Which of a block's input streams it is.
        row: The row of W that feeds it, as tables and edits count; -1 where X_0 is all there is.
    """

    label: str
    hook: str
    norm_hook: str | None
    layer: int
    stream: Stream
    row: int

    def __str__(self) -> str:
        """In words: ``V of block 9``."""
        if self.label == "final":
            return "the final norm"
        what = _READERS.get(self.label.partition(".")[0], self.stream.upper())
        return f"{what} of block {self.layer}"


_READERS = {"mlp": "FFN", "ple": "per-layer embedding"}
"""What reads, where it is not one of the streams of attention."""


def newest_source(row: int) -> int:
    """The newest X_j that a row sees: the output of the block that it follows."""
    return row + 1


class Wiring(ABC):
    """How much of each write each read of one model takes.

    Weights and coefficients are dimensionless, signed and unbounded, ``[*token write]`` in at least
    float32; or ``[*token write d_model]`` where a norm with frozen scale stands between write and
    read: then :attr:`between` names it.

    Attributes:
        reads: In the order of depth.
        writes: What the weights multiply, in an architecture's own terms.
        sources: The writes that tables of weights have a column for, in the order of depth.
        finals: What the head reads: one, or one for each of several streams that it norms.
        rows: The reads that they have a row for, by layer and stream; edges lie between the two.
        streams: The distinct streams of the rows, in q k v r order: all four, or r alone.
        deltas: What each sublayer wrote, in the order of depth: ``embed``, ``attn.0``, ``mlp.0``...
        basis: What the writes are.
        gates: On what the weights depend.
        between: The norm that makes a vector of each weight, or ``None``.
    """

    reads: tuple[Read, ...]
    finals: tuple[Read, ...]
    writes: tuple[Write, ...]
    sources: tuple[Write, ...]
    rows: tuple[Read, ...]
    streams: tuple[Stream, ...]
    deltas: tuple[Write, ...]
    basis: Basis
    gates: Gates
    between: str | None = None

    @property
    def traits(self) -> frozenset[Trait]:
        """What it is, of what not every wiring is."""
        found = set[Trait]()
        if self.between is None:
            found.add("numbers")
        if self.mixed:
            found.add("mixing")
        if self.moving:
            found.add("moving")
        return frozenset(found)

    @property
    def mixed(self) -> Mapping[str, str]:
        """The hook on T of each sublayer, by its label, where the residual is several streams."""
        return {}

    @property
    def inputs(self) -> tuple[Read, ...]:
        """The reads of something that computes: of each attention and FFN, and of the head."""
        return tuple(read for read in self.reads if read.norm_hook is not None)

    @property
    def n_rows(self) -> int:
        """How many rows a stream has at most."""
        return 1 + max(read.row for read in self.rows)

    @property
    @abstractmethod
    def depths(self) -> Mapping[int, tuple[str, ...]]:
        """The hooks on what the head would read if the model ended before a block, by its number.

        Several are streams of one head. The number of blocks stands for the whole model.
        """

    def at(self, label: str) -> Read:
        """A read by its label.

        Raises:
            ValueError: If there is none, with those that there are.
        """
        found = {read.label: read for read in self.reads}
        if label not in found:
            raise ValueError(f"there is no read {label!r}: there are {', '.join(found)}.")
        return found[label]

    @abstractmethod
    def read(self, layer: int, stream: Stream = "r") -> Read:
        """What a block reads on a stream, or with the number of blocks the final norm."""

    def row(self, stream: Stream, row: int) -> Read:
        """The read that a row of W makes on a stream."""
        return self.read(row + 1, stream)

    @abstractmethod
    def seen(self, read: Read) -> tuple[Write, ...]:
        """The writes that a read may take from: what its weights are in the order of."""

    @abstractmethod
    def columns(self, read: Read) -> tuple[int, ...]:
        """Which of :attr:`sources` the weights of a row are of: what :meth:`watch` shows."""

    def gate(self, read: Read) -> str | None:  # noqa: ARG002 (an architecture's)
        """The hook on the weights of a row, where they are a tensor of the model."""
        return None

    def require_pairs(self) -> None:
        """Refuse a model whose blocks do not write with one attention, and then with one FFN.

        Raises:
            ValueError: With what they write.
        """
        pairs = (f"{part}.{layer}" for layer in range(len(self.deltas)) for part in ("attn", "mlp"))
        labels = [write.label for write in self.deltas]
        if labels != ["embed", *islice(pairs, len(labels) - 1)]:
            raise ValueError(
                "the streams of this model are made of more than an embedding, attention and FFNs "
                f"({', '.join(labels[:8])}, ...): read_weights has what each read takes of each, "
                "and cache.delta_coefficients the same of one."
            )

    @property
    def moving(self) -> tuple[str, ...]:
        """The hooks on the tensors that W is made of, where tokens change them: to hold W still."""
        if self.gates == "static":
            return ()
        gates = map(self.gate, self.rows)
        return tuple(dict.fromkeys(gate for gate in gates if gate is not None))

    @property
    def additive(self) -> bool:
        """Whether each read is the sum of all that was written before it: a plain Transformer."""
        return not any(map(self.weighed, self.rows))

    def weighed(self, read: Read) -> bool:
        """Whether a row has weights of its own: else it is the newest source as it is."""
        return self.gate(read) is not None

    def multiplied(self, write: Write) -> str:
        """The hook on what the weights of a row multiply: the write itself, or its norm."""
        return write.hook

    @abstractmethod
    def needs(self, read: Read) -> tuple[str, ...]:
        """The hooks that :meth:`weights` and :meth:`delta` look up on a tape."""

    @abstractmethod
    def weights(self, read: Read, tape: Tape) -> Weights:
        """The weights of the writes that a read sees, at each token of a tape."""

    @abstractmethod
    def vectors(self, read: Read, tape: Tape) -> Float[Tensor, "*token source _"]:
        """What a row takes of all sources before it, with an axis of its own for the width.

        That is 1, or d_model where a norm is :attr:`between`.
        """

    @abstractmethod
    def plain(self, read: Read) -> Float[Tensor, " source"]:
        """What the weights of a row would be if the residual were plain."""

    @abstractmethod
    def written_in(self, source: int) -> tuple[int, ...]:
        """Which of :attr:`deltas` make up what was new with a source, all with one coefficient."""

    def source_of(self, delta: int) -> int:
        """The first source that holds what a sublayer wrote."""
        return next(j for j in range(len(self.sources)) if delta in self.written_in(j))

    @abstractmethod
    def static(self, read: Read) -> Float[Tensor, " source"] | None:
        """The part of the weights that no token changes; ``None`` where there is no such part."""

    @abstractmethod
    def deltas_of(self, reads: Sequence[Read], tape: Tape) -> Iterator[tuple[Read, Weights]]:
        """:meth:`delta` of several reads of one tape, in the order of depth."""

    def delta_vectors(self, read: Read, tape: Tape) -> Float[Tensor, "*token write _"]:
        """:meth:`delta` with an axis of its own for the width: 1, or d_model."""
        taken = self.delta(read, tape)
        return taken[..., None] if self.between is None else taken

    def delta(self, read: Read, tape: Tape) -> Weights:
        """What a read takes of each delta before it, over all paths together."""
        return next(iter(self.deltas_of([read], tape)))[1]

    def by_stream(self, read: Read, tape: Tape) -> Float[Tensor, "*token stream write"]:
        """:meth:`delta` divided by the stream of the residual that it passes through.

        Which stream is which is a matter of names: compare no two models by it.
        """
        return self.delta(read, tape)[..., None, :]

    @abstractmethod
    def watch(self, read: Read, see: See) -> list[Hook]:
        """Hooks that show the weights of a read when they are there, after any edit of them.

        None where they are the same at every token whatever is edited: then they are the static.
        """

    def watch_rows(self, see: Callable[[Read, Tensor], object]) -> list[Hook]:
        """:meth:`watch` of every row; ``see`` is told which it is."""
        return [hook for read in self.rows for hook in self.watch(read, partial(see, read))]

    def hooks(self, read: Read, change: Change) -> list[Hook]:
        """Hooks with which a change of the weights ``[batch pos source]`` reaches the model.

        Here the difference that it makes, ``(W' - W) * write``, is added to the read, which is
        exact in any wiring. What follows is computed anew.
        """
        return Rewired(self, read, change).hooks()


class Rewired(Changed):
    """Adds to a read what a change of its weights makes, from the writes of the same pass."""

    def __init__(self, wiring: Wiring, read: Read, change: Change):
        super().__init__(change)
        self._wiring, self._read = wiring, read
        self._tape: dict[str, Tensor] = {}

    def hooks(self) -> list[Hook]:
        """A look at each write, and the change of the read."""
        names = {write.hook for write in self._wiring.seen(self._read)}
        needed = dict.fromkeys((*self._wiring.needs(self._read), *names))
        looks: list[Hook] = [(name, Observer(self._keep)) for name in needed]
        return [*looks, (self._read.hook, self)]

    def _keep(self, tensor: Tensor, hook: Any) -> None:
        self._tape[hook.name] = tensor

    def __call__(self, x: Tensor, hook: Any) -> Tensor:  # noqa: ARG002 (a hook's signature)
        """The read, with what the change adds to it."""
        before = changed_weights(x)
        if before is None:
            before = self._wiring.weights(self._read, self._tape)
        after = self.change(before)
        writes = [self._tape[write.hook] for write in self._wiring.seen(self._read)]
        read = x + total(after - before, writes, self._wiring.between is not None).to(x.dtype)
        setattr(read, _CHANGED, after)
        return read


_CHANGED = "mudd_interp_weights"
"""No tensor of the model holds composed weights, so a read whose weights were changed brings the
new ones along: for who looks at them after the change, and for the next change.
"""


def changed_weights(read: Tensor) -> Weights | None:
    """What the weights of a read were changed to, where they are composed; else ``None``."""
    return getattr(read, _CHANGED, None)


def total(
    weights: Float[Tensor, "..."],
    writes: Sequence[Float[Tensor, "*token d_model"]],
    channels: bool = False,
) -> Float[Tensor, "*token d_model"]:
    """``sum_j W_j * write_j``; with ``channels`` each weight is a vector."""
    terms = zip(weights.unbind(-2 if channels else -1), writes, strict=True)
    parts = [(weight if channels else weight[..., None]) * write for weight, write in terms]
    return torch.stack(parts).sum(0)


class Rows:
    """The one recurrence: what each live row (a state, or a stream) is made of, as writes come.

    With ``M`` the rows over the writes so far, a write ``w`` behind a transition ``T`` makes of it
    ``[T M, w]``, and a read with the weights ``p`` takes ``p M``. Each row is a tensor ``[*token
    write width]`` (shorter ones have zeros behind), where the width is 1 or d_model.
    """

    def __init__(self, rows: Sequence[Float[Tensor, "*token _ _"]]):
        self.rows = tuple(rows)

    def read(self, weights: Float[Tensor, "*token row _"]) -> Float[Tensor, "*token write _"]:
        """``p M``: what a read with the weights ``p`` of the first rows takes of each write."""
        terms = [w[..., None, :] * row for w, row in zip(weights.unbind(-2), self.rows)]  # noqa: B905 (a read sees the rows of its time)
        longest = max(terms, key=lambda term: term.shape[-2])
        taken = torch.zeros_like(longest)
        for term in terms:
            taken[..., : term.shape[-2], :] += term
        return taken

    def opened(self, weights: Float[Tensor, "*token row _"]) -> "Rows":
        """A new state: what it read of the others, and one of what was written in it itself."""
        below = self.read(weights)
        return Rows([*self.rows, torch.cat([below, torch.ones_like(below[..., :1, :])], dim=-2)])

    def written(
        self,
        weights: Float[Tensor, "*token row _"],
        transition: Float[Tensor, "*token row row _"] | None = None,
    ) -> "Rows":
        """``[T M, w]``: a write goes into each row, after the rows were mixed, if they are."""
        mixed = (
            self.rows if transition is None else [self.read(each) for each in transition.unbind(-3)]
        )
        pairs = zip(mixed, weights.unbind(-2), strict=True)
        return Rows([torch.cat([row, new[..., None, :]], dim=-2) for row, new in pairs])

    def states(self, taken: Float[Tensor, "*token write _"]) -> Float[Tensor, "*token row _"]:
        """The change of basis back: the weights ``p`` with ``p M = taken``, where rows are states.

        Each state has one of its own write, which is its last, so from the newest on each weight
        is what is left of it.
        """
        left = list(taken.unbind(-2))
        for newest in range(len(left) - 1, 0, -1):
            for write, part in enumerate(self.rows[newest].unbind(-2)[:-1]):
                left[write] = left[write] - left[newest] * part
        return torch.stack(torch.broadcast_tensors(*left), dim=-2)


def unrolled(
    residual: Sequence[Float[Tensor, "*token _ _"]], like: Float[Tensor, "*token"]
) -> Rows:
    """X_0..X_n in terms of what the components wrote: the embedding, block 0, block 1, ...

    Args:
        residual: ``residual[l]`` is what the residual stream that enters block ``l`` multiplies
            X_0..X_l by, ``[*token source width]``.
        like: Tokens, precision and device.
    """
    rows = Rows([torch.ones_like(like)[..., None, None]])
    for weights in residual:
        rows = rows.opened(weights)
    return rows
