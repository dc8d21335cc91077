"""MUDD connections: after each block, every stream of the next reads all states so far.

The paper's sections 2.2 to 2.4: static and dynamic weights, one way and several.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from mudd_interp import axes
from mudd_interp.axes import STREAMS, Stream
from mudd_interp.config import ModelConfig
from mudd_interp.model.layers import linear_weight, rms_norm
from mudd_interp.model.points import enter, has_hooks
from mudd_interp.model.wirings.base import Architecture, Connections, Flow, Streams, same_streams
from mudd_interp.model.wirings.stack import StateStack
from mudd_interp.states import StateWiring
from mudd_interp.wiring import Gates, Read, newest_source

ONE_WAY = "one"


@dataclass(frozen=True, kw_only=True)
class MUDD(Architecture):
    """MUDD connections, and every rung of the paper's Table 5 below them.

    Attributes:
        ways: The streams with weights of their own, some of ``"qkvr"``: each other stream reads the
            plain residual (Table 5, "- X dense"). Or ``"one"``: one set of weights, one input for
            all four.
        dynamic: Weights from an MLP of the newest state besides the learned ones, which alone are
            static connections (DenseFormer, the equation of 2.2).
        expand_last: Four times the hidden width in the last aggregation, as released.
        round64: Hidden width rounded up to the next larger multiple of 64, as released.

    Raises:
        ValueError: If ways are no streams, or a flag is neither true nor false.
    """

    kind = "mudd"

    ways: str = "".join(STREAMS)
    dynamic: bool = True
    expand_last: bool = False
    round64: bool = False

    def __post_init__(self) -> None:
        """Order the ways, then check the whole."""
        for name in ("dynamic", "expand_last", "round64"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r}.")
        given: Any = self.ways
        if given == ONE_WAY:
            return
        some = isinstance(given, str) and given and len(set(given)) == len(given)
        if not some or any(stream not in STREAMS for stream in given):
            raise ValueError(
                "ways must be some of the streams qkvr, each once, or 'one' for one set of weights "
                f"that all four read with, got {given!r}. Without any, the wiring is plain."
            )
        object.__setattr__(self, "ways", "".join(s for s in STREAMS if s in given))

    @property
    def streams(self) -> tuple[Stream, ...]:
        """See :class:`WiringConfig`."""
        return ("r",) if self.ways == ONE_WAY else STREAMS

    def of_row(self, row: int, n_layers: int) -> tuple[Stream, ...]:
        """The streams that an aggregation computes weights for, in q k v r order; the last: r."""
        fed = ("r",) if row == n_layers - 1 else self.streams
        return tuple(s for s in fed if self.ways == ONE_WAY or s in self.ways)

    def hidden(self, row: int, n_layers: int) -> int:
        """Hidden width of the MLP that computes an aggregation's weights (paper, section 2.3)."""
        width = len(self.of_row(row, n_layers)) * (newest_source(row) + 1)
        if self.expand_last and row == n_layers - 1:
            width *= 4
        return (width // 64 + 1) * 64 if self.round64 else width

    def build(self, cfg: ModelConfig) -> "MUDDConnections":
        """See :class:`Architecture`."""
        return MUDDConnections(self, cfg, Aggregation)


class Aggregation(nn.Module):
    """Aggregation ``i``: DA after block ``i``, the paper's Eq. for A_i and its multiway form.

    ``A = GELU(RMSNorm(X) W_1) W_2 + a`` for dynamic connections, ``A = a`` for static ones: signed
    and unbounded, they sum to nothing in particular. ``a`` has shape ``[stream source]``, ``W_2``
    ``[hidden (stream source)]``. Streams on the plain residual have no weights and no hook.
    """

    def __init__(self, mudd: MUDD, cfg: ModelConfig, row: int):
        super().__init__()
        self.streams = mudd.of_row(row, cfg.n_layers)
        self.n_sources, self.eps, self.dynamic = newest_source(row) + 1, cfg.eps, mudd.dynamic
        self.a = nn.Parameter(torch.zeros(len(self.streams), self.n_sources))
        if self.dynamic:
            hidden = mudd.hidden(row, cfg.n_layers)
            self.W_1 = linear_weight(cfg.d_model, hidden)
            self.W_2 = linear_weight(hidden, len(self.streams) * self.n_sources)
        for stream in self.streams:
            self.add_module(f"hook_weights_{stream}", HookPoint())

    def init_weights(self) -> None:
        """The paper's initialisation: W_1 ~ N(0, 1/D), W_2 = 0, and the plain residual."""
        with torch.no_grad():
            self.a.zero_()
            self.init_static()
            if self.dynamic:
                self.W_1.normal_(std=1 / math.sqrt(self.W_1.shape[0]))
                self.W_2.zero_()

    def init_static(self) -> None:
        """A one-hot on the newest state: a fresh model *is* the plain Transformer."""
        self.a[:, -1] = 1.0

    def normed(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """What the weight MLP reads of its input."""
        return rms_norm(x, self.eps)

    def weights(
        self, x: Float[Tensor, "batch pos d_model"]
    ) -> Float[Tensor, "batch pos stream source"]:
        """The weights of every source for every stream at every token, static part included."""
        shape = (len(self.streams), self.n_sources)
        if self.dynamic:
            dynamic = F.linear(F.gelu(F.linear(self.normed(x), self.W_1.T)), self.W_2.T)
            weights = dynamic.unflatten(-1, shape) + self.a
        else:
            weights = self.a.expand(*x.shape[:2], *shape)
        hooks = [cast(nn.Module, self._modules[f"hook_weights_{s}"]) for s in self.streams]
        if not has_hooks(*hooks):
            return weights
        if not self.dynamic:
            weights = weights.clone()  # what a hook or a cache keeps must not be the parameter
        return torch.stack([enter(hook, weights[:, :, c]) for c, hook in enumerate(hooks)], 2)

    def forward(
        self,
        newest: Float[Tensor, "batch pos d_model"],
        sources: Float[Tensor, "batch pos source d_model"],
    ) -> dict[Stream, Float[Tensor, "batch pos d_model"]]:
        """The aggregates X̄^c = sum_j A^c_j X_j of each stream that has weights.

        One matrix product per token.

        Args:
            newest: X_{i+1}, which the weight MLP reads.
            sources: X_0..X_{i+1}.
        """
        mixed = (self.weights(newest) @ sources).unbind(2)
        return dict(zip(self.streams, mixed, strict=True))


class MUDDConnections(Connections):
    """An aggregation after each block."""

    def __init__(self, mudd: MUDD, cfg: ModelConfig, kind: type[Aggregation]):
        self.n_layers, self.parallel = cfg.n_layers, cfg.parallel_attn_mlp
        self.one_way = mudd.ways == ONE_WAY
        rows = [row for row in range(cfg.n_layers) if mudd.of_row(row, cfg.n_layers)]
        self.dense = nn.ModuleDict({str(row): kind(mudd, cfg, row) for row in rows})
        self.wiring = self.wired(mudd)

    def wired(self, mudd: MUDD) -> StateWiring:
        """The wiring that tells of these aggregations."""
        return MUDDWiring(self, mudd)

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """See :class:`Connections`."""
        return {"dense": self.dense}

    def init_weights(self) -> None:
        """See :class:`Connections`."""
        for each in self.dense.values():
            cast(Aggregation, each).init_weights()

    def aggregation(self, row: int) -> Aggregation | None:
        """The aggregation after a block, if there is one."""
        return cast(Aggregation, self.dense[str(row)]) if str(row) in self.dense else None

    def begin(self) -> Flow:
        """See :class:`Connections`."""
        return MUDDFlow(self)

    def as_source(
        self,
        x: Float[Tensor, "batch pos d_model"],
        source: int,  # noqa: ARG002 (an architecture's)
    ) -> Float[Tensor, "batch pos d_model"]:
        """What the weights multiply of a state."""
        return x


class MUDDFlow(Flow):
    """The states so far, stacked for the mix."""

    def __init__(self, connections: MUDDConnections):
        super().__init__(connections.parallel)
        self._connections = connections
        self._stack = StateStack(connections.n_layers + 1)

    def write(self, x: Float[Tensor, "batch pos d_model"]) -> None:
        """See :class:`Flow`."""
        super().write(x)
        self._stack.append(self._connections.as_source(x, len(self._stack)))

    def streams(self) -> Streams:
        """See :class:`Flow`."""
        here = self._connections.aggregation(len(self._stack) - 2)
        if here is None:
            return super().streams()
        mixed = here(self.newest, self._stack.stacked())
        if self._connections.one_way:
            return same_streams(mixed["r"])
        return {stream: mixed.get(stream, self.newest) for stream in STREAMS}


class MUDDWiring(StateWiring):
    """W is a hooked tensor: ``dense.{i}.hook_weights_{stream}``."""

    def __init__(self, connections: MUDDConnections, mudd: MUDD):
        super().__init__(connections.n_layers, mudd.streams, connections.parallel)
        self._connections = connections
        self.gates: Gates = "destination" if mudd.dynamic else "static"

    def aggregation(self, read: Read) -> Aggregation | None:
        """The module that computes the weights of a read, if it has weights of its own."""
        found = self._connections.aggregation(read.row)
        return found if found is not None and read.stream in found.streams else None

    def gate(self, read: Read) -> str | None:
        """See :class:`StateWiring`."""
        here = self.aggregation(read)
        return None if here is None else axes.dense_weights(read.row, read.stream)

    def learned(self, read: Read) -> Float[Tensor, " source"]:
        """See :class:`StateWiring`."""
        here = self.aggregation(read)
        assert here is not None
        return here.a[here.streams.index(read.stream)].detach()
