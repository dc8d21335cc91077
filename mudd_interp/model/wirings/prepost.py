"""PrePostDANorm: MUDD connections whose sources, and what becomes of them, are normed (Eq. 10)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from mudd_interp import axes
from mudd_interp.axes import Stream
from mudd_interp.config import ModelConfig
from mudd_interp.model.layers import RMSNorm
from mudd_interp.model.wirings.mudd import MUDD, Aggregation, MUDDConnections, MUDDWiring
from mudd_interp.precision import wide
from mudd_interp.states import StateWiring
from mudd_interp.wiring import Read, Tape, Write

Variant = Literal["all", "residual"]


@dataclass(frozen=True, kw_only=True)
class PrePost(MUDD):
    """MUDD connections with PrePostDANorm. The newest state is added to every stream.

    Attributes:
        variant: ``"all"`` is the paper's Eq. 10 for every stream (the weight MLP is part of DA and
            so reads the normed state); ``"residual"`` is the JAX code, which norms the aggregate of
            stream r only and feeds the un-normed state to the weight MLP, whose norm then has a
            gain.

    Raises:
        ValueError: As for :class:`MUDD`, and if there is no such variant.
    """

    kind = "prepost"

    variant: Variant = "all"

    def __post_init__(self) -> None:
        """Check the whole."""
        super().__post_init__()
        if self.variant not in get_args(Variant):
            allowed = ", ".join(get_args(Variant))
            raise ValueError(f"variant must be one of {allowed}, got {self.variant!r}.")

    def build(self, cfg: ModelConfig) -> "PrePostConnections":
        """See :class:`Architecture`."""
        kind = {"all": NormedAggregation, "residual": NormedResidual}[self.variant]
        return PrePostConnections(self, cfg, kind)


class PreNorm(RMSNorm):
    """The norm of one source, shared by all destinations."""

    def __init__(self, width: int, eps: float | None):
        super().__init__(width, eps)
        self.hook_out = HookPoint()

    def forward(self, x: Float[Tensor, "*shape d"]) -> Float[Tensor, "*shape d"]:
        """The normed source, gain included: what the weights multiply."""
        return self.hook_out(super().forward(x))


class NormedAggregation(Aggregation):
    """DA of normed sources, normed itself, plus the newest state (Eq. 10)."""

    def __init__(self, mudd: MUDD, cfg: ModelConfig, row: int):
        super().__init__(mudd, cfg, row)
        self.post_norms = nn.ModuleDict(
            {s: RMSNorm(cfg.d_model, cfg.eps, gain=1e-3) for s in self.normed_streams}
        )

    @property
    def normed_streams(self) -> tuple[Stream, ...]:
        """The streams whose aggregates are normed."""
        return self.streams

    def init_static(self) -> None:
        """Zero: the newest state is added anyway."""

    def weight_input(
        self,
        newest: Float[Tensor, "batch pos d_model"],  # noqa: ARG002 (a variant's)
        sources: Float[Tensor, "batch pos source d_model"],
    ) -> Float[Tensor, "batch pos d_model"]:
        """What the weight MLP reads: the newest state, normed."""
        return sources[:, :, -1]

    def forward(
        self,
        newest: Float[Tensor, "batch pos d_model"],
        sources: Float[Tensor, "batch pos source d_model"],
    ) -> dict[Stream, Float[Tensor, "batch pos d_model"]]:
        """See :class:`Aggregation`; the sources are normed."""
        streams = super().forward(self.weight_input(newest, sources), sources)
        for stream in self.normed_streams:
            streams[stream] = self.post_norms[stream](streams[stream])
        return {stream: x + newest for stream, x in streams.items()}


class NormedResidual(NormedAggregation):
    """The variant of the JAX code."""

    def __init__(self, mudd: MUDD, cfg: ModelConfig, row: int):
        super().__init__(mudd, cfg, row)
        if self.dynamic:
            self.weight_norm = RMSNorm(cfg.d_model, cfg.eps)

    @property
    def normed_streams(self) -> tuple[Stream, ...]:
        """The streams whose aggregates are normed."""
        return tuple(stream for stream in self.streams if stream == "r")

    def normed(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """See :class:`Aggregation`."""
        return self.weight_norm(x)

    def weight_input(
        self,
        newest: Float[Tensor, "batch pos d_model"],
        sources: Float[Tensor, "batch pos source d_model"],  # noqa: ARG002 (a variant's)
    ) -> Float[Tensor, "batch pos d_model"]:
        """What the weight MLP reads: the newest state, un-normed."""
        return newest


class PrePostConnections(MUDDConnections):
    """A norm of each state besides the aggregations."""

    def __init__(self, mudd: MUDD, cfg: ModelConfig, kind: type[Aggregation]):
        norms = [PreNorm(cfg.d_model, cfg.eps) for _ in range(cfg.n_layers + 1)]
        self.norms = nn.ModuleList(norms)
        super().__init__(mudd, cfg, kind)

    def wired(self, mudd: MUDD) -> StateWiring:
        """See :class:`MUDDConnections`."""
        return PrePostWiring(self, mudd)

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """See :class:`Connections`."""
        return {**super().modules, "dense_pre_norms": self.norms}

    def as_source(
        self, x: Float[Tensor, "batch pos d_model"], source: int
    ) -> Float[Tensor, "batch pos d_model"]:
        """See :class:`MUDDConnections`."""
        return self.norms[source](x)


class PrePostWiring(MUDDWiring):
    """The weights at a gate multiply normed states; the newest state is added to what comes out.

    So with norm scales frozen a read takes a vector, and not a number, of each state.
    """

    between = "PrePostDANorm"

    def __init__(self, connections: PrePostConnections, mudd: MUDD):
        super().__init__(connections, mudd)
        self._norms = connections.norms

    def multiplied(self, write: Write) -> str:
        """See :class:`StateWiring`."""
        return axes.normed_source(self.sources.index(write))

    def parts(self, read: Read) -> tuple[str, ...]:
        """See :class:`StateWiring`."""
        here = cast(NormedAggregation | None, self.aggregation(read))
        if here is None:
            return ()
        scales = (axes.source_scale(j) for j in range(here.n_sources))
        normed = read.stream in here.normed_streams
        after = (axes.aggregate_scale(read.row, read.stream),) if normed else ()
        return (*super().parts(read), *scales, *after)

    def gated(self, read: Read, tape: Tape) -> Float[Tensor, "*token source d_model"]:
        """``(A / scale * gain)``, through the norm of the aggregate, plus one on the newest."""
        here = cast(NormedAggregation | None, self.aggregation(read))
        assert here is not None
        sources = range(here.n_sources)
        scales = torch.stack([wide(tape[axes.source_scale(j)]) for j in sources], dim=-2)
        gains = torch.stack([cast(RMSNorm, self._norms[j]).w.detach() for j in sources])
        weights = super().gated(read, tape) / scales * gains
        if read.stream in here.normed_streams:
            scale = wide(tape[axes.aggregate_scale(read.row, read.stream)])
            gain = cast(RMSNorm, here.post_norms[read.stream]).w
            weights = weights / scale[..., None] * gain.detach()
        newest = torch.zeros_like(weights)
        newest[..., -1, :] = 1.0
        return weights + newest
