"""Hyper-connections: n streams, which every sublayer reads, writes and mixes by its own gates.

HC (arXiv 2409.19606) and mHC, whose mixing keeps sums (arXiv 2512.24880). With the streams ``X``,
one row for each, a sublayer ``f`` with gates p, w and T does::

    u = p X        X <- T X + w f(norm(u))

and the first X are n copies of the embedding.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from mudd_interp import axes
from mudd_interp.config import ModelConfig
from mudd_interp.model.layers import Norm, SharedNorm
from mudd_interp.model.points import enter, has_hooks
from mudd_interp.model.wirings.base import (
    Architecture,
    Connections,
    Flow,
    Streams,
    one_of,
    same_streams,
    taken,
    whole_number,
)
from mudd_interp.model.wirings.gates import (
    Exact,
    FlatGate,
    Gate,
    GateNorm,
    StreamGate,
    of_permutations,
    sinkhorn,
)
from mudd_interp.model.wirings.hyper_wiring import HyperWiring, Sums
from mudd_interp.precision import wide

Gates = Literal["static", "tanh", "sigmoid"]
Mixing = Literal["free", "sinkhorn", "permutations", "identity"]
Head = Literal["sum", "gate", "last", "norms"]
BOUNDED: tuple[Mixing, ...] = ("sinkhorn", "permutations", "identity")
MOST_STREAMS = {"permutations": 6}
"""There are 720 permutations of 6 streams."""


@dataclass(frozen=True, kw_only=True)
class Hyper(Architecture):
    """Hyper-connections, plain (HC) and with mixing that keeps sums (mHC).

    Attributes:
        n_streams: How many streams, n.
        gates: ``"static"``: learned numbers (static HC); ``"tanh"``: besides these a tanh of each
            stream by itself, normed (dynamic HC); ``"sigmoid"``: p a sigmoid and w twice a sigmoid
            of all streams normed side by side (mHC).
        mixing: T. ``"free"``: as the gates are (HC); with sigmoid gates ``"sinkhorn"``: its rows
            and columns sum to one (mHC); ``"permutations"``: a weighted mean of all permutations
            (mHC-lite). Or ``"identity"``: streams are not mixed.
        exact: Which sums of T are exactly one after Sinkhorn's ``rounds``. ``"columns"`` (old
            streams): what a write adds to all streams together stays as it is (mHC-lite's code);
            ``"rows"`` (new streams): each stream holds the embedding once (DeepSeek-V4).
        rounds: Of Sinkhorn.
        delayed: Each sublayer reads with the p of the one before it, and the first reads stream 0
            (DeepSeek-V4.1).
        head: What the final norm is given. ``"sum"`` of the streams (HC); their sum with a gate of
            its own (``"gate"``, DeepSeek-V4) or with the p of the last FFN (``"last"``,
            DeepSeek-V4.1). Or ``"norms"``: each stream is normed, and then they are summed
            (mHC-lite's code).
        eps: Epsilon of the norm that gates read through.

    Raises:
        ValueError: If a field is out of range, or two contradict each other.
    """

    kind = "hyper"
    states = False

    n_streams: int = 4
    gates: Gates = "sigmoid"
    mixing: Mixing = "sinkhorn"
    exact: Exact = "columns"
    rounds: int = 20
    delayed: bool = False
    head: Head = "sum"
    eps: float = 1e-6

    def __post_init__(self) -> None:
        """Check the whole."""
        for name, least in (("n_streams", 2), ("rounds", 1)):
            whole_number(name, getattr(self, name), least)
        for name, allowed in (("gates", Gates), ("mixing", Mixing), ("exact", Exact)):
            one_of(name, getattr(self, name), get_args(allowed))
        one_of("head", self.head, get_args(Head))
        one_of("delayed", self.delayed, (False, True))
        bounded = self.gates == "sigmoid"
        fitting = BOUNDED if bounded else ("free", "identity")
        if self.mixing not in fitting:
            raise ValueError(
                f"with gates={self.gates!r} mixing must be one of {', '.join(fitting)}, got "
                f"{self.mixing!r}."
            )
        most = MOST_STREAMS.get(self.mixing)
        if most is not None and self.n_streams > most:
            raise ValueError(
                f"with mixing={self.mixing!r} n_streams must be at most {most}, got "
                f"{self.n_streams}."
            )
        eps: Any = self.eps
        if not isinstance(eps, (int, float)) or isinstance(eps, bool) or not 0 <= eps < 1:
            raise ValueError(f"eps must be a number from 0, got {eps!r}.")

    @property
    def sums(self) -> Sums:
        """Which sums of T are one, to rounding."""
        if self.mixing == "sinkhorn":
            return self.exact
        return "none" if self.mixing == "free" else "both"

    def check(self, cfg: ModelConfig) -> None:
        """See :class:`WiringConfig`."""
        if cfg.parallel_attn_mlp:
            raise ValueError(
                "with hyper-connections an FFN reads streams that its attention has written to: "
                "parallel_attn_mlp must be False."
            )

    def build(self, cfg: ModelConfig) -> "HyperConnections":
        """See :class:`Architecture`."""
        return HyperConnections(self, cfg)


class Gated(nn.Module):
    """Gates that read the streams.

    Args:
        hyper: The architecture.
        d_model: Width of a stream.
    """

    def __init__(self, hyper: Hyper, d_model: int):
        super().__init__()
        self.hyper = hyper
        if hyper.gates != "static":
            flat = hyper.gates == "sigmoid"
            self.norm = GateNorm(hyper.n_streams, d_model, hyper.eps, flat)

    def gate(self, *shape: int) -> Gate:
        """A new gate."""
        if self.hyper.gates == "static":
            return Gate(shape)
        kind = FlatGate if self.hyper.gates == "sigmoid" else StreamGate
        return kind(shape, self.norm.width)

    def normed(self, x: Float[Tensor, "*token stream d_model"]) -> Float[Tensor, "..."]:
        """What the gates read."""
        return x[..., 0, :] if self.hyper.gates == "static" else self.norm(x)


class AtToken(NamedTuple):
    """The gates of a sublayer."""

    pre: Float[Tensor, "*token stream"]
    post: Float[Tensor, "*token stream"]
    mix: Float[Tensor, "*token new old"] | None


class Site(Gated):
    """The gates of one sublayer; hooks are on what they are within their bounds.

    Args:
        hyper: The architecture.
        d_model: Width of a stream.
        number: Of the sublayer, in the order of depth.
    """

    def __init__(self, hyper: Hyper, d_model: int, number: int):
        super().__init__(hyper, d_model)
        self.number, n = number, hyper.n_streams
        self.pre, self.post = self.gate(n), self.gate(n)
        self.hook_streams, self.hook_pre, self.hook_post = HookPoint(), HookPoint(), HookPoint()
        self.mixes = hyper.mixing != "identity"
        if self.mixes:
            permutations = hyper.mixing == "permutations"
            self.mix = self.gate(math.factorial(n)) if permutations else self.gate(n, n)
            self.hook_mix = HookPoint()

    def init_weights(self) -> None:
        """As the papers' code: nothing dynamic, and each sublayer leans on one stream in turn.

        HC is then its plain twin: p is one on that stream, w is one, and T the identity.
        """
        sigmoid, leant_on = self.hyper.gates == "sigmoid", self.number % self.hyper.n_streams
        with torch.no_grad():
            self.pre.start(-1.0 if sigmoid else 0.0)
            self.post.start(-1.0 if sigmoid else 1.0)
            self.pre.b[leant_on] = self.post.b[leant_on] = 1.0
            if self.mixes:
                self.mix.start(-8.0 if sigmoid else 0.0)
                kept = self.mix.b[:1] if self.mix.b.ndim == 1 else self.mix.b.diagonal()
                kept.fill_(0.0 if sigmoid else 1.0)

    def forward(
        self, x: Float[Tensor, "batch pos stream d_model"]
    ) -> tuple[Float[Tensor, "batch pos stream d_model"], AtToken]:
        """The streams after their hook, and the gates after theirs."""
        x = enter(self.hook_streams, x)
        pre, post, mix = self.gates(self.normed(x))
        mix = None if mix is None else self.hook_mix(mix)
        return x, AtToken(self.hook_pre(pre), self.hook_post(post), mix)

    def gates(self, normed: Float[Tensor, "..."]) -> AtToken:
        """The gates within their bounds, of what they read."""
        pre, post = self.pre(normed), self.post(normed)
        if self.hyper.gates == "sigmoid":
            pre, post = pre.sigmoid(), 2 * post.sigmoid()
        if not self.mixes:
            return AtToken(pre, post, None)
        mix = self.mix(normed)
        if self.hyper.mixing == "sinkhorn":
            mix = sinkhorn(mix, self.hyper.rounds, self.hyper.exact)
        elif self.hyper.mixing == "permutations":
            mix = of_permutations(mix, self.hyper.n_streams)
        return AtToken(pre, post, mix)


class HeadGate(Gated):
    """What the head reads of each stream."""

    def __init__(self, hyper: Hyper, d_model: int):
        super().__init__(hyper, d_model)
        self.pre, self.hook_pre = self.gate(hyper.n_streams), HookPoint()

    def init_weights(self) -> None:
        """Of every stream as much: a half of it behind a sigmoid, else all of it."""
        with torch.no_grad():
            self.pre.start(0.0 if self.hyper.gates == "sigmoid" else 1.0)

    def forward(
        self, x: Float[Tensor, "batch pos stream d_model"]
    ) -> Float[Tensor, "batch pos stream"]:
        """The gate after its hook."""
        return self.hook_pre(self.gate_of(self.normed(x)))

    def gate_of(self, normed: Float[Tensor, "..."]) -> Float[Tensor, "*token stream"]:
        """The gate, of what it reads."""
        pre = self.pre(normed)
        return pre.sigmoid() if self.hyper.gates == "sigmoid" else pre


class HyperConnections(Connections):
    """Gates of every sublayer, and of the head where it has one."""

    def __init__(self, hyper: Hyper, cfg: ModelConfig):
        self.hyper, self.n_layers = hyper, cfg.n_layers
        self.sites = [Site(hyper, cfg.d_model, k) for k in range(2 * cfg.n_layers)]
        self.parts = nn.ModuleDict(
            {
                str(layer): nn.ModuleDict(
                    {"attn": self.sites[2 * layer], "mlp": self.sites[2 * layer + 1]}
                )
                for layer in range(cfg.n_layers)
            }
        )
        if hyper.head == "gate":
            self.parts["head"] = HeadGate(hyper, cfg.d_model)
        self.wiring = HyperWiring(
            cfg.n_layers,
            hyper.n_streams,
            mixes=hyper.mixing != "identity",
            exact=hyper.sums,
            delayed=hyper.delayed,
            head=hyper.head,
            constants=self.constants if hyper.gates == "static" else None,
        )

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """See :class:`Connections`."""
        return {"hyper": self.parts}

    def init_weights(self) -> None:
        """See :class:`Connections`; with sigmoid gates no twin is plain."""
        for part in self.parts.modules():
            if isinstance(part, (Site, HeadGate)):
                part.init_weights()

    def begin(self) -> Flow:
        """See :class:`Connections`."""
        return HyperFlow(self)

    def final(self, cfg: ModelConfig) -> tuple[nn.Module, nn.Module]:
        """See :class:`Connections`."""
        hook, norm = super().final(cfg)
        if self.hyper.head != "norms":
            return hook, norm
        return FinalRows(self.hyper.n_streams), SummedNorm(norm, self.hyper.n_streams)

    def reduced(
        self, x: Float[Tensor, "batch pos *stream d_model"]
    ) -> Float[Tensor, "batch pos *row d_model"]:
        """See :class:`Connections`: of streams; one stream is what the head reads already."""
        head, gate = self.hyper.head, self.head_gate()
        if x.ndim == 3 or head == "norms":
            return x
        if head == "last":
            raise ValueError(
                "the head reads the streams with the p of the last FFN: give its read."
            )
        return x.sum(-2) if gate is None else taken(gate(x), x)

    def head_gate(self) -> HeadGate | None:
        """The gate of the head, if it has one."""
        return cast(HeadGate, self.parts["head"]) if "head" in self.parts else None

    def constants(self) -> Mapping[str, Float[Tensor, "..."]]:
        """Static gates by the names of their hooks, and a place for the embedding."""
        like = self.sites[0].pre.b.new_zeros(1)
        tape = {axes.EMBED: like}
        for k, site in enumerate(self.sites):
            for name, gate in zip(AtToken._fields, site.gates(like), strict=True):
                if gate is not None:
                    tape[axes.hyper(k, f"hook_{name}")] = gate.detach()
        head = self.head_gate()
        return tape if head is None else tape | {axes.HEAD_GATE: head.gate_of(like).detach()}


class HyperFlow(Flow):
    """The streams, in at least float32, and the gates of the sublayer that runs."""

    def __init__(self, connections: HyperConnections):
        super().__init__(parallel=False)
        self._connections, self._number = connections, 0

    def write(self, x: Float[Tensor, "batch pos *stream d_model"]) -> None:
        """X_0, with which every stream begins; what a block leaves is in the streams already."""
        if self._number:
            return
        n, self._dtype = self._connections.hyper.n_streams, x.dtype
        self._streams = wide(x)[..., None, :].expand(*x.shape[:-1], n, x.shape[-1])
        self._before = self._streams.new_zeros(n)
        self._before[0] = 1.0

    def streams(self) -> Streams:
        """See :class:`Flow`."""
        return same_streams(self._read())

    def ffn_input(
        self,
        residual: Float[Tensor, "batch pos d_model"],  # noqa: ARG002 (a flow's)
        attn_out: Float[Tensor, "batch pos d_model"],
    ) -> Float[Tensor, "batch pos d_model"]:
        """See :class:`Flow`."""
        self._write(attn_out)
        return self._read()

    def output(
        self,
        read: Float[Tensor, "batch pos d_model"],  # noqa: ARG002 (a flow's)
        attn_out: Float[Tensor, "batch pos d_model"],  # noqa: ARG002 (a flow's)
        mlp_out: Float[Tensor, "batch pos d_model"],
    ) -> Float[Tensor, "batch pos stream d_model"]:
        """The streams behind a block."""
        self._write(mlp_out)
        return self._streams

    def final(self) -> Float[Tensor, "batch pos *stream d_model"]:
        """See :class:`Flow`."""
        if self._connections.hyper.head == "last":
            return taken(self._before, self._streams).to(self._dtype)
        return self._connections.reduced(self._streams).to(self._dtype)

    def _read(self) -> Float[Tensor, "batch pos d_model"]:
        """What the next sublayer reads."""
        self._streams, self._gates = self._connections.sites[self._number](self._streams)
        before, self._before = self._before, self._gates.pre
        pre = before if self._connections.hyper.delayed else self._gates.pre
        return taken(pre, self._streams).to(self._dtype)

    def _write(self, y: Float[Tensor, "batch pos d_model"]) -> None:
        mix, post = self._gates.mix, self._gates.post
        kept = self._streams if mix is None else mix @ self._streams
        self._streams = kept + post[..., None] * wide(y)[..., None, :]
        self._number += 1


class FinalRows(nn.ModuleList):
    """A hook on each of the streams that the head norms one by one."""

    def __init__(self, n: int):
        super().__init__(HookPoint() for _ in range(n))

    def forward(
        self, x: Float[Tensor, "batch pos stream d_model"]
    ) -> Float[Tensor, "batch pos stream d_model"]:
        """The streams, after their hooks."""
        if not has_hooks(*self):
            return x
        pairs = zip(self, x.unbind(-2), strict=True)
        return torch.stack([enter(hook, row) for hook, row in pairs], dim=-2)


class SummedNorm(nn.Module):
    """The final norm of each stream, summed: one set of parameters, hooks for each stream.

    Its bias is in the sum once for each stream.
    """

    def __init__(self, norm: Norm, n: int):
        super().__init__()
        self.norm = norm
        self.each = nn.ModuleList(SharedNorm(norm) for _ in range(n))

    @property
    def w(self) -> Float[Tensor, " d_model"]:
        """The gain."""
        return self.norm.w

    @property
    def bias(self) -> Float[Tensor, " d_model"] | None:
        """What it adds to the sum, or ``None`` if nothing."""
        own = self.norm.bias
        return None if own is None else len(self.each) * own

    def forward(
        self, x: Float[Tensor, "batch pos stream d_model"]
    ) -> Float[Tensor, "batch pos d_model"]:
        """The sum of the normed streams."""
        pairs = zip(self.each, x.unbind(-2), strict=True)
        return torch.stack([norm(row) for norm, row in pairs]).sum(0)

    def fused(
        self, x: Float[Tensor, "batch pos *stream d_model"]
    ) -> Float[Tensor, "batch pos d_model"]:
        """The same without hooks; of one stream what it would be if all of them were like it."""
        normed = self.norm.fused(x)
        return len(self.each) * normed if x.ndim == 3 else normed.sum(-2)
