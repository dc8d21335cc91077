"""Figures 10 and 11 of the paper: the attention maps of all heads of a layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Float32, Shaped
from torch import Tensor

from mudd_interp.viz.theme import (
    HEIGHT,
    MONOSPACE,
    UNSIGNED,
    WIDTH,
    colorbar,
    escape,
    finish,
    visible,
)

MOST_TOKENS = 512
"""Longer sequences are pooled: each cell shows the largest weight of a square of tokens."""

_MARGIN = {"l": 90, "r": 30, "t": 95, "b": 85}
_PLOT = (WIDTH - 200, HEIGHT - 180)  # pixels left of the colour bar, inside the margins
_LABEL = 11  # pixels that one token label needs
_MOST_TEXTS = 50_000  # cells that can carry their own hover text


@dataclass(frozen=True)
class _Grid:
    """Where the maps stand on one canvas, in cells; the query axis points downwards."""

    heads: int
    side: int
    columns: int

    @property
    def rows(self) -> int:
        return ceil(self.heads / self.columns)

    @property
    def gutter(self) -> int:
        return max(1, round(0.08 * self.side))

    @property
    def header(self) -> int:
        return max(1, round(0.2 * self.side))

    def corner(self, head: int) -> tuple[int, int]:
        row, column = divmod(head, self.columns)
        return self.header + row * (self.side + self.header), column * (self.side + self.gutter)

    def area(self, head: int) -> tuple[slice, slice]:
        top, left = self.corner(head)
        return slice(top, top + self.side), slice(left, left + self.side)

    @property
    def shape(self) -> tuple[int, int]:
        width = self.columns * (self.side + self.gutter) - self.gutter
        return self.rows * (self.side + self.header), width

    @property
    def pixels(self) -> float:
        """Pixels for one map, when the canvas is drawn with square cells."""
        height, width = self.shape
        return self.side * min(_PLOT[0] / width, _PLOT[1] / height)

    @property
    def height(self) -> int:
        """Pixels for the whole figure: less than the usual where the maps are wide and few."""
        margins = _MARGIN["t"] + _MARGIN["b"]
        return min(HEIGHT, round(self.shape[0] * self.pixels / self.side) + margins)


def attention_figure(
    pattern: Float[Tensor, "head query key"],
    tokens: Sequence[str],
    *,
    layer: int,
    model: str,
    columns: int | None = None,
) -> go.Figure:
    """The attention maps of all heads of a layer on one sequence (Figs. 10 and 11).

    One scale, 0..1, for all of them; query rows go downwards, key columns to the right, and the
    future is blank. All maps are one trace.

    Args:
        pattern: Attention probabilities of one sequence, as ``hook_pattern`` gives them.
        tokens: The text of each token.
        layer: Which layer it is.
        model: The name of the model.
        columns: Maps in a row; ``None`` chooses, at most eight.

    Raises:
        ValueError: If there is not one text for each position.
    """
    heads, positions = pattern.shape[0], pattern.shape[-1]
    if len(tokens) != positions or pattern.shape[1] != positions:
        raise ValueError(
            f"expected one text for each of {positions} positions and a square pattern, got "
            f"{len(tokens)} texts and {pattern.shape[1]} queries."
        )
    block = ceil(positions / MOST_TOKENS)
    maps = pooled(_past(pattern), block)
    grid = _Grid(heads, maps.shape[1], columns or _best_columns(heads))
    figure = go.Figure(_trace(maps, grid, tokens, block))
    _label_axes(figure, grid, [visible(token) for token in tokens[::block]])
    _title_maps(figure, grid)
    cells = "" if block == 1 else f"; each cell is the largest of {block} × {block} weights"
    return finish(
        figure,
        f"Attention maps of layer {layer}",
        f"attention probability, 0..1; rows are queries, columns are keys{cells}",
        f"{escape(model)} · one sequence of {positions:,} tokens",
        margin=_MARGIN,
        height=grid.height,
        plot_bgcolor="white",
    )


def pooled(
    maps: Float32[np.ndarray, "head query key"], block: int
) -> Float32[np.ndarray, "head query_block key_block"]:
    """The largest value of each square of ``block`` tokens; NaN where it has none."""
    heads, positions, _ = maps.shape
    side = ceil(positions / block)
    padding = (0, side * block - positions)
    padded = np.pad(maps, ((0, 0), padding, padding), constant_values=np.nan)
    squares = padded.reshape(heads, side, block, side, block)
    return np.fmax.reduce(np.fmax.reduce(squares, axis=4), axis=2)


def _past(pattern: Float[Tensor, "head query key"]) -> Float32[np.ndarray, "head query key"]:
    maps = pattern.detach().cpu().float()
    future = torch.ones(maps.shape[1:], dtype=torch.bool).triu(1)
    return maps.masked_fill(future, torch.nan).numpy()


def _best_columns(heads: int) -> int:
    """The number of maps in a row that lets them be largest."""
    return max(range(1, min(heads, 8) + 1), key=lambda columns: _Grid(heads, 32, columns).pixels)


def _trace(
    maps: Float32[np.ndarray, "head query key"], grid: _Grid, tokens: Sequence[str], block: int
) -> go.Heatmap:
    canvas = np.full(grid.shape, np.nan, dtype=np.float32)
    for head, values in enumerate(maps):
        canvas[grid.area(head)] = values
    texts = _hover_texts(grid, tokens) if block == 1 and canvas.size <= _MOST_TEXTS else None
    return go.Heatmap(
        z=canvas,
        zmin=0,
        zmax=1,
        colorscale=UNSIGNED,
        text=texts,
        hovertemplate="%{z:.4f}<extra></extra>"
        if texts is None
        else "%{text}<br>%{z:.4f}<extra></extra>",
        hoverongaps=False,
        colorbar=colorbar("probability"),
    )


def _hover_texts(grid: _Grid, tokens: Sequence[str]) -> Shaped[np.ndarray, "row column"]:
    labels = [f"{i} {visible(token)}" for i, token in enumerate(tokens)]
    texts = np.full(grid.shape, "", dtype=object)
    for head in range(grid.heads):
        cells = [
            [f"head {head}<br>query {query}<br>key {key}" for key in labels] for query in labels
        ]
        texts[grid.area(head)] = cells
    return texts


def _label_axes(figure: go.Figure, grid: _Grid, texts: Sequence[str]) -> None:
    step = max(1, ceil(_LABEL * grid.side / grid.pixels))
    shown = range(0, grid.side, step)
    tops = [grid.corner(row * grid.columns)[0] for row in range(grid.rows)]
    lefts = [grid.corner(column)[1] for column in range(grid.columns)]
    figure.update_xaxes(
        **_ticks(lefts, shown, texts),
        tickangle=-90,
        constrain="domain",
        title={"text": "key token", "standoff": 8},
    )
    figure.update_yaxes(
        **_ticks(tops, shown, texts),
        autorange="reversed",
        scaleanchor="x",
        constrain="domain",
        title={"text": "query token", "standoff": 8},
    )


def _ticks(starts: Sequence[int], shown: Sequence[int], texts: Sequence[str]) -> dict[str, Any]:
    """Labels of some positions of every map; positions, not texts: equal texts would merge."""
    return {
        "tickmode": "array",
        "tickvals": [start + i for start in starts for i in shown],
        "ticktext": [texts[i] for _ in starts for i in shown],
        "tickfont": {"family": MONOSPACE, "size": 9},
        "ticks": "",
        "showgrid": False,
        "zeroline": False,
    }


def _title_maps(figure: go.Figure, grid: _Grid) -> None:
    for head in range(grid.heads):
        top, left = grid.corner(head)
        figure.add_annotation(
            x=left + (grid.side - 1) / 2,
            y=top - 0.5,
            yanchor="bottom",
            text=f"head {head}",
            font={"size": 11},
            showarrow=False,
            borderpad=1,
        )
