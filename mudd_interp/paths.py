"""The strongest routes by which what a component wrote reaches a stream, at one token.

With ``out_0`` the embedding and ``out_{l+1}`` what block ``l`` wrote, a block's output is ``X_{l+1}
= R_l + out_{l+1}``, and ``R_l`` is a weighted sum of ``X_0..X_l`` again. So a route goes from one
X_j to another, and its coefficient is the product of the weights along the way.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64


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
