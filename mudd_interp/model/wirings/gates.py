"""The gates of hyper-connections: what a sublayer reads, writes and mixes of n streams."""

import itertools
import math
from functools import cache
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mudd_interp.precision import wide

Exact = Literal["columns", "rows"]


class Gate(nn.Module):
    """Learned numbers, which no token changes.

    Args:
        shape: Of the gate at one token.
    """

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.b = nn.Parameter(torch.zeros(shape))

    def start(self, value: float) -> None:
        """One number everywhere, and little that is dynamic."""
        self.b.fill_(value)

    def forward(self, normed: Float[Tensor, "*token _"]) -> Float[Tensor, "..."]:
        """The gate at each token, before what bounds it; a copy, never the parameter."""
        return wide(self.b).expand(*normed.shape[:-1], *self.b.shape).clone()


class DynamicGate(Gate):
    """A gate with a part that the streams decide: ``a`` times it, plus ``b``."""

    def __init__(self, shape: tuple[int, ...], width: int, outputs: int):
        super().__init__(shape)
        self.W = nn.Parameter(torch.zeros(width, outputs))
        self.a = nn.Parameter(torch.zeros(()))

    def start(self, value: float) -> None:
        """See :class:`Gate`."""
        super().start(value)
        self.W.zero_()
        self.a.fill_(1e-2)

    def projected(self, normed: Float[Tensor, "*shape width"]) -> Float[Tensor, "*shape output"]:
        """``x W`` in the precision of x."""
        return normed @ self.W.to(normed.dtype)


class FlatGate(DynamicGate):
    """``a (x W) + b`` of all streams side by side (mHC, arXiv 2512.24880)."""

    def __init__(self, shape: tuple[int, ...], width: int):
        super().__init__(shape, width, math.prod(shape))

    def forward(self, normed: Float[Tensor, "*token width"]) -> Float[Tensor, "..."]:
        """See :class:`Gate`."""
        return self.a * self.projected(normed).unflatten(-1, self.b.shape) + self.b


class StreamGate(DynamicGate):
    """``a tanh(x_i W) + b`` of each stream by itself (HC, arXiv 2409.19606).

    The last axis of the gate is the stream that is read.
    """

    def __init__(self, shape: tuple[int, ...], width: int):
        super().__init__(shape, width, math.prod(shape[:-1]))

    def forward(self, normed: Float[Tensor, "*token stream d_model"]) -> Float[Tensor, "..."]:
        """See :class:`Gate`."""
        dynamic = torch.tanh(self.projected(normed)).transpose(-1, -2)
        return self.a * dynamic.reshape(*normed.shape[:-2], *self.b.shape) + self.b


class GateNorm(nn.Module):
    """RMSNorm in front of gates, with a gain: of each stream, or of all of them side by side.

    With an epsilon of 0 it is ``x / max(|x|, 1e-12)`` times the root of the width.
    """

    def __init__(self, n_streams: int, d_model: int, eps: float, flat: bool):
        super().__init__()
        self.eps, self.flat = eps, flat
        self.width = n_streams * d_model if flat else d_model
        self.w = nn.Parameter(torch.ones(self.width))

    def forward(self, streams: Float[Tensor, "*token stream d_model"]) -> Float[Tensor, "..."]:
        """The normed streams."""
        x = streams.flatten(-2) if self.flat else streams
        scale = (x.square().mean(-1, keepdim=True) + self.eps).sqrt()
        return x / scale.clamp_min(1e-12 / math.sqrt(self.width)) * self.w


def sinkhorn(
    logits: Float[Tensor, "*token new old"], rounds: int, exact: Exact
) -> Float[Tensor, "*token new old"]:
    """A matrix of positive numbers whose rows and columns sum to one; exactly the last normed."""
    first, last = (-1, -2) if exact == "columns" else (-2, -1)
    for _ in range(rounds):
        logits = logits - logits.logsumexp(first, keepdim=True)
        logits = logits - logits.logsumexp(last, keepdim=True)
    return logits.exp()


def of_permutations(
    logits: Float[Tensor, "*token permutation"], n: int
) -> Float[Tensor, "*token new old"]:
    """``sum_r softmax(logits)_r P_r``: both rows and columns sum to one (mHC-lite)."""
    weights = logits.softmax(-1)
    matrices = permutation_matrices(n).to(weights)
    return (weights @ matrices.flatten(1)).unflatten(-1, (n, n))


@cache
def permutation_matrices(n: int) -> Float[Tensor, "permutation new old"]:
    """Every way to send n streams to n places, in ``itertools.permutations``' order."""
    found = list(itertools.permutations(range(n)))
    matrices = torch.zeros(len(found), n, n)
    for matrix, to in zip(matrices, found, strict=True):
        matrix[list(to), list(range(n))] = 1.0
    return matrices
