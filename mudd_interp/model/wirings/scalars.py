"""nanochat's residual scalars: a block reads the newest state and X_0, by learned numbers.

In front of block ``l`` the stream becomes ``r_l x + lambda_l x_0``, sublayers are added to it as in
a plain Transformer, and the head reads ``x - b`` times the state behind block ``L // 2``.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from mudd_interp import axes
from mudd_interp.config import ModelConfig
from mudd_interp.model.wirings.base import Architecture, Connections, Flow, Streams, same_streams
from mudd_interp.model.wirings.static import averaged
from mudd_interp.states import StateWiring
from mudd_interp.wiring import Read, newest_source


@dataclass(frozen=True, kw_only=True)
class Scalars(Architecture):
    """nanochat's residual scalars: resid and x0 lambdas of each block, and backout at the head.

    What nanochat has besides is no wiring: value embeddings, smear, a softcap (see ``ModelConfig``
    and its ``front`` and ``task``).
    """

    kind = "scalars"

    def build(self, cfg: ModelConfig) -> "ScalarConnections":
        """See :class:`Architecture`."""
        return ScalarConnections(cfg)


class Lambdas(nn.Module):
    """The numbers, under nanochat's names."""

    def __init__(self, n_layers: int):
        super().__init__()
        self.resid_lambdas = nn.Parameter(torch.ones(n_layers))
        self.x0_lambdas = nn.Parameter(torch.zeros(n_layers))
        self.backout_lambda = nn.Parameter(torch.zeros(1))

    def init_weights(self) -> None:
        """nanochat's: resid from 1.15 in block 0 to 1.05, x0 from 0.20 to 0.05, backout 0.2."""
        depth = torch.linspace(0, 1, len(self.resid_lambdas))
        with torch.no_grad():
            self.resid_lambdas.copy_(1.15 - 0.10 * depth)
            self.x0_lambdas.copy_(0.20 - 0.15 * depth)
            self.backout_lambda.fill_(0.2)


class Row(nn.Module):
    """A hook on the numbers of one read, at each token."""

    def __init__(self):
        super().__init__()
        self.hook_weights_r = HookPoint()


class ScalarConnections(Connections):
    """One set of numbers, and a hook in front of each block and of the head."""

    def __init__(self, cfg: ModelConfig):
        self.n_layers, self.parallel = cfg.n_layers, cfg.parallel_attn_mlp
        self.lambdas = Lambdas(cfg.n_layers)
        self.rows = [Row() for _ in range(cfg.n_layers + 1)]
        self.wiring = ScalarWiring(self)

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """See :class:`Connections`."""
        names = (axes.FIRST_ROW, *map(str, range(self.n_layers)))
        return {
            "scalars": self.lambdas,
            "dense": nn.ModuleDict(dict(zip(names, self.rows, strict=True))),
        }

    def init_weights(self) -> None:
        """As nanochat begins, which is not the plain twin."""
        self.lambdas.init_weights()

    def states(self, layer: int) -> tuple[int, ...]:
        """Which states a block reads, or with the number of blocks the head."""
        older = newest_source(self.n_layers // 2) if layer == self.n_layers else 0
        return tuple(sorted({min(older, layer), layer}))

    def numbers(self, layer: int) -> Float[Tensor, " source"]:
        """How much of each."""
        one = self.lambdas.backout_lambda.new_ones(1)
        if layer == self.n_layers:
            older, newest = -self.lambdas.backout_lambda, one
        else:
            own = slice(layer, layer + 1)
            older, newest = self.lambdas.x0_lambdas[own], self.lambdas.resid_lambdas[own]
        return older + newest if len(self.states(layer)) == 1 else torch.cat([older, newest])

    def begin(self) -> Flow:
        """See :class:`Connections`."""
        return ScalarFlow(self)


class ScalarFlow(Flow):
    """The states so far."""

    def __init__(self, connections: ScalarConnections):
        super().__init__(connections.parallel)
        self._connections = connections
        self._states: list[Float[Tensor, "batch pos d_model"]] = []

    def write(self, x: Float[Tensor, "batch pos d_model"]) -> None:
        """See :class:`Flow`."""
        self._states.append(x)

    def streams(self) -> Streams:
        """See :class:`Flow`."""
        layer, here = len(self._states) - 1, self._connections
        read = [self._states[j] for j in here.states(layer)]
        return same_streams(averaged(here.rows[layer].hook_weights_r, here.numbers(layer), read))


class ScalarWiring(StateWiring):
    """W is learned, and a hooked tensor: ``dense.{i}.hook_weights_r``, that of block 0 too."""

    def __init__(self, connections: ScalarConnections):
        super().__init__(connections.n_layers, parallel=connections.parallel)
        self._connections = connections

    def columns(self, read: Read) -> tuple[int, ...]:
        """See :class:`Wiring`: X_0 and the newest; of the head the middle one and the newest."""
        return self._connections.states(read.layer)

    def gate(self, read: Read) -> str:
        """See :class:`StateWiring`."""
        return axes.dense_weights(read.row, read.stream)

    def learned(self, read: Read) -> Float[Tensor, " source"]:
        """See :class:`StateWiring`."""
        return self._connections.numbers(read.layer).detach()
