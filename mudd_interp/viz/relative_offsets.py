"""Where heads look from where they stand: attention by offset, in maps and as one score."""

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float64
from plotly.subplots import make_subplots

from mudd_interp.analysis import RelativeOffsets
from mudd_interp.viz.picture import MARK
from mudd_interp.viz.theme import (
    UNSIGNED,
    WIDTH,
    colorbar,
    escape,
    finish,
    integer_ticks,
    source_line,
)

_COLUMNS, _LARGEST = 4, 330  # maps in a row; pixels of one
_MARGINS = {"l": 60, "r": 110, "t": 130, "b": 60}
_PLOT, _ACROSS, _DOWN = WIDTH - 170, 45, 75  # pixels: of a row, between maps, between rows
_SCORE = (
    "mean attention over the queries that have a key at the offset (row and column of the key less "
    "those of the query), and over images; 0..1"
)
_AMONG = "among offsets that at least half of the patches have"


def relative_offsets_figure(result: RelativeOffsets, layer: int) -> go.Figure:
    """The mean attention at each offset, a map for each head of a layer.

    The patch itself is in the middle, its upper neighbour above it. The strongest offset, among
    those that at least half of the patches have, is outlined.

    Args:
        result: Of one model.
        layer: Which layer.

    Raises:
        ValueError: If there is no such layer.
    """
    n_layers, n_heads = result.attention_sum.shape[:2]
    if not 0 <= layer < n_layers:
        raise ValueError(f"layer must lie in 0..{n_layers - 1}, got {layer}.")
    strongest: Any = result.strongest
    best = strongest[strongest["layer"] == layer]
    columns = min(n_heads, _COLUMNS)
    figure, height = _squares(
        [f"head {at.head}<br>{_offset(at.dy, at.dx)}: {at.score:.3f}" for at in best.itertuples()],
        columns,
    )
    scores, last = result.score[layer], result.side - 1
    for at in best.itertuples():
        place: dict[str, Any] = {"row": at.head // columns + 1, "col": at.head % columns + 1}
        figure.add_trace(_map(scores[at.head], at.head), **place)
        corners = {"x0": at.dx - 0.5, "x1": at.dx + 0.5, "y0": at.dy - 0.5, "y1": at.dy + 0.5}
        figure.add_shape(type="rect", line={"color": MARK, "width": 2}, **corners, **place)
    figure.update_xaxes(showgrid=False, zeroline=False)
    figure.update_yaxes(showgrid=False, zeroline=False, range=[last + 0.5, -last - 0.5])
    figure.update_xaxes(title="dx", row=ceil(n_heads / columns))
    figure.update_yaxes(title="dy", col=1)
    return finish(
        figure,
        f"Attention by offset of {result.provenance.model}, layer {layer}",
        f"{_SCORE}; rows go downwards; outlined, and in the titles: the strongest {_AMONG}",
        source_line([result.provenance]),
        height=height,
        coloraxis=_scale(float(scores.max())),
        margin=_MARGINS,
    )


def _squares(titles: Sequence[str], columns: int) -> tuple[go.Figure, int]:
    """Panels that are squares, as wide as fit beside each other, and the height of their figure."""
    rows = ceil(len(titles) / columns)
    side = min(_LARGEST, (_PLOT - _ACROSS * (columns - 1)) / columns)
    tall, wide = (
        side * count + gap * (count - 1) for count, gap in ((rows, _DOWN), (columns, _ACROSS))
    )
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=titles,
        column_widths=[side] * columns,
        horizontal_spacing=_ACROSS / _PLOT,
        vertical_spacing=_DOWN / tall,
    )
    figure.update_annotations(font_size=12)
    if wide < _PLOT:  # few heads do not fill the width
        for number in range(len(titles)):
            axis = str(number + 1) if number else ""
            figure.layout[f"yaxis{axis}"].update(scaleanchor=f"x{axis}", constrain="domain")
            figure.layout[f"xaxis{axis}"].update(constrain="domain")
    return figure, round(tall) + _MARGINS["t"] + _MARGINS["b"]


def _map(values: Float64[np.ndarray, "offset_row offset_column"], head: int) -> go.Heatmap:
    last = len(values) // 2
    ends = np.arange(-last, last + 1)
    return go.Heatmap(
        z=values,
        x=ends,
        y=ends,
        coloraxis="coloraxis",
        name=f"head {head}",
        hovertemplate=f"dy %{{y}}, dx %{{x}}: %{{z:.4f}}<extra>head {head}</extra>",
    )


def _scale(end: float) -> dict[str, Any]:
    return {"colorscale": UNSIGNED, "cmin": 0, "cmax": end, "colorbar": colorbar("score")}


def relative_offset_scores_figure(
    result: RelativeOffsets, baseline: RelativeOffsets | None = None
) -> go.Figure:
    """The strongest offset of every head and its score, layer by head, on one scale from 0.

    Args:
        result: Of the model in question.
        baseline: Of the Transformer beside it.
    """
    results = [result] if baseline is None else [result, baseline]
    figure = make_subplots(
        rows=1,
        cols=len(results),
        shared_yaxes=True,
        column_titles=[escape(each.provenance.model) for each in results],
        horizontal_spacing=0.04,
    )
    end = max(float(np.max(each.strongest["score"].to_numpy())) for each in results)
    for column, each in enumerate(results, start=1):
        shape = each.attention_sum.shape[:2]
        best: Any = each.strongest
        offsets = [_offset(at.dy, at.dx) for at in best.itertuples()]
        texts = [f"layer {at.layer}, head {at.head}" for at in best.itertuples()]
        figure.add_trace(
            go.Heatmap(
                z=best["score"].to_numpy().reshape(shape),
                text=np.array(texts, dtype=object).reshape(shape),
                customdata=np.array(offsets, dtype=object).reshape(shape),
                coloraxis="coloraxis",
                xgap=1,
                ygap=1,
                name=escape(each.provenance.model),
                hovertemplate="%{text}, offset %{customdata}: %{z:.4f}<extra></extra>",
            ),
            row=1,
            col=column,
        )
        figure.add_trace(_written(best, offsets, end), row=1, col=column)
        figure.update_xaxes(title="head", showgrid=False, **integer_ticks(shape[1]), col=column)
    n_layers = max(len(each.attention_sum) for each in results)
    figure.update_yaxes(showgrid=False, **integer_ticks(n_layers, 24))
    figure.update_yaxes(title="layer", col=1)
    return finish(
        figure,
        "The strongest offset of every head, and its score",
        f"{_SCORE}. In the cells the strongest offset, rows and columns, {_AMONG}",
        source_line([each.provenance for each in results]),
        coloraxis=_scale(end),
        margin={"l": 70, "r": 30, "t": 130, "b": 60},
    )


def _written(best: pd.DataFrame, offsets: Sequence[str], end: float) -> go.Scatter:
    """The offsets, each on the cell of its head."""
    return go.Scatter(
        x=best["head"],
        y=best["layer"],
        text=offsets,
        mode="text",
        textfont={"size": 11, "color": np.where(best["score"] > 0.6 * end, "#222222", "#FFFFFF")},
        hoverinfo="skip",
        showlegend=False,
    )


def _offset(dy: int, dx: int) -> str:
    """An offset in signs: ``(−1, +2)``, rows first."""
    signed = [f"{each:+d}".replace("-", "−") if each else "0" for each in (dy, dx)]
    return f"({', '.join(signed)})"
