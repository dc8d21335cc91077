"""How similar the inputs of any two blocks are: a square for each stream."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float64
from plotly.subplots import make_subplots

from mudd_interp.analysis import SimilarityMatrix, similarity_matrix_difference
from mudd_interp.viz.curves import DIFFERENCE
from mudd_interp.viz.theme import (
    ROBUST_QUANTILE,
    SIGNED,
    UNSIGNED,
    WIDTH,
    colorbar,
    escape,
    finish,
    integer_ticks,
    robust_limit,
    source_line,
    stream_title,
)

Square = Float64[np.ndarray, "layer layer"]

_COSINE = "cos(input of block l, input of block m) before the norms"
_COLUMNS = 3
_MARGIN = {"l": 70, "r": 30, "t": 115, "b": 60}
_BAR = 120  # pixels of the colour bar
_GUTTER = 30  # pixels between two columns of squares
_GAP = 40  # pixels between two rows of squares
_HIGHEST = 500  # pixels of the highest plot


def similarity_matrix_figure(
    result: SimilarityMatrix, baseline: SimilarityMatrix | None = None
) -> go.Figure:
    """Mean cosine similarity of any two blocks' inputs: a square for each stream, on one scale.

    Rows are blocks from the bottom up. The scale is 0..1 if no value is negative, else -1..1
    around 0; the subtitle says which.

    Args:
        result: Of the model in question.
        baseline: Of the Transformer beside it: squares of its own, after the model's.
    """
    squares = [
        (stream_title(stream), square)
        for stream, square in zip(result.streams, _squares(result.frame, result), strict=True)
    ]
    if baseline is not None:
        name = f"{escape(baseline.provenance.model)} (baseline)"
        squares.append((name, _squares(baseline.frame, baseline)[baseline.streams.index("r")]))
    signed = any((square < 0).any() for _, square in squares)
    scale = "−1..1" if signed else "0..1, as no value is negative"
    figure = _drawn(squares, "%{z:.4f}")
    return finish(
        figure,
        f"Similarity of the inputs of all blocks of {result.provenance.model}",
        f"mean over tokens of {_COSINE}; colours {scale}",
        source_line([each.provenance for each in (result, baseline) if each is not None]),
        coloraxis={
            "colorscale": SIGNED if signed else UNSIGNED,
            "cmin": -1 if signed else 0,
            "cmax": 1,
            "colorbar": colorbar("mean cosine"),
        },
        margin=_MARGIN,
        height=_Plot(len(squares)).figure_height,
    )


def similarity_matrix_difference_figure(
    result: SimilarityMatrix, baseline: SimilarityMatrix
) -> go.Figure:
    """:func:`similarity_matrix_figure` as a difference, on a symmetric scale of its own.

    Args:
        result: Of the model in question.
        baseline: Of the Transformer beside it.

    Raises:
        ValueError: If the models differ in their number of layers.
    """
    grids = _squares(similarity_matrix_difference(result, baseline), result)
    end = robust_limit(grids)
    titles = [stream_title(stream) for stream in result.streams]
    figure = _drawn(list(zip(titles, grids, strict=True)), "%{z:+.4f}")
    return finish(
        figure,
        "MUDD − baseline: similarity of the inputs of all blocks",
        f"mean cosine, {DIFFERENCE}; "
        f"colours end at ±{end:.3g} ({ROBUST_QUANTILE:.0%} of non-zero values)",
        source_line([result.provenance, baseline.provenance]),
        coloraxis={
            "colorscale": SIGNED,
            "cmin": -end,
            "cmax": end,
            "colorbar": colorbar("MUDD −<br>baseline"),
        },
        margin=_MARGIN,
        height=_Plot(len(titles)).figure_height,
    )


def _squares(
    frame: pd.DataFrame, result: SimilarityMatrix
) -> Float64[np.ndarray, "stream layer layer"]:
    return frame["cosine"].to_numpy().reshape(result.cosine_sum.shape)


@dataclass(frozen=True)
class _Plot:
    """Squares in rows of three; those of a model with four streams always have the same places."""

    panels: int

    @property
    def columns(self) -> int:
        return min(_COLUMNS, self.panels)

    @property
    def rows(self) -> int:
        return ceil(self.panels / self.columns)

    @property
    def width(self) -> int:
        return WIDTH - _MARGIN["l"] - _MARGIN["r"] - _BAR

    @property
    def height(self) -> int:
        """Pixels; a few squares do not fill the width."""
        side = (self.width - (self.columns - 1) * _GUTTER) / self.columns
        return min(round(self.rows * side + (self.rows - 1) * _GAP), _HIGHEST)

    @property
    def figure_height(self) -> int:
        return self.height + _MARGIN["t"] + _MARGIN["b"]


def _drawn(squares: Sequence[tuple[str, Square]], number: str) -> go.Figure:
    plot = _Plot(len(squares))
    figure = make_subplots(
        rows=plot.rows,
        cols=plot.columns,
        subplot_titles=[title for title, _ in squares],
        horizontal_spacing=_GUTTER / plot.width,
        vertical_spacing=_GAP / plot.height,
    ).update_annotations(font_size=12.5)
    for panel, (title, grid) in enumerate(squares):
        hover = f"block l %{{y}}, block m %{{x}}<br>{number}<extra>{title}</extra>"
        trace = go.Heatmap(z=grid, coloraxis="coloraxis", hovertemplate=hover, name=title)
        row, column = divmod(panel, plot.columns)
        figure.add_trace(trace, row=row + 1, col=column + 1)
        figure.update_layout(_axes(plot, panel, len(grid)))
    return figure


def _axes(plot: _Plot, panel: int, n_layers: int) -> dict[str, Any]:
    """Square cells, and labels only where no other square follows below or stands to the left."""
    name = panel + 1 if panel else ""
    lowest, first = panel + plot.columns >= plot.panels, panel % plot.columns == 0
    ticks = {**integer_ticks(n_layers, 12), "showgrid": False, "constrain": "domain"}
    across = {"title": "block m" if lowest else None, "showticklabels": lowest}
    up = {"title": "block l" if first else None, "showticklabels": first}
    shape = {"scaleanchor": f"x{name}", "constraintoward": "top"}
    return {f"xaxis{name}": {**across, **ticks}, f"yaxis{name}": {**up, **shape, **ticks}}
