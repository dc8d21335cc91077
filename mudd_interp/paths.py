"""Pure functions on weights: what a stream reads of each component once everything is unrolled.

All dense weights are numbers per token, so a stream is an exact linear combination of what the
components wrote. With ``out_0`` the embedding and ``out_{l+1} = attn_l + mlp_l``, a block's output
is ``X_{l+1} = R_l + out_{l+1}``, and ``R_l`` is a weighted sum of ``X_0..X_l`` again. Unrolling
replaces the weights of the X_j by those of the ``out_j``.

The last axis, ``width``, is 1 where a weight is a scalar, and d_model with PrePostDANorm, where
norms with frozen scales make a vector of it. A plain residual is one-hot on the newest source.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor


def newest_only(n_sources: int, like: Float[Tensor, "*token _"]) -> Float[Tensor, "*token _ 1"]:
    """The weights of a plain residual at each token of ``like``: one on the newest source."""
    weights = like.new_zeros(*like.shape[:-1], n_sources, 1)
    weights[..., -1, :] = 1.0
    return weights


def norm_weights(
    weights: Float[Tensor, "*token source 1"],
    source_scale: Float[Tensor, "*token source 1"],
    source_gain: Float[Tensor, "source d_model"],
    scale: Float[Tensor, "*token 1"] | None = None,
    gain: Float[Tensor, " d_model"] | None = None,
) -> Float[Tensor, "*token source d_model"]:
    """What PrePostDANorm multiplies each X_j by, norm scales frozen (paper, Eq. 10).

    Args:
        weights: The dense weights, which multiply the normed sources.
        source_scale: The divisor of each source's norm.
        source_gain: The gain of each source's norm.
        scale: The divisor of the norm of the aggregate, where it has one.
        gain: The gain of that norm.
    """
    total = weights / source_scale * source_gain
    if scale is not None and gain is not None:
        total = total / scale[..., None] * gain
    newest = torch.zeros_like(total)
    newest[..., -1, :] = 1.0
    return total + newest


def unroll(
    weights: Float[Tensor, "*token source _"], residual: Sequence[Float[Tensor, "..."]]
) -> Float[Tensor, "*token source _"]:
    """The coefficient of what each component wrote, from the weights of the X_j that contain it.

    Args:
        weights: What a stream multiplies X_0..X_n by.
        residual: ``residual[l]`` is what R_l, the residual stream that enters block ``l``,
            multiplies X_0..X_l by, ``[*token source width]``; at least for ``l < n``.

    Returns:
        The coefficients of ``out_0`` (the embedding), ``out_1`` (block 0), .., ``out_n``.
    """
    total = list(weights.unbind(-2))
    for newest in range(len(total) - 1, 0, -1):
        below = residual[newest - 1].unbind(-2)
        for source, weight in enumerate(below):
            total[source] = total[source] + total[newest] * weight
    return torch.stack(torch.broadcast_tensors(*total), dim=-2)


@dataclass(frozen=True)
class Route:
    """One way from a component to a stream, at one token.

    Attributes:
        sources: Which X_j are passed, in the order of depth; the first is where the component's
            output comes in, the last what the stream reads.
        coefficient: The product of the weights along the way, dimensionless.
    """

    sources: tuple[int, ...]
    coefficient: float


def strongest_routes(
    weights: Float64[np.ndarray, " source"],
    residual: Sequence[Float64[np.ndarray, "..."]],
    start: int,
    k: int,
) -> list[Route]:
    """The ``k`` routes of largest magnitude from a component to a stream, strongest first.

    Every part of a strongest route is one of the ``k`` strongest to where it ends, so the ``k``
    best at each X_j, in the order of depth, are enough.

    Args:
        weights: What the stream multiplies X_0..X_n by at the token.
        residual: What R_l multiplies X_0..X_l by, for ``l < n``.
        start: The component: 0 is the embedding, ``l + 1`` is block ``l``.
        k: How many routes to keep.
    """
    best: list[list[Route]] = [[] for _ in weights]
    for source in range(start, len(weights)):
        if source == start:
            best[source] = [Route((start,), 1.0)]
        else:
            best[source] = _extended(best, residual[source - 1], source, k)
    ends = [
        Route(route.sources, route.coefficient * float(weight))
        for routes, weight in zip(best, weights, strict=True)
        for route in routes
    ]
    return _largest(ends, k)


def _extended(
    best: Sequence[Sequence[Route]], weights: Float64[np.ndarray, " source"], to: int, k: int
) -> list[Route]:
    return _largest(
        [
            Route((*route.sources, to), route.coefficient * float(weight))
            for routes, weight in zip(best, weights, strict=False)
            for route in routes
        ],
        k,
    )


def _largest(routes: list[Route], k: int) -> list[Route]:
    """The ``k`` routes of largest magnitude that are not zero; shorter ones first among equals."""
    found: Any = [route for route in routes if route.coefficient != 0]
    return heapq.nsmallest(
        k, found, key=lambda route: (-abs(route.coefficient), len(route.sources))
    )
