"""The weight of one edge over the tokens of a sequence."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float64

from mudd_interp.analysis import (
    Provenance,
    TokenWeights,
    check_position,
    check_same_rows,
    check_same_tokens,
    counterpart,
    rectify,
)
from mudd_interp.axes import Stream
from mudd_interp.viz.theme import (
    BASELINE,
    STREAM_STYLES,
    WIDTH,
    LineStyle,
    escape,
    finish,
    source_line,
    token_names,
    token_ticks,
)

Limits = tuple[float, float]
"""The lower and the upper end of an axis."""

LEGEND = {"orientation": "h", "x": 1, "xanchor": "right", "y": 1.01, "yanchor": "bottom"}
"""A legend between the subtitle and the plot."""

_MARGIN = {"l": 70, "r": 40, "t": 115, "b": 115}
_LABEL = 14  # pixels that the text of one token needs
_MANY = 64  # from this many tokens on, lines are drawn thinner


def edge_figure(
    result: TokenWeights,
    stream: Stream,
    layer: int,
    source: int,
    *,
    position: int | None = None,
    rectified: bool = False,
    baseline: TokenWeights | None = None,
    as_baseline: bool = False,
    limits: Limits | None = None,
) -> go.Figure:
    """The weight of one edge at each token of a sequence, its static part dotted.

    Args:
        result: The weights of the sequence.
        stream: Which stream reads; in a baseline with one stream it is r.
        layer: The aggregation at which it reads.
        source: Which X_source it reads.
        position: A token to mark.
        rectified: Multiply each weight by the norm of its source at that token.
        baseline: Of the Transformer beside it, on the same tokens.
        as_baseline: Draw ``result`` itself as the baseline, for a figure beside another's.
        limits: The ends of the y axis; ``None`` takes those of :func:`edge_limits`. Give them to
            put two figures on one scale.

    Raises:
        ValueError: If there is no such edge or position, with the range of possible ones, or the
            models do not split the text into the same tokens.
    """
    results = [result] if baseline is None else [result, baseline]
    check_same_rows([each.provenance for each in results])
    tables = [_table(each, stream, layer, source, rectified) for each in results]
    own = counterpart(stream, result.streams)
    styles = [BASELINE if as_baseline else STREAM_STYLES[own], BASELINE]
    figure = go.Figure(_static_line(tables[0], styles[0], result.tokens))
    for each, table, style in zip(results, tables, styles, strict=False):
        check_same_tokens(result, each)
        suffix = " (baseline)" if style is BASELINE else ""
        name = f"{escape(each.provenance.model)}{suffix}"
        figure.add_trace(_total_line(table, style, result.tokens, name))
    if position is not None:
        figure.add_trace(_ring(tables[0], position, styles[0]))
    return finish(
        figure,
        f"Weight of {edge_name(result.provenance, own, layer, source)}, token by token",
        f"{'weight × norm of the source at the token' if rectified else 'weight, dimensionless'}; "
        "what is above or below the learned static part is dynamic",
        source_line([each.provenance for each in results]),
        xaxis=_token_axis(result.tokens),
        yaxis={
            "title": "weight × norm" if rectified else "weight",
            "range": limits or _padded(tables),
            "zerolinecolor": "#999999",
        },
        legend=LEGEND,
        showlegend=True,
        margin=_MARGIN,
        shapes=[] if position is None else [_line_at(position)],
    )


def edge_limits(
    results: Sequence[TokenWeights],
    stream: Stream,
    layer: int,
    source: int,
    rectified: bool = False,
) -> Limits:
    """Where the y axis of :func:`edge_figure` ends: a little beyond every weight and static part.

    For several results, it is a scale that their figures can share.

    Raises:
        ValueError: If one of them has no such edge, with the range of possible edges.
    """
    return _padded([_table(each, stream, layer, source, rectified) for each in results])


def edge_name(of: Provenance, stream: Stream, layer: int, source: int) -> str:
    """An edge in the words of a title."""
    if of.rows:
        apart = "" if stream == "r" else f".{stream}"
        return f"{of.sources[source]} in what {of.rows[layer]}{apart} reads"
    return f"source {source} in stream {stream.upper()} of layer {layer}"


def padded(values: Float64[np.ndarray, "..."]) -> Limits:
    """An axis that ends a little beyond all values; a single value is in its middle."""
    low, high = float(values.min()), float(values.max())
    pad = 0.05 * (high - low) or 0.5
    return low - pad, high + pad


def _padded(tables: Sequence[pd.DataFrame]) -> Limits:
    return padded(np.concatenate([table[["static", "total"]].to_numpy() for table in tables]))


def _table(
    result: TokenWeights, stream: Stream, layer: int, source: int, rectified: bool
) -> pd.DataFrame:
    frame = result.edge_frame(counterpart(stream, result.streams), layer, source)
    return rectify(frame) if rectified else frame


def _static_line(table: pd.DataFrame, style: LineStyle, tokens: Sequence[str]) -> go.Scatter:
    return go.Scatter(
        x=table["position"],
        y=table["static"],
        mode="lines",
        line={"color": style.colour, "dash": "dot", "width": 1.6},
        name="static part",
        text=token_names(table["position"], tokens),
        hovertemplate="%{text}<br>static %{y:.4g}<extra></extra>",
    )


def _total_line(
    table: pd.DataFrame, style: LineStyle, tokens: Sequence[str], name: str
) -> go.Scatter:
    line = style.trace(
        x=table["position"],
        y=table["total"],
        name=name,
        text=token_names(table["position"], tokens),
        customdata=table["dynamic"],
        hovertemplate="%{text}<br>%{y:.4g}, of it dynamic %{customdata:+.4g}<extra>"
        + name
        + "</extra>",
    )
    if len(tokens) > _MANY:
        line.update(marker_size=4, line_width=1.4)
        line.mode = "lines" if style is BASELINE else line.mode
    return line


def _line_at(position: int) -> dict[str, Any]:
    """A vertical line behind the curves, as high as the plot."""
    ends = {"x0": position, "x1": position, "y0": 0, "y1": 1, "yref": "y domain"}
    return {"type": "line", **ends, "line": {"color": "#BBBBBB", "width": 1}, "layer": "below"}


def _ring(table: pd.DataFrame, position: int, style: LineStyle) -> go.Scatter:
    check_position(position, len(table))
    ring = {"symbol": "circle-open", "size": 14, "color": style.colour, "line": {"width": 2}}
    return go.Scatter(
        x=[position],
        y=[table["total"].iloc[position]],
        mode="markers",
        marker=ring,
        showlegend=False,
        hoverinfo="skip",
    )


def _token_axis(tokens: Sequence[str]) -> dict[str, Any]:
    """A token axis, with the texts of as many tokens as there is room for."""
    count = len(tokens)
    step = -(-count * _LABEL // (WIDTH - _MARGIN["l"] - _MARGIN["r"]))
    return {
        **token_ticks(range(0, count, step), tokens[::step]),
        "range": [-0.5, count - 0.5],
        "title": "token" if step == 1 else f"token; one in {step} is named",
    }
