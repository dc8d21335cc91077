"""What one head reads: bars of the components that wrote its query, key and value, by route."""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mudd_interp.analysis import HeadInputs
from mudd_interp.analysis.head_inputs import INPUTS
from mudd_interp.axes import STREAM_NAMES
from mudd_interp.viz.theme import finish, source_line

_ROUTES = {
    "direct": ("by the stream's own edge", "#C8641B"),
    "chain": ("through later outputs", "#4C6A92"),
}
_ROW = 26  # pixels of a component
OTHERS = "all others"


def head_inputs_figure(result: HeadInputs, shown: int = 12) -> go.Figure:
    """The components with the largest shares in a head's query, key and value.

    Bars are means over tokens; the mark is the sum of both routes, with its 95% interval.

    Args:
        result: Of one head.
        shown: How many components of each input to name; the others are added up.

    Raises:
        ValueError: If ``shown`` is below one.
    """
    if shown < 1:
        raise ValueError(f"shown must be at least 1, got {shown}.")
    frame: Any = result.frame
    figure = make_subplots(
        rows=1,
        cols=len(INPUTS),
        subplot_titles=[STREAM_NAMES[stream] for stream in INPUTS],
        horizontal_spacing=0.115,
    )
    figure.update_annotations(font_size=12.5)
    tables = [_largest(frame[frame["stream"] == stream], shown) for stream in INPUTS]
    for column, table in enumerate(tables, start=1):
        _add(figure, table, column)
    name = f"{result.layer}.{result.head}"
    return finish(
        figure,
        f"What writes the inputs of head {name} of {result.provenance.model}",
        "share of each component in the query, key or value (before QK-norm and rotary, norm "
        "scale frozen): c·x / x·x, dimensionless, signed, all of them sum to one; means over "
        "tokens, both routes together with the 95% interval (bootstrap over sequences); constant: "
        "biases of norm and projection",
        source_line([result.provenance]),
        barmode="relative",
        bargap=0.3,
        height=250 + _ROW * max(map(len, tables)),
        legend={"orientation": "h", "x": 0, "y": 0.01, "yanchor": "bottom", "yref": "container"},
        margin={"l": 95, "r": 30, "t": 120, "b": 95},
    )


def _largest(rows: Any, shown: int) -> pd.DataFrame:
    """The components with the largest shares, in descending order; the rest in one row, last."""
    order = rows["total"].abs().sort_values(ascending=False, kind="stable").index
    rest = rows.loc[order[shown:], [*_ROUTES, "total"]].sum()
    tables = [rows.loc[order[:shown]], pd.DataFrame([{"component": OTHERS, **rest}])]
    return pd.concat(tables[: 1 + (len(order) > shown)], ignore_index=True)


def _add(figure: go.Figure, table: pd.DataFrame, column: int) -> None:
    names: list[str] = table["component"].tolist()
    rows = np.arange(len(names))
    for route, (words, colour) in _ROUTES.items():
        bar = go.Bar(
            x=table[route],
            y=rows,
            orientation="h",
            marker={"color": colour},
            name=words,
            legendgroup=route,
            showlegend=column == 1,
            hovertext=names,
            hovertemplate="%{hovertext}: %{x:.4f}<extra>" + words + "</extra>",
        )
        figure.add_trace(bar, row=1, col=column)
    interval: dict[str, Any] = {
        "array": table["total_high"] - table["total"],
        "arrayminus": table["total"] - table["total_low"],
        "thickness": 1.2,
        "color": "#444444",
    }
    mark = go.Scatter(
        x=table["total"],
        y=rows,
        mode="markers",
        marker={"color": "#222222", "symbol": "line-ns-open", "size": 9},
        error_x=interval,
        name="both",
        legendgroup="both",
        showlegend=column == 1,
        hoverinfo="skip",
    )
    figure.add_trace(mark, row=1, col=column)
    figure.update_yaxes(
        tickmode="array",
        tickvals=rows.tolist(),
        ticktext=names,
        range=[len(names) - 0.4, -0.6],
        ticklabelstandoff=5,
        showgrid=False,
        zeroline=False,
        col=column,
    )
    figure.update_xaxes(title="share", zerolinecolor="#888888", col=column)
