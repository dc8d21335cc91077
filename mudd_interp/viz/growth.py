"""How cost grows: time and memory against length and depth, log by log."""

from itertools import product
from math import floor, log10
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mudd_interp.viz.theme import BASELINE, MUDD, finish

_COSTS = {"seconds": "seconds", "MB": "peak above the model, MB"}
_AXES = ("tokens", "layers")
STYLES = (MUDD, BASELINE)
_IN_CORNER: dict[str, Any] = {
    "showarrow": False,
    "align": "left",
    "xanchor": "right",
    "yanchor": "bottom",
    "x": 0.98,
    "y": 0.04,
    "xref": "x domain",
    "yref": "y domain",
}


def growth_figure(points: pd.DataFrame, exponents: pd.DataFrame, source: str) -> go.Figure:
    """Time and peak memory of a forward pass, log-log, with the fitted exponents.

    Args:
        points: Columns ``axis``, ``tokens``, ``layers``, ``model``, ``seconds``, ``MB``.
        exponents: Columns ``axis``, ``model``, ``cost``, ``exponent``.
        source: What was measured and where; written below the figure.
    """
    panels = list(product(_COSTS, _AXES))
    figure = make_subplots(rows=2, cols=2, horizontal_spacing=0.1, vertical_spacing=0.14)
    slopes = exponents.set_index(["axis", "model", "cost"])["exponent"]
    for number, (cost, axis) in enumerate(panels):
        place: dict[str, Any] = {"row": number // 2 + 1, "col": number % 2 + 1}
        shown, fits = points[points["axis"] == axis], list[str]()
        for style, (model, group) in zip(STYLES, shown.groupby("model", sort=False), strict=True):
            slope = f"{slopes[axis, model, cost]:.2f}"
            fits.append(f"{model}: {axis}<sup>{slope}</sup>")
            trace = style.trace(
                x=group[axis],
                y=group[cost],
                name=str(model),
                legendgroup=str(model),
                showlegend=number == 0,
                hovertemplate=f"%{{x}} {axis}: %{{y:.3g}}<extra>{model}: {axis}^{slope}</extra>",
            )
            figure.add_trace(trace, **place)
        figure.add_annotation(text="<br>".join(fits), **_IN_CORNER, **place)
        sizes = sorted(set(shown[axis]))
        figure.update_xaxes(type="log", title=axis, tickvals=sizes, **place)
        figure.update_yaxes(
            title=_COSTS[cost], **_log_axis([float(value) for value in shown[cost]]), **place
        )
    return finish(
        figure,
        "How the cost of a forward pass grows",
        "medians; fitted exponents in each panel",
        source,
        height=700,
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"},
    )


def _log_axis(values: list[float]) -> dict[str, Any]:
    """An axis from one round number to another, with a tick at every 1, 2 and 5 between them."""
    powers = range(floor(log10(min(values))), floor(log10(max(values))) + 2)
    ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    first = max(tick for tick in ticks if tick <= min(values))
    last = min(tick for tick in ticks if tick >= max(values))
    shown = [tick for tick in ticks if first <= tick <= last]
    return {
        "type": "log",
        "range": [log10(first), log10(last)],
        "tickvals": shown,
        "ticktext": [f"{tick:g}" for tick in shown],
    }
