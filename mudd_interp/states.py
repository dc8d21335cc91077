"""The wiring of models whose blocks read running states: plain, DenseFormer's, MUDD's.

The writes are ``X_0..X_L``, each of which contains what its block read. In a sequential block the
FFN reads the block's own attention too, so that is a write of its own. A plain Transformer is the
case in which each read is the newest state as it is.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mudd_interp import axes
from mudd_interp.axes import STREAMS, Stream
from mudd_interp.precision import wide
from mudd_interp.wiring import (
    Basis,
    Change,
    Changed,
    Gates,
    Hook,
    Observer,
    Read,
    See,
    Tape,
    Trait,
    Weights,
    Wiring,
    Write,
    unrolled,
)


class StateWiring(Wiring):
    """Reads of running states; as it is, that of a plain Transformer.

    An architecture says which rows have weights of their own (:meth:`gate`), what their static part
    is (:meth:`learned`), and what they multiply (:meth:`multiplied`).

    Rows are all reads behind block 0, in which there is one source only.

    Attributes:
        n_layers: Number of blocks.
    """

    basis: Basis = "state"
    gates: Gates = "static"

    def __init__(self, n_layers: int, streams: tuple[Stream, ...] = ("r",), parallel: bool = False):
        self.n_layers, self.streams, self.parallel = n_layers, streams, parallel
        layers = range(n_layers)
        self.sources = tuple(
            Write(f"X_{j}", axes.EMBED if j == 0 else axes.resid_post(j - 1))
            for j in range(n_layers + 1)
        )
        attended = tuple(Write(f"attn.{layer}", axes.attn_out(layer)) for layer in layers)
        fed = [Write(f"mlp.{layer}", axes.mlp_out(layer)) for layer in layers]
        self.writes = self.sources if parallel else (*self.sources, *attended)
        pairs = zip(attended, fed, strict=True)
        self.deltas = (Write("embed", axes.EMBED), *(write for pair in pairs for write in pair))
        final = Read("final", axes.RESID_FINAL, axes.FINAL_SCALE, n_layers, "r", n_layers - 1)
        self.finals = (final,)
        self.reads = (*(read for layer in layers for read in self._of_block(layer)), final)
        self._by_place = {(r.layer, r.stream): r for r in reversed(self.reads) if not _is_ffn(r)}
        self.rows = tuple(read for read in self.reads if read.layer and not _is_ffn(read))

    def _of_block(self, layer: int) -> Iterator[Read]:
        one = layer == 0 or len(self.streams) == 1
        resid, scale = axes.resid_pre(layer), axes.norm_scale
        if one:
            yield Read(f"attn.{layer}", resid, scale(layer, "ln1"), layer, "r", layer - 1)
        else:
            for stream in self.streams:
                if stream == "r":
                    continue
                hook, norm = axes.stream_input(layer, stream), scale(layer, f"ln1_{stream}")
                yield Read(f"attn.{layer}.{stream}", hook, norm, layer, stream, layer - 1)
            yield Read(f"resid.{layer}", resid, None, layer, "r", layer - 1)
        middle = resid if self.parallel else axes.block(layer, "hook_resid_mid")
        yield Read(f"mlp.{layer}", middle, scale(layer, "ln2"), layer, "r", layer - 1)

    @property
    def traits(self) -> frozenset[Trait]:
        """See :class:`Wiring`."""
        own: frozenset[Trait] = frozenset({"states"})
        return super().traits | own

    @property
    def depths(self) -> Mapping[int, tuple[str, ...]]:
        """See :class:`Wiring`: the states."""
        return {j: (source.hook,) for j, source in enumerate(self.sources)}

    # --- Places ---------------------------------------------------------------------------------

    def read(self, layer: int, stream: Stream = "r") -> Read:
        """See :class:`Wiring`; where the streams are one, that one."""
        return self._by_place.get((layer, stream)) or self._by_place[layer, "r"]

    def seen(self, read: Read) -> tuple[Write, ...]:
        """X_0..X_layer; for the FFN of a sequential block its attention too."""
        states = tuple(self.sources[j] for j in self.columns(read))
        own = (Write(f"attn.{read.layer}", axes.attn_out(read.layer)),)
        return (*states, *own) if self._adds_attention(read) else states

    def columns(self, read: Read) -> tuple[int, ...]:
        """All that were written before."""
        return tuple(range(read.layer + 1))

    def _adds_attention(self, read: Read) -> bool:
        return _is_ffn(read) and not self.parallel

    @property
    def plain_streams(self) -> tuple[Stream, ...]:
        """The inputs of a block that have no weights in any row: the plain residual."""
        gated = {read.stream for read in self.rows if self.weighed(read)}
        if len(self.streams) == 1:
            return () if gated else STREAMS
        return tuple(stream for stream in self.streams if stream not in gated)

    # --- What an architecture says --------------------------------------------------------------

    def learned(self, read: Read) -> Float[Tensor, " source"]:
        """The static part of the weights of a read that has a gate."""
        raise NotImplementedError

    def parts(self, read: Read) -> tuple[str, ...]:
        """The hooks that the weights of a read that has a gate are made from."""
        return (gate,) if (gate := self.gate(read)) else ()

    # --- W --------------------------------------------------------------------------------------

    def needs(self, read: Read) -> tuple[str, ...]:
        """X_0, for its shape, and the gates of the read and of every residual below."""
        residual = [self.read(layer) for layer in range(read.layer)]
        gated = self.read(read.layer) if _is_ffn(read) else read
        return (axes.EMBED, *(name for each in (*residual, gated) for name in self.parts(each)))

    def weights(self, read: Read, tape: Tape) -> Weights:
        """See :class:`Wiring`."""
        return self._squeezed(self._of_seen(read, self.vectors(read, tape)))

    def vectors(self, read: Read, tape: Tape) -> Float[Tensor, "*token source _"]:
        """See :class:`Wiring`: of X_0..X_layer; the FFN of a sequential block, also of its own."""
        if _is_ffn(read):
            residual = self.vectors(self.read(read.layer), tape)
            own = torch.ones_like(residual[..., :1, :])
            return residual if self.parallel else torch.cat([residual, own], dim=-2)
        if self.gate(read) is None:
            return newest_only(read.layer + 1, wide(tape[axes.EMBED]))
        gated, columns = self.gated(read, tape), self.columns(read)
        if len(columns) == read.layer + 1:
            return gated
        every = gated.new_zeros(*gated.shape[:-2], read.layer + 1, gated.shape[-1])
        every[..., columns, :] = gated
        return every

    def _of_seen(
        self, read: Read, vectors: Float[Tensor, "*token source _"]
    ) -> Float[Tensor, "*token write _"]:
        """Those of the writes that a read sees."""
        columns, n = self.columns(read), read.layer + 1
        if len(columns) == n:
            return vectors
        return vectors[..., [*columns, *range(n, vectors.shape[-2])], :]

    def plain(self, read: Read) -> Float[Tensor, " source"]:
        """See :class:`Wiring`: one on the newest; none where it is added behind a norm anyway."""
        weights = torch.zeros(len(self.columns(read)))
        weights[-1] = 1.0 if self.between is None else 0.0
        return weights

    def written_in(self, source: int) -> tuple[int, ...]:
        """See :class:`Wiring`: what attention and FFN of the block below wrote."""
        return (0,) if source == 0 else (2 * source - 1, 2 * source)

    def gated(self, read: Read, tape: Tape) -> Float[Tensor, "*token source _"]:
        """What a read that has a gate multiplies the states by; the last axis is the width."""
        gate = self.gate(read)
        assert gate is not None
        return wide(tape[gate])[..., None]

    def static(self, read: Read) -> Float[Tensor, " source"]:
        """The learned bias at a gate; one on the newest state where there is none."""
        if _is_ffn(read):
            residual = self.static(self.read(read.layer))
            return residual if self.parallel else torch.cat([residual, residual.new_ones(1)])
        if self.gate(read) is None:
            return torch.eye(read.layer + 1)[-1]
        return self.learned(read)

    def components(
        self, reads: Sequence[Read], tape: Tape
    ) -> Iterator[tuple[Read, Float[Tensor, "*token component _"]]]:
        """What reads of one tape take of X_0 and of what each block wrote, over all paths together.

        Index 0 is the embedding, ``l + 1`` what attention and FFN of block ``l`` wrote; the last
        axis is the width. In the order of depth; of an FFN it is the residual stream's.
        """
        residual: list[Tensor] = []
        rows = unrolled([], wide(tape[axes.EMBED])[..., 0])
        for read in sorted(reads, key=self.reads.index):
            for layer in range(len(residual), read.layer):
                residual.append(self.vectors(self.read(layer), tape))
                rows = rows.opened(residual[-1])
            own = self.read(read.layer) if _is_ffn(read) else read
            yield read, rows.read(self.vectors(own, tape))

    def deltas_of(self, reads: Sequence[Read], tape: Tape) -> Iterator[tuple[Read, Weights]]:
        """See :class:`Wiring`: attention and FFN of a block go together."""
        for read, components in self.components(reads, tape):
            embed, blocks = components[..., :1, :], components[..., 1:, :]
            own = [torch.ones_like(embed)] if self._adds_attention(read) else []
            deltas = [embed, blocks.repeat_interleave(2, dim=-2), *own]
            yield read, self._squeezed(torch.cat(deltas, dim=-2))

    def states_of(self, read: Read, delta: Weights, tape: Tape) -> Weights:
        """The change of basis back: the weights of a read from its deltas, exactly."""
        wider = delta if self.between else delta[..., None]
        n = read.layer + 1
        own = wider[..., 2 * n - 1 :, :]
        components = torch.cat([wider[..., :1, :], wider[..., 1 : 2 * n - 1 : 2, :]], dim=-2)
        residual = [self.vectors(self.read(layer), tape) for layer in range(read.layer)]
        states = unrolled(residual, wide(tape[axes.EMBED])[..., 0]).states(components)
        return self._squeezed(self._of_seen(read, torch.cat([states, own], dim=-2)))

    def _squeezed(self, weights: Float[Tensor, "*token write _"]) -> Weights:
        return weights if self.between else weights[..., 0]

    # --- Looking and changing -------------------------------------------------------------------

    def watch(self, read: Read, see: See) -> list[Hook]:
        """A look at the gate; none without."""
        gate = self.gate(read)
        return [] if gate is None else [(gate, Observer(lambda weights, _: see(weights)))]

    def hooks(self, read: Read, change: Change) -> list[Hook]:
        """A change at the gate; where the read is the newest state as it is, one of the read."""
        if _is_ffn(read):
            return super().hooks(read, change)
        gate = self.gate(read)
        return _Reweighed(self, read, change).hooks() if gate is None else [(gate, Changed(change))]


class _Reweighed(Changed):
    """Changes a read that is the newest state as it is: so the states before it are all it needs.

    (A pass that goes on from given states shows no hook of theirs.)
    """

    def __init__(self, wiring: StateWiring, read: Read, change: Change):
        super().__init__(change)
        self._read, self._n = read, read.layer + 1
        self._older = {write.hook: j for j, write in enumerate(wiring.seen(read)[:-1])}
        self._states: dict[int, Tensor] = {}

    def hooks(self) -> list[Hook]:
        """A look at the older states, and the change."""
        looks: list[Hook] = [(name, Observer(self._keep)) for name in self._older]
        return [*looks, (self._read.hook, self)]

    def _keep(self, x: Tensor, hook: Any) -> None:
        self._states[self._older[hook.name]] = x

    def __call__(self, x: Tensor, hook: Any) -> Tensor:  # noqa: ARG002 (a hook's signature)
        """The newest state by its new weight, and what older ones are given."""
        weights = self.change(newest_only(self._n, x)[..., 0])
        changed = x * weights[..., -1:]
        given = weights[..., :-1].flatten(0, -2).any(0).nonzero().flatten().tolist()
        return changed + sum(weights[..., j, None] * self._states[j] for j in given)


def newest_only(n: int, like: Float[Tensor, "*token _"]) -> Float[Tensor, "*token _ 1"]:
    """The weights of a plain residual at each token of ``like``: one on the newest of n states."""
    weights = like.new_zeros(*like.shape[:-1], n, 1)
    weights[..., -1, :] = 1.0
    return weights


def _is_ffn(read: Read) -> bool:
    return read.label.startswith("mlp.")
