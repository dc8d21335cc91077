"""The strongest routes from a component to a stream, and the only one that a baseline has."""

import numpy as np
import plotly.graph_objects as go

from mudd_interp.analysis import Routes
from mudd_interp.paths import Route
from mudd_interp.viz.theme import BASELINE, WIDTH, finish, shown, source_line

_ROW = 34  # pixels
_POSITIVE, _NEGATIVE = "#B2182B", "#2166AC"  # the ends of the signed scale
_WIDEST = 7.0  # pixels of the strongest route


def routes_figure(result: Routes) -> go.Figure:
    """A row for each route, the strongest on top: a dot at every output X_j that it passes.

    Width is the magnitude of the coefficient, colour its sign. The dashed row at the bottom is the
    only route of a plain Transformer, through every output in between.
    """
    figure = go.Figure()
    end = result.layer + 1
    rows = len(result.routes)
    largest = max((abs(route.coefficient) for route in result.routes), default=1.0)
    for rank, route in enumerate(result.routes):
        share = abs(route.coefficient) / (result.magnitude or 1.0)
        _add_row(figure, result, route, rows - rank, largest)
        _label(figure, end, rows - rank, f"{route.coefficient:+.3g} · {share:.1%}")
    plain = [*result.plain_route, end]
    figure.add_trace(
        go.Scatter(
            x=plain,
            y=np.zeros(len(plain)),
            mode="lines+markers",
            line={"color": BASELINE.colour, "dash": "dash", "width": 2},
            marker={"color": BASELINE.colour, "symbol": BASELINE.symbol, "size": 8},
            hovertemplate="plain Transformer: the only route, coefficient 1<extra></extra>",
            name="plain Transformer",
            showlegend=False,
        )
    )
    _label(figure, end, 0, "1 · plain Transformer")
    component = "the embedding" if result.source == 0 else f"what block {result.source - 1} wrote"
    stream = _end(result)
    short = "final" if result.layer == result.n_layers else f"{result.stream.upper()}{result.layer}"
    token = f"{result.position} “{shown(result.tokens[result.position])}”"
    return finish(
        figure,
        f"Strongest routes from {component} to {stream} at token {token}",
        "a dot for each output X_j on the way; number: product of the dense weights (red: "
        "positive, blue: negative), and its share in the magnitude of all routes; these "
        f"{rows} have {result.explained:.1%} of it; total coefficient {result.total:+.3g}, all "
        f"other routes together {result.remainder:+.3g}",
        source_line([result.provenance]),
        width=WIDTH,
        height=_ROW * (rows + 1) + 230,
        margin={"l": 70, "r": 170, "t": 110, "b": 60},
        xaxis={
            "title": "depth",
            "range": [result.source - 0.4, end + 0.4],
            "tickmode": "array",
            "tickvals": list(range(result.source, end + 1)),
            "tickangle": 0,
            "ticktext": [*map(_output, range(result.source, end)), f"<b>{short}</b>"],
            "zeroline": False,
        },
        yaxis={
            "title": "rank",
            "range": [-0.7, rows + 0.7],
            "tickmode": "array",
            "tickvals": list(range(1, rows + 1)),
            "ticktext": [str(rows + 1 - row) for row in range(1, rows + 1)],
            "showgrid": False,
            "zeroline": False,
        },
    )


def _add_row(figure: go.Figure, result: Routes, route: Route, row: int, largest: float) -> None:
    x = [*route.sources, result.layer + 1]
    colour = _POSITIVE if route.coefficient > 0 else _NEGATIVE
    name = result.name(route).replace(">", "→")
    width = max(1.0, _WIDEST * abs(route.coefficient) / largest)
    figure.add_trace(
        go.Scatter(
            x=x,
            y=[row] * len(x),
            mode="lines+markers",
            line={"color": colour, "width": width},
            marker={"color": colour, "size": 10},
            hovertemplate=f"{name}<br>coefficient {route.coefficient:+.4g}<extra></extra>",
            name=name,
            showlegend=False,
        )
    )


def _label(figure: go.Figure, end: int, row: int, text: str) -> None:
    figure.add_annotation(
        x=end + 0.4,
        y=row,
        text=text.replace("-", "−"),
        showarrow=False,
        xanchor="left",
        xshift=6,
        font={"size": 12},
    )


def _output(source: int) -> str:
    return f"X<sub>{source}</sub>"


def _end(result: Routes) -> str:
    final = result.layer == result.n_layers
    return "the final norm" if final else f"{result.stream.upper()} of block {result.layer}"
