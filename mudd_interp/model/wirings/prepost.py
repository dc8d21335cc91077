"""PrePostDANorm: MUDD connections whose sources, and what becomes of them, are normed (Eq. 10)."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mudd_interp import axes
from mudd_interp.config import ModelConfig
from mudd_interp.model.layers import RMSNorm
from mudd_interp.model.wirings.mudd import MUDDWiring
from mudd_interp.precision import wide
from mudd_interp.wiring import Read, Tape, Write


class PrePostWiring(MUDDWiring):
    """The weights at a gate multiply normed states; the newest state is added to what comes out.

    So with norm scales frozen a read takes a vector, and not a number, of each state.
    """

    between = "PrePostDANorm"

    def __init__(self, cfg: ModelConfig, dense: nn.ModuleDict, norms: nn.ModuleList):
        super().__init__(cfg, dense)
        self._norms = [cast(RMSNorm, norm) for norm in norms]

    def multiplied(self, write: Write) -> str:
        """See :class:`StateWiring`."""
        return axes.normed_source(self.states.index(write))

    def parts(self, read: Read) -> tuple[str, ...]:
        """See :class:`StateWiring`."""
        here = self.aggregation(read)
        if here is None:
            return ()
        scales = (axes.source_scale(j) for j in range(here.n_sources))
        normed = read.stream in here.post_norms
        after = (axes.aggregate_scale(read.row, read.stream),) if normed else ()
        return (*super().parts(read), *scales, *after)

    def gated(self, read: Read, tape: Tape) -> Float[Tensor, "*token source d_model"]:
        """``(A / scale * gain)``, through the norm of the aggregate, plus one on the newest."""
        here = self.aggregation(read)
        assert here is not None
        scales = torch.stack([wide(tape[axes.source_scale(j)]) for j in range(here.n_sources)], -2)
        gains = torch.stack([norm.w.detach() for norm in self._norms[: here.n_sources]])
        weights = super().gated(read, tape) / scales * gains
        if read.stream in here.post_norms:
            scale = wide(tape[axes.aggregate_scale(read.row, read.stream)])
            gain = cast(RMSNorm, here.post_norms[read.stream]).w
            weights = weights / scale[..., None] * gain.detach()
        newest = torch.zeros_like(weights)
        newest[..., -1, :] = 1.0
        return weights + newest
