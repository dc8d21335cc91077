"""Figure 6 of the paper: how similar the inputs of neighbouring blocks are."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float64

from mudd_interp.analysis import LayerSimilarity
from mudd_interp.axes import Stream
from mudd_interp.viz.theme import (
    BASELINE,
    STREAM_STYLES,
    LineStyle,
    escape,
    finish,
    integer_ticks,
    source_line,
    stream_title,
)

_LABEL_GAP = 0.055  # of the height of the plot: what two letters need


def similarity_figure(
    result: LayerSimilarity, baseline: LayerSimilarity | None = None
) -> go.Figure:
    """Mean cosine similarity of neighbouring blocks' inputs, a curve for each stream (Fig. 6).

    Args:
        result: Of the model in question.
        baseline: Of the Transformer beside it: stream r, dashed.
    """
    figure, ends = go.Figure(), list[tuple[str, str, float]]()
    for stream in result.streams:
        rows = _rows(result.frame, stream)
        name = f"{escape(result.provenance.model)}: {stream_title(stream)}"
        _add_curve(figure, rows, name, STREAM_STYLES[stream])
        ends.append((stream.upper(), STREAM_STYLES[stream].colour, float(rows["cosine"].iloc[-1])))
    if baseline is not None:
        rows = _rows(baseline.frame, "r")
        _add_curve(figure, rows, f"{escape(baseline.provenance.model)} (baseline)", BASELINE)
    results = [result] if baseline is None else [result, baseline]
    low, high = _y_range(np.concatenate([each.frame["cosine"].to_numpy() for each in results]))
    _label_ends(figure, result.cosine_sum.shape[1], ends, (low, high))
    n_layers = 1 + max(each.cosine_sum.shape[1] for each in results)
    return finish(
        figure,
        "Similarity of the inputs of neighbouring blocks",
        "mean over tokens of cos(input of block l, input of block l − 1) before the norms; "
        "−1..1, 1 = same direction",
        source_line([each.provenance for each in results]),
        xaxis={**integer_ticks(n_layers, 24), "title": "block l", "range": [0.6, n_layers - 0.4]},
        yaxis={"title": "mean cosine similarity", "range": [low, high], "zeroline": False},
        legend={"orientation": "h", "x": 0, "y": -0.14, "yanchor": "top"},
        margin={"l": 70, "r": 40, "t": 95, "b": 95},
        hovermode="x",
    )


def _rows(frame: pd.DataFrame, stream: Stream) -> pd.DataFrame:
    rows = frame.loc[frame["stream"] == stream]
    if rows.empty:
        raise ValueError(
            f"no similarity of stream {stream} to draw: it needs a model with at least two blocks."
        )
    return rows


def _add_curve(figure: go.Figure, rows: pd.DataFrame, name: str, style: LineStyle) -> None:
    hover = "%{y:.4f}<extra>" + name + "</extra>"
    figure.add_trace(style.trace(x=rows["layer"], y=rows["cosine"], name=name, hovertemplate=hover))


def _y_range(values: Float64[np.ndarray, " value"]) -> tuple[float, float]:
    low, high = float(values.min()), 1.0
    pad = 0.05 * (high - low) or 0.05
    return low - pad, high + pad


def _label_ends(
    figure: go.Figure,
    layer: int,
    ends: list[tuple[str, str, float]],
    y_range: tuple[float, float],
) -> None:
    """Write each stream's letter beside the last point of its curve, none over another."""
    low, above = y_range
    gap = _LABEL_GAP * (above - low)
    for letter, colour, value in sorted(ends, key=lambda end: -end[2]):
        above = min(value, above - gap)
        figure.add_annotation(
            x=layer,
            y=above,
            text=f"<b>{letter}</b>",
            font={"color": colour, "size": 14},
            showarrow=False,
            xanchor="left",
            xshift=10,
        )
