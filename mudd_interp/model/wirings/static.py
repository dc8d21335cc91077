"""Static connections with a period and a dilation: DenseFormer (arXiv 2402.02622)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from mudd_interp import axes
from mudd_interp.config import ModelConfig
from mudd_interp.model.points import enter, has_hooks
from mudd_interp.model.wirings.base import (
    Architecture,
    Connections,
    Flow,
    Streams,
    same_streams,
    whole_number,
)
from mudd_interp.states import StateWiring
from mudd_interp.wiring import Read, newest_source


@dataclass(frozen=True, kw_only=True)
class Static(Architecture):
    """DenseFormer's depth-weighted averages: learned weights, which no token changes.

    After every ``period``-th block, what the next one reads is a weighted sum of X_0..X_i, of those
    whose number differs from i by a multiple of ``dilation``; after the others it is X_i itself.
    With both at 1 it is ``MUDD(ways="one", dynamic=False)``. (The paper's training code counts
    groups of ``period`` blocks: its dilation times its period is this one.)

    Attributes:
        period: Blocks from one average to the next.
        dilation: From one state that an average reads to the next.

    Raises:
        ValueError: If one of them is not a whole number of at least 1.
    """

    kind = "static"

    period: int = 1
    dilation: int = 1

    def __post_init__(self) -> None:
        """Check both."""
        for name in ("period", "dilation"):
            whole_number(name, getattr(self, name))

    def averaged(self, row: int) -> tuple[int, ...]:
        """Which states the average after a block is of; none where there is no average."""
        newest = newest_source(row)
        if newest % self.period:
            return ()
        return tuple(range(newest % self.dilation, newest + 1, self.dilation))

    def build(self, cfg: ModelConfig) -> "StaticConnections":
        """See :class:`Architecture`."""
        return StaticConnections(self, cfg)


class Average(nn.Module):
    """``sum_j a_j X_j``, with a hook on the weights at each token."""

    def __init__(self, states: tuple[int, ...]):
        super().__init__()
        self.states = states
        self.a = nn.Parameter(torch.zeros(len(states)))
        self.hook_weights_r = HookPoint()

    def forward(
        self, states: list[Float[Tensor, "batch pos d_model"]]
    ) -> Float[Tensor, "batch pos d_model"]:
        """What the next block reads, of all states so far."""
        return averaged(self.hook_weights_r, self.a, [states[j] for j in self.states])


def averaged(
    hook: nn.Module,
    weights: Float[Tensor, " source"],
    states: Sequence[Float[Tensor, "batch pos d_model"]],
) -> Float[Tensor, "batch pos d_model"]:
    """``sum_j a_j X_j``, with weights that no token changes but by a hook on them."""
    stacked = torch.stack(list(states), dim=2)
    at_tokens = weights.expand(*stacked.shape[:3])
    if has_hooks(hook):
        at_tokens = enter(hook, at_tokens.clone())  # a hook never has the parameter
    return (at_tokens[..., None, :] @ stacked).squeeze(2)


class StaticConnections(Connections):
    """An average after every ``period``-th block."""

    def __init__(self, static: Static, cfg: ModelConfig):
        self.parallel = cfg.parallel_attn_mlp
        rows = {row: static.averaged(row) for row in range(cfg.n_layers)}
        self.dense = nn.ModuleDict(
            {str(row): Average(states) for row, states in rows.items() if states}
        )
        self.wiring = StaticWiring(self, cfg)

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """See :class:`Connections`."""
        return {"dense": self.dense}

    def init_weights(self) -> None:
        """One on the newest state: a fresh model is its plain twin."""
        with torch.no_grad():
            for each in self.dense.values():
                average = cast(Average, each)
                average.a.zero_()
                average.a[-1] = 1.0

    def average(self, row: int) -> Average | None:
        """The average after a block, if there is one."""
        return cast(Average, self.dense[str(row)]) if str(row) in self.dense else None

    def begin(self) -> Flow:
        """See :class:`Connections`."""
        return StaticFlow(self)


class StaticFlow(Flow):
    """The states so far."""

    def __init__(self, connections: StaticConnections):
        super().__init__(connections.parallel)
        self._connections = connections
        self._states: list[Float[Tensor, "batch pos d_model"]] = []

    def write(self, x: Float[Tensor, "batch pos d_model"]) -> None:
        """See :class:`Flow`."""
        super().write(x)
        self._states.append(x)

    def streams(self) -> Streams:
        """See :class:`Flow`."""
        here = self._connections.average(len(self._states) - 2)
        return super().streams() if here is None else same_streams(here(self._states))


class StaticWiring(StateWiring):
    """W is learned, and a hooked tensor: ``dense.{i}.hook_weights_r``."""

    def __init__(self, connections: StaticConnections, cfg: ModelConfig):
        super().__init__(cfg.n_layers, parallel=cfg.parallel_attn_mlp)
        self._connections = connections

    def columns(self, read: Read) -> tuple[int, ...]:
        """See :class:`Wiring`: of a row without an average all, one on the newest."""
        here = self._connections.average(read.row)
        return super().columns(read) if here is None else here.states

    def gate(self, read: Read) -> str | None:
        """See :class:`StateWiring`."""
        here = self._connections.average(read.row)
        return None if here is None else axes.dense_weights(read.row, read.stream)

    def learned(self, read: Read) -> Float[Tensor, " source"]:
        """See :class:`StateWiring`."""
        here = self._connections.average(read.row)
        assert here is not None
        return here.a.detach()
