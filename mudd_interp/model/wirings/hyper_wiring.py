"""W of hyper-connections, composed of their gates: ``p_k T_{k-1} ... T_{j+1} w_j``."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mudd_interp import axes
from mudd_interp.precision import wide
from mudd_interp.sublayers import SublayerWiring, alternating, embedding_only, final_reads
from mudd_interp.wiring import Gates, Read, Rows, Tape, Trait, Weights

Sums = Literal["columns", "rows", "both", "none"]

Pre = Float[Tensor, "*token stream"]


class HyperWiring(SublayerWiring):
    """W is no tensor of the model: it is composed of gates, and these are hooked.

    Args:
        n_layers: Number of blocks.
        n_streams: How many streams, n.
        mixes: Whether the streams are mixed.
        exact: Which sums of T are one.
        delayed: Whether each sublayer reads with the p of the one before it.
        head: Which p the head reads with; see ``Hyper``.
        constants: Static gates as a tape; ``None`` where gates depend on the streams.
        slack: How far from one the sums of a single T may be besides rounding.
    """

    def __init__(
        self,
        n_layers: int,
        n_streams: int,
        *,
        mixes: bool,
        exact: Sums,
        delayed: bool,
        head: str,
        constants: Callable[[], Mapping[str, Tensor]] | None,
        slack: float = 0.0,
    ):
        finals = final_reads(n_layers, n_streams if head == "norms" else 1)
        super().__init__(n_layers, alternating(n_layers), finals)
        self.n_streams, self.mixes, self.exact = n_streams, mixes, exact
        self.delayed, self.head = delayed, head
        self._constants, self.slack = constants, slack
        self.gates: Gates = "destination" if constants is None else "static"

    def needs(self, read: Read) -> tuple[str, ...]:
        """X_0, for its shape, the p of the read, and w and T of every sublayer before it."""
        k = self._depth(read)
        names = ("hook_post", "hook_mix") if self.mixes else ("hook_post",)
        written = (axes.hyper(j, name) for j in range(k) for name in names)
        pre = self._pre_hook(read)
        return (axes.EMBED, *written, *(() if pre is None else (pre,)))

    @property
    def traits(self) -> frozenset[Trait]:
        """See :class:`Wiring`."""
        own: frozenset[Trait] = frozenset({"streams"})
        return super().traits | own

    @property
    def mixed(self) -> Mapping[str, str]:
        """See :class:`Wiring`."""
        return {self.sites[k].label: axes.hyper(k, "hook_mix") for k in self._mixed}

    @property
    def depths(self) -> Mapping[int, tuple[str, ...]]:
        """See :class:`Wiring`: the streams; of a head that reads with another's p the last only."""
        whole = {self.n_layers: tuple(read.hook for read in self.finals)}
        if self.head == "last":
            return whole
        before = {layer: (axes.hyper(2 * layer, "hook_streams"),) for layer in range(self.n_layers)}
        return before | whole

    def static(self, read: Read) -> Float[Tensor, " source"] | None:
        """See :class:`Wiring`: where the gates are static, W; else there is no such part."""
        return None if self._constants is None else self.delta(read, self._constants())

    def composed(self, reads: Sequence[Read], tape: Tape) -> Iterator[tuple[Read, Weights]]:
        """See :class:`SublayerWiring`."""
        for read, rows, pre in self._at(reads, tape):
            yield read, rows.read(pre[..., None])[..., 0]

    def by_stream(self, read: Read, tape: Tape) -> Float[Tensor, "*token stream write"]:
        """See :class:`Wiring`."""
        ((_, rows, pre),) = self._at([read], tape)
        taken = [
            p[..., None] * row[..., 0] for p, row in zip(pre.unbind(-1), rows.rows, strict=True)
        ]
        return torch.stack(taken, dim=-2)

    def conserved(self, tape: Tape) -> Mapping[str, float]:
        """What mixing keeps, in words, each with how far it is off at most over tokens.

        Where columns of T sum to one, all streams together keep what a write added to them, at any
        depth; where rows do, each stream holds the embedding once.
        """
        found: dict[str, float] = {}
        exact = {"columns": (-2,), "rows": (-1,), "both": (-2, -1), "none": ()}[self.exact]
        mixes = [wide(tape[hook]) for hook in self.mixed.values()]
        for dim in exact if mixes else ():
            name = {-2: "columns of T sum to one", -1: "rows of T sum to one"}[dim]
            found[name] = max(float((mix.sum(dim) - 1).abs().max()) for mix in mixes)
        ((_, rows, _),) = self._at(self.finals[:1], tape)
        made_of = torch.stack([row[..., 0] for row in rows.rows], dim=-2)
        if -1 in exact:
            found["each stream holds the embedding once"] = float((made_of[..., 0] - 1).abs().max())
        if -2 in exact:
            wrote = [wide(tape[axes.hyper(k, "hook_post")]).sum(-1) for k in self._sublayers]
            drift = made_of[..., 1:].sum(-2) - torch.stack(wrote, dim=-1)
            found["all streams together keep what a write added"] = float(drift.abs().max())
        return found

    @property
    def _sublayers(self) -> range:
        return range(2 * self.n_layers)

    @property
    def _mixed(self) -> range:
        return self._sublayers if self.mixes else range(0)

    def _at(self, reads: Sequence[Read], tape: Tape) -> Iterator[tuple[Read, Rows, Pre]]:
        """Each read, the streams that it takes from, and how much of each."""
        rows, written = Rows([embedding_only(tape)] * self.n_streams), 0
        for read in reads:
            for k in range(written, self._depth(read)):
                mix = wide(tape[axes.hyper(k, "hook_mix")])[..., None] if self.mixes else None
                rows = rows.written(wide(tape[axes.hyper(k, "hook_post")])[..., None], mix)
            written = self._depth(read)
            yield read, rows, self._pre(read, tape)

    def _depth(self, read: Read) -> int:
        """How many sublayers have written before a read."""
        return min(read.row + 1, 2 * self.n_layers)

    def _pre(self, read: Read, tape: Tape) -> Pre:
        hook = self._pre_hook(read)
        if hook is not None:
            return wide(tape[hook])
        one = embedding_only(tape)[..., 0].expand(*tape[axes.EMBED].shape[:-1], self.n_streams)
        if self.head == "sum" and read in self.finals:
            return one
        only = self.finals.index(read) if read in self.finals else 0
        return torch.where(torch.arange(self.n_streams, device=one.device) == only, one, 0.0)

    def _pre_hook(self, read: Read) -> str | None:
        """The hook on the p of a read; ``None`` where it is fixed."""
        k = self._depth(read)
        if read not in self.finals:
            k -= self.delayed
            return axes.hyper(k, "hook_pre") if k >= 0 else None
        if self.head == "gate":
            return axes.HEAD_GATE
        return axes.hyper(k - 1, "hook_pre") if self.head == "last" else None
