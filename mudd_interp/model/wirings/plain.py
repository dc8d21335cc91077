"""The plain Transformer: every read is the newest state as it is."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from mudd_interp.config import ModelConfig
from mudd_interp.model.wirings.base import Architecture, Connections, Flow
from mudd_interp.states import StateWiring


@dataclass(frozen=True, kw_only=True)
class Plain(Architecture):
    """One residual stream, which all read and write."""

    kind = "plain"

    def build(self, cfg: ModelConfig) -> Connections:
        """See :class:`Architecture`."""
        return PlainConnections(cfg)


class PlainConnections(Connections):
    """No parameters; a state is all that flows."""

    def __init__(self, cfg: ModelConfig):
        self.parallel = cfg.parallel_attn_mlp
        self.wiring = StateWiring(cfg.n_layers, parallel=self.parallel)

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """See :class:`Connections`."""
        return {}

    def init_weights(self) -> None:
        """Nothing is drawn."""

    def begin(self) -> Flow:
        """See :class:`Connections`."""
        return Flow(self.parallel)
