"""Triangles of weights: rows are aggregations from the bottom up, columns are sources."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float64
from plotly.subplots import make_subplots

from mudd_interp.analysis import Provenance, counterpart
from mudd_interp.axes import Stream
from mudd_interp.viz.theme import (
    BASELINE,
    HEIGHT,
    ROBUST_QUANTILE,
    SIGNED,
    colorbar,
    integer_ticks,
    named_ticks,
    robust_limit,
    stream_title,
)

Grid = Float64[np.ndarray, "layer source"]
Panel = tuple[str, Stream]
"""A statistic, and its stream."""

Names = tuple[tuple[str, ...], tuple[str, ...]]
"""What rows and sources are called, where they are no aggregations and states; else empty."""

_ROW = 200  # pixels of each row of triangles beyond the second
MARGIN = {"l": 75, "r": 30, "t": 115, "b": 60}


def triangles(
    frame: pd.DataFrame,
    streams: Sequence[Stream],
    statistics: Sequence[str],
    baseline: pd.DataFrame | None = None,
    *,
    of: Provenance,
) -> go.Figure:
    """A triangle for each stream and statistic; what does not exist is blank.

    Args:
        frame: A table with the columns ``stream``, ``layer``, ``source``, and the statistics.
        streams: Which streams to draw.
        statistics: Which columns to draw, each of them in every stream.
        baseline: The same table of the model beside it: in each row a cross on the source that it
            reads most, and none where all is zero. If it has one stream, ``r``, that stands for
            each of the four.
        of: Of the results, which says what rows and sources are called.

    Raises:
        ValueError: If the models differ in their number of layers.
    """
    panels: list[Panel] = [(statistic, stream) for statistic in statistics for stream in streams]
    columns = _columns(len(statistics), len(streams))
    rows, n_layers = -(-len(panels) // columns), _n_layers(frame)
    names = (of.rows, of.sources)
    traces: list[Any] = [_triangle(frame, panel, names) for panel in panels]
    if baseline is not None:
        _check_depth(n_layers, _n_layers(baseline))
        traces += [_crosses(baseline, panel) for panel in panels]
    for i, trace in enumerate(traces):
        number = i % len(panels)
        trace.xaxis, trace.yaxis = (f"{letter}{number + 1 if number else ''}" for letter in "xy")
    return go.Figure(traces, _layout(tuple(panels), rows, columns, n_layers, names))


@cache
def _layout(
    panels: tuple[Panel, ...], rows: int, columns: int, n_layers: int, names: Names
) -> Mapping[str, Any]:
    """Axes and titles of the panels, row by row: Plotly's own layout of them takes long."""
    figure = make_subplots(
        rows=rows,
        cols=columns,
        shared_xaxes=True,
        shared_yaxes=True,
        subplot_titles=[_panel_title(panel) for panel in panels],
        horizontal_spacing=0.02,
        vertical_spacing=0.22 / max(2, rows),
    )
    figure.update_annotations(font_size=12.5)
    reads, writes = names
    if reads:
        figure.update_xaxes(showgrid=False, **named_ticks(writes, 9))
        figure.update_yaxes(showgrid=False, **named_ticks(reads, 9))
    else:
        figure.update_xaxes(showgrid=False, **integer_ticks(n_layers + 1, 9))
        figure.update_yaxes(showgrid=False, **integer_ticks(n_layers, 9))
    figure.update_xaxes(title="written by" if reads else "source X<sub>j</sub>", row=rows)
    figure.update_yaxes(title="read by" if reads else "layer i", col=1)
    return {k: v for k, v in figure.layout.to_plotly_json().items() if k != "template"}


def grid(frame: pd.DataFrame, panel: Panel, n_sources: int = 0) -> Grid:
    """One triangle: rows are aggregations, columns are sources, NaN where there is no weight.

    Without a number of sources there is one more of them than aggregations.
    """
    statistic, stream = panel
    n_layers, rows = _n_layers(frame), frame.loc[frame["stream"] == stream]
    values = np.full((n_layers, n_sources or n_layers + 1), np.nan)
    values[rows["layer"], rows["source"]] = rows[statistic]
    return values


def height(streams: Sequence[Stream], statistics: Sequence[str]) -> int:
    """The height of a figure of triangles in pixels; more than two rows need more than usual."""
    rows = -(-len(streams) * len(statistics) // _columns(len(statistics), len(streams)))
    return HEIGHT + _ROW * max(0, rows - 2)


def scale(end: float, title: str) -> dict[str, Any]:
    """The one colour axis of a figure, symmetric around 0."""
    return {"colorscale": SIGNED, "cmin": -end, "cmax": end, "colorbar": colorbar(title)}


def scale_end(
    values: Float64[np.ndarray, "edge statistic"], limit: float | None
) -> tuple[float, str]:
    """Where the colours end, and why: a given limit, or a quantile of the non-zero magnitudes."""
    if limit is not None:
        return limit, "a common scale"
    return robust_limit(values), f"{ROBUST_QUANTILE:.0%} of non-zero values"


def _columns(n_statistics: int, n_streams: int) -> int:
    """A row for each statistic; one stream or one statistic alone fills a nearly square block."""
    if n_streams == 1:
        return n_statistics
    return n_streams if n_statistics > 1 else 2


def _n_layers(frame: pd.DataFrame) -> int:
    return 1 + int(frame["layer"].to_numpy().max())


def _check_depth(n_layers: int, baseline: int) -> None:
    if n_layers != baseline:
        raise ValueError(
            f"an overlay is drawn layer by layer, but the model has {n_layers} layers and the "
            f"baseline {baseline}: take two of one depth."
        )


def _triangle(frame: pd.DataFrame, panel: Panel, names: Names) -> go.Heatmap:
    statistic, stream = panel
    reads, writes = names
    edge = "%{text}" if reads else "layer %{y}, source X<sub>%{x}</sub>"
    hover = f"{edge}<br>{statistic} %{{z:.4g}}<extra>{stream.upper()}</extra>"
    return go.Heatmap(
        z=grid(frame, panel, len(writes)),
        text=[[f"{read} of {write}" for write in writes] for read in reads] or None,
        coloraxis="coloraxis",
        hovertemplate=hover,
        hoverongaps=False,
        name=_panel_title(panel),
    )


def _crosses(baseline: pd.DataFrame, panel: Panel) -> go.Scatter:
    statistic, stream = panel
    theirs = counterpart(stream, list(baseline["stream"]))
    values = grid(baseline, (statistic, theirs))[: None if stream == "r" else -1]
    layer = np.flatnonzero(np.nan_to_num(values).any(axis=1))
    source = np.nanargmax(np.abs(values[layer]), axis=1)
    return go.Scatter(
        x=source,
        y=layer,
        mode="markers",
        marker={
            "symbol": "x",
            "size": 8,
            "color": BASELINE.colour,
            "line": {"color": "#FFFFFF", "width": 1},
        },
        name=f"baseline: {_panel_title((statistic, theirs))}",
        showlegend=False,
        hoverinfo="skip",  # what the pointer shows is the weight below
    )


def _panel_title(panel: Panel) -> str:
    statistic, stream = panel
    return f"{stream_title(stream)}, {statistic}"
