"""Curves over depth: one for each stream, in its style and with its letter at the end."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, log10
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mudd_interp.analysis import Result
from mudd_interp.axes import Stream
from mudd_interp.viz.theme import (
    BASELINE,
    STREAM_STYLES,
    LineStyle,
    escape,
    integer_ticks,
    stream_title,
)

Limits = tuple[float, float]
"""The lower and the upper end of an axis, in the units of the data."""

SUBTRACTED = "each stream minus the baseline's (its R, where it has no other)"
"""How the streams of two models are subtracted, in words."""

LAYOUT: dict[str, Any] = {
    "legend": {"orientation": "h", "x": 0, "y": -0.14, "yanchor": "top"},
    "showlegend": True,
    "margin": {"l": 70, "r": 40, "t": 95, "b": 95},
    "hovermode": "x",
}
"""The legend below the axis title, even for one curve, with room for it."""

_LABEL_GAP = 0.055  # share of the height of the plot that two letters need


def with_final_norm(n_layers: int) -> dict[str, Any]:
    """:data:`LAYOUT` with an x axis of the blocks, and behind the last one the final norm."""
    return {
        **LAYOUT,
        "xaxis": {
            **integer_ticks(n_layers + 1, 25),
            "title": f"block l (l = {n_layers}: what enters the final norm, R only)",
            "range": [-0.4, n_layers + 0.4],
        },
    }


@dataclass(frozen=True)
class Curve:
    """One curve of a figure.

    Attributes:
        name: Its name in the legend; escaped.
        letter: The letter at its end; ``""`` for none.
        style: How it is drawn.
        rows: Its points, by ``layer``.
    """

    name: str
    letter: str
    style: LineStyle
    rows: pd.DataFrame


def stream_curves(result: Result, baseline: Result | None, as_baseline: bool) -> list[Curve]:
    """A curve for each stream of a model, and the stream r of the baseline, dashed.

    Args:
        result: Of the model in question.
        baseline: Of the Transformer beside it.
        as_baseline: ``result`` is itself the baseline: its stream r, dashed, and nothing else.
    """
    if as_baseline:
        return [_baseline_curve(result)]
    model = escape(result.provenance.model)
    curves = [
        Curve(f"{model}: {curve.name}", curve.letter, curve.style, curve.rows)
        for curve in difference_curves(result.frame, result.streams)
    ]
    return curves if baseline is None else [*curves, _baseline_curve(baseline)]


def difference_curves(frame: pd.DataFrame, streams: Sequence[Stream]) -> list[Curve]:
    """A curve for each stream of a table, without a model's name."""
    return [
        Curve(stream_title(stream), stream.upper(), STREAM_STYLES[stream], _rows(frame, stream))
        for stream in streams
    ]


def _baseline_curve(result: Result) -> Curve:
    name = f"{escape(result.provenance.model)} (baseline)"
    return Curve(name, "", BASELINE, _rows(result.frame, "r"))


def _rows(frame: pd.DataFrame, stream: Stream) -> pd.DataFrame:
    return frame.loc[frame["stream"] == stream]


def draw(figure: go.Figure, curves: Sequence[Curve], column: str, number: str = ".4f") -> None:
    """Add the curves.

    Args:
        figure: Where to.
        curves: What to draw.
        column: Which column of their tables.
        number: The format of a number under the pointer.
    """
    for curve in curves:
        hover = f"%{{y:{number}}}<extra>{curve.name}</extra>"
        x, y = curve.rows["layer"], curve.rows[column]
        figure.add_trace(
            curve.style.trace(
                x=x, y=y, name=curve.name, hovertemplate=hover, legendgroup=curve.name
            )
        )


def label_ends(
    figure: go.Figure, curves: Sequence[Curve], column: str, limits: Limits, log: bool = False
) -> None:
    """Write each stream's letter beside the last point of its curve, so that none overlap.

    Args:
        figure: The figure.
        curves: Its curves.
        column: Which column of their tables they show.
        limits: The ends of the y axis.
        log: Whether that axis is logarithmic.
    """
    low, high = (log10(end) if log else end for end in limits)
    ends = [_end(curve, column, log) for curve in curves if curve.letter]
    for layer in sorted({layer for layer, _, _ in ends}):
        here = sorted((end for end in ends if end[0] == layer), key=lambda end: -end[1])
        heights = spread([height for _, height, _ in here], _LABEL_GAP * (high - low), high)
        for (_, _, curve), height in zip(here, heights, strict=True):
            _add_letter(figure, layer, height, curve)


def _end(curve: Curve, column: str, log: bool) -> tuple[int, float, Curve]:
    layer, value = curve.rows[["layer", column]].to_numpy()[-1].tolist()
    return int(layer), log10(value) if log else value, curve


def _add_letter(figure: go.Figure, layer: int, height: float, curve: Curve) -> None:
    figure.add_annotation(
        x=layer,
        y=height,
        text=f"<b>{curve.letter}</b>",
        font={"color": curve.style.colour, "size": 14},
        bgcolor="#FFFFFF",
        borderpad=0,
        showarrow=False,
        xanchor="left",
        xshift=10,
    )


def spread(heights: Sequence[float], gap: float, high: float) -> list[float]:
    """Heights near the given ones, at least a gap apart and below an upper end.

    Args:
        heights: From the highest down.
        gap: How far apart.
        high: The upper end.
    """
    up = [-height for height in _pushed_down([-height for height in heights[::-1]], gap)][::-1]
    down = _pushed_down(heights, gap)
    middle = [(a + b) / 2 for a, b in zip(up, down, strict=True)]
    return _pushed_down(middle, gap, high)


def _pushed_down(heights: Sequence[float], gap: float, above: float = inf) -> list[float]:
    pushed = list[float]()
    for height in heights:
        above = min(height, above - gap)
        pushed.append(above)
    return pushed


def difference_axis(title: str, curves: Sequence[Curve], column: str) -> dict[str, Any]:
    """A y axis around 0 that holds all curves, with a line at 0.

    Args:
        title: What it shows, with its unit.
        curves: What is drawn.
        column: Which column of their tables.
    """
    end = 1.1 * max(float(np.abs(curve.rows[column]).max()) for curve in curves) or 1.0
    return {
        "title": title,
        "range": (-end, end),
        "zeroline": True,
        "zerolinecolor": "#999999",
        "zerolinewidth": 1,
    }
