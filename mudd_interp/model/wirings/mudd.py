"""MUDD connections: every stream of a block reads all states with its own weights (2.2 to 2.4)."""

from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from mudd_interp import axes
from mudd_interp.config import ModelConfig
from mudd_interp.model.dense import DepthAggregation
from mudd_interp.states import StateWiring
from mudd_interp.wiring import Gates, Read


class MUDDWiring(StateWiring):
    """W is a hooked tensor: ``dense.{i}.hook_weights_{stream}``."""

    def __init__(self, cfg: ModelConfig, dense: nn.ModuleDict):
        super().__init__(cfg.n_layers, cfg.streams, cfg.parallel_attn_mlp)
        self._dense = {int(row): cast(DepthAggregation, each) for row, each in dense.items()}
        self.gates: Gates = "destination" if cfg.dense == "dynamic" else "static"

    def aggregation(self, read: Read) -> DepthAggregation | None:
        """The module that computes the weights of a read, if it has weights of its own."""
        found = self._dense.get(read.row)
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
