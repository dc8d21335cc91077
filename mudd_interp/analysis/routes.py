"""How a component reaches a stream: the strongest routes through the dense weights."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from mudd_interp.analysis.inputs import STATES
from mudd_interp.analysis.predictions import as_float64
from mudd_interp.analysis.sequence import SequenceResult, last_position, run_pass
from mudd_interp.axes import Stream
from mudd_interp.paths import Route, strongest_routes
from mudd_interp.protocol import CachedModel, require_traits
from mudd_interp.wiring import unrolled


@dataclass(frozen=True, eq=False, kw_only=True)
class Routes(SequenceResult):
    """The strongest routes from a component to a stream at one token, strongest first.

    A route enters at the X_j that first contains the component's output, passes from X_j to X_k
    through the R stream of block ``k - 1``, and ends where the stream reads the last of them. Its
    coefficient is the product of the weights on the way (dimensionless, signed); all routes
    together give the component's total coefficient.

    Attributes:
        source: The component: 0 is the embedding, ``l + 1`` what block ``l`` wrote.
        layer: The block that reads the stream; n_layers is the final norm.
        stream: Which of its inputs.
        position: The token.
        routes: The strongest ones.
        total: The total coefficient.
        magnitude: The sum of the magnitudes of all routes.
        n_layers: Number of blocks.
    """

    source: int
    layer: int
    stream: Stream
    position: int
    routes: tuple[Route, ...]
    total: float
    magnitude: float
    n_layers: int

    @property
    def remainder(self) -> float:
        """The coefficient of all other routes together."""
        return self.total - sum(route.coefficient for route in self.routes)

    @property
    def explained(self) -> float:
        """The share of these routes in the magnitude of all, 0..1."""
        found = sum(abs(route.coefficient) for route in self.routes)
        return found / self.magnitude if self.magnitude else 1.0

    @property
    def plain_route(self) -> tuple[int, ...]:
        """The only route that a plain Transformer has: through every output in between."""
        return tuple(range(self.source, self.layer + 1))

    @property
    def frame(self) -> pd.DataFrame:
        """Columns ``rank route hops coefficient share``; the last row is the remainder.

        ``share`` is of the sum of magnitudes, 0..1. ``route`` is written ``X1 > X4 > V8``.
        Coefficients sum to the total coefficient, shares to one.
        """
        sizes = [abs(route.coefficient) for route in self.routes]
        rest = max(self.magnitude - sum(sizes), 0.0)
        whole = self.magnitude or 1.0
        rows = {
            "rank": pd.array([*range(1, len(sizes) + 1), pd.NA], dtype="Int64"),
            "route": [*(self.name(route) for route in self.routes), "all others"],
            "hops": pd.array([*(len(r.sources) for r in self.routes), pd.NA], dtype="Int64"),
            "coefficient": [*(route.coefficient for route in self.routes), self.remainder],
            "share": [size / whole for size in (*sizes, rest)],
        }
        return pd.DataFrame(rows)

    def name(self, route: Route) -> str:
        """A route in words: ``X1 > X4 > V8``."""
        end = "final" if self.layer == self.n_layers else f"{self.stream.upper()}{self.layer}"
        return " > ".join([*(f"X{source}" for source in route.sources), end])


@torch.no_grad()
def routes(
    model: CachedModel,
    tokens: Any,
    source: int,
    layer: int | None = None,
    stream: Stream = "r",
    position: int | None = None,
    k: int = 10,
    data: str = "the prompt",
) -> Routes:
    """The strongest routes from a component to a stream, at one token.

    Args:
        model: Any hooked model whose dense weights are numbers, in evaluation mode.
        tokens: int64 token ids ``[pos]`` or ``[1 pos]``.
        source: The component: 0 is the embedding, ``l + 1`` what block ``l`` wrote.
        layer: The block that reads the stream; ``None`` or n_layers is the final norm.
        stream: Which of its inputs; the final norm reads r only.
        position: The token; ``None`` is the last one.
        k: How many routes.
        data: What the sequence is, in words; it goes into the provenance.

    Raises:
        ValueError: If there is not one sequence of valid ids, no such place, the model is in
            training mode, it keeps no states that a route could lead through, or it has
            PrePostDANorm, whose weights are vectors, which no single number ranks.
    """
    require_traits(model, "routes", STATES)
    n_layers: int = model.cfg.n_layers
    position, layer = last_position(model, tokens, position), n_layers if layer is None else layer
    _check_place(n_layers, source, layer, k)
    if model.wiring.between is not None:
        raise ValueError(
            "routes are ranked by their weights, but with PrePostDANorm each is a vector: look at "
            "path_coefficients or stream_decomposition."
        )
    options = {"source": source, "layer": layer, "stream": stream, "position": position, "k": k}
    found = run_pass(model, tokens, (), data, options, position)
    weights = _at_token(found.weights(layer, stream))
    residual = [_at_token(found.weights(below)) for below in range(layer)]
    coefficients = _unroll(weights, residual)
    magnitudes = _unroll(weights.abs(), [each.abs() for each in residual])
    best = strongest_routes(
        as_float64(weights[:, 0]), [as_float64(each[:, 0]) for each in residual], source, k
    )
    direct = found.cache.path_coefficients(layer, stream)
    error = float((_at_token(direct)[:, 0] - coefficients).abs().max())
    return Routes(
        **found.labels,
        completeness_error=error / (float(magnitudes.max()) or 1.0),
        source=source,
        layer=layer,
        stream=stream,
        position=position,
        routes=tuple(best),
        total=float(coefficients[source]),
        magnitude=float(magnitudes[source]),
        n_layers=n_layers,
    )


def _unroll(weights: Tensor, residual: list[Tensor]) -> Tensor:
    """What a stream takes of each component, from its weights of the states."""
    return unrolled(residual, weights[0, 0]).read(weights)[:, 0]


def _at_token(weights: Tensor) -> Tensor:
    """``[source 1]`` in float64, of the one position that was kept."""
    return weights[0].double()


def _check_place(n_layers: int, source: int, layer: int, k: int) -> None:
    if not 0 <= layer <= n_layers:
        raise ValueError(f"layer must lie in 0..{n_layers} (the final norm), got {layer}.")
    if not 0 <= source <= layer:
        raise ValueError(
            f"source must lie in 0..{layer} for what block {layer} reads (0 is the embedding, "
            f"l + 1 what block l wrote), got {source}."
        )
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}.")
