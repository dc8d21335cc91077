"""Attention maps: of all heads of a layer (Figs. 10 and 11 of the paper), or of one head."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
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

# Room for the longest token and the title: a browser that has to make room redraws everything.
_MARGIN = {"l": 100, "r": 30, "t": 95, "b": 95}
_PLOT = (WIDTH - 220, HEIGHT - 190)  # pixels left of the colour bar, inside the margins
_LARGE = (680, 680)  # the same for one map
_LABEL = 11  # pixels that one token label needs
_MOST_TEXTS = 50_000  # cells that can carry their own hover text


@dataclass(frozen=True)
class _Grid:
    """Where the maps are on one canvas, in cells; the query axis points downwards."""

    heads: Sequence[int]
    side: int
    columns: int
    plot: tuple[int, int] = _PLOT
    titled: bool = True

    @property
    def rows(self) -> int:
        return ceil(len(self.heads) / self.columns)

    @property
    def gutter(self) -> int:
        return max(1, round(0.08 * self.side))

    @property
    def header(self) -> int:
        return max(1, round(0.2 * self.side)) if self.titled else 0

    def corner(self, place: int) -> tuple[int, int]:
        row, column = divmod(place, self.columns)
        return self.header + row * (self.side + self.header), column * (self.side + self.gutter)

    def area(self, place: int) -> tuple[slice, slice]:
        top, left = self.corner(place)
        return slice(top, top + self.side), slice(left, left + self.side)

    @property
    def shape(self) -> tuple[int, int]:
        width = self.columns * (self.side + self.gutter) - self.gutter
        return self.rows * (self.side + self.header), width

    @property
    def pixels(self) -> float:
        """Pixels for one map, when the canvas is drawn with square cells."""
        height, width = self.shape
        return self.side * min(self.plot[0] / width, self.plot[1] / height)

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
    causal: bool = True,
) -> go.Figure:
    """The attention maps of all heads of a layer on one sequence (Figs. 10 and 11).

    One scale, 0..1, for all of them; query rows go downwards, key columns to the right, and where
    attention is causal the future is blank. All maps are one trace. Where there are more tokens
    than pixels, each cell is the largest weight of a square of tokens.

    Args:
        pattern: Attention probabilities of one sequence, as ``hook_pattern`` gives them.
        tokens: The text of each token.
        layer: Which layer it is.
        model: The name of the model.
        columns: Maps in a row; ``None`` chooses, at most eight.
        causal: Whether no position sees a later one.

    Raises:
        ValueError: If there is not one text for each position.
    """
    heads = range(len(pattern))
    grid = _Grid(heads, pattern.shape[-1], columns or _best_columns(len(heads)))
    title = f"Attention maps of layer {layer}"
    return _figure(_seen(pattern, causal), tokens, grid, title, model, height=grid.height)


def pattern_figure(
    pattern: Float[Tensor, "query key"],
    tokens: Sequence[str],
    *,
    layer: int,
    head: int,
    model: str,
    causal: bool = True,
) -> go.Figure:
    """The attention map of one head on one sequence, large.

    The scale is 0..1; query rows go downwards, key columns to the right, and where attention is
    causal the future is blank.

    Args:
        pattern: Attention probabilities of one sequence, of one head of ``hook_pattern``.
        tokens: The text of each token.
        layer: Which layer it is.
        head: Which head of it.
        model: The name of the model.
        causal: Whether no position sees a later one.

    Raises:
        ValueError: If there is not one text for each position.
    """
    grid = _Grid([head], pattern.shape[-1], columns=1, plot=_LARGE, titled=False)
    width, height = _LARGE[0] + WIDTH - _PLOT[0], _LARGE[1] + HEIGHT - _PLOT[1]
    title = f"Attention of layer {layer}, head {head}"
    maps = _seen(pattern[None], causal)
    return _figure(maps, tokens, grid, title, model, width=width, height=height)


def _figure(
    pattern: Float32[np.ndarray, "head query key"],
    tokens: Sequence[str],
    grid: _Grid,
    title: str,
    model: str,
    **layout: Any,
) -> go.Figure:
    """The maps on a grid of all positions, pooled where a cell would be smaller than a pixel."""
    queries, positions = pattern.shape[1:]
    if len(tokens) != positions or queries != positions:
        raise ValueError(
            f"expected one text for each of {positions} positions and a square pattern, got "
            f"{len(tokens)} texts and {queries} queries."
        )
    block = ceil(positions / grid.pixels)
    maps = pooled(pattern, block)
    grid = replace(grid, side=maps.shape[1])
    cells = "" if block == 1 else f"; each cell is the largest of {block} × {block} weights"
    return finish(
        go.Figure(_trace(maps, grid, tokens, block)),
        title,
        f"attention probability, 0..1; rows are queries, columns are keys{cells}",
        f"{escape(model)} · one sequence of {len(tokens):,} tokens",
        margin=_MARGIN,
        plot_bgcolor="white",
        annotations=_titles(grid) if grid.titled else [],
        **_axes(grid, [visible(token) for token in tokens[::block]]),
        **layout,
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


def _seen(
    pattern: Float[Tensor, "head query key"], causal: bool
) -> Float32[np.ndarray, "head query key"]:
    """The pattern, NaN where a query cannot look."""
    maps = pattern.detach().cpu().float()
    if causal:
        future = torch.ones(maps.shape[1:], dtype=torch.bool).triu(1)
        maps = maps.masked_fill(future, torch.nan)
    return maps.numpy()


def _best_columns(heads: int) -> int:
    """The number of maps in a row for which they are largest."""
    return max(
        range(1, min(heads, 8) + 1), key=lambda columns: _Grid(range(heads), 32, columns).pixels
    )


def _trace(
    maps: Float32[np.ndarray, "head query key"], grid: _Grid, tokens: Sequence[str], block: int
) -> go.Heatmap:
    canvas = np.full(grid.shape, np.nan, dtype=np.float32)
    for place, values in enumerate(maps):
        canvas[grid.area(place)] = values
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
    for place, head in enumerate(grid.heads):
        cells = [
            [f"head {head}<br>query {query}<br>key {key}" for key in labels] for query in labels
        ]
        texts[grid.area(place)] = cells
    return texts


def _axes(grid: _Grid, texts: Sequence[str]) -> dict[str, Any]:
    step = max(1, ceil(_LABEL * grid.side / grid.pixels))
    shown = range(0, grid.side, step)
    tops = [grid.corner(row * grid.columns)[0] for row in range(grid.rows)]
    lefts = [grid.corner(column)[1] for column in range(grid.columns)]
    keys = {"tickangle": -90, "title": {"text": "key token", "standoff": 8}}
    queries = {
        "autorange": "reversed",
        "scaleanchor": "x",
        "title": {"text": "query token", "standoff": 8},
    }
    return {
        "xaxis": {**_ticks(lefts, shown, texts), "constrain": "domain", **keys},
        "yaxis": {**_ticks(tops, shown, texts), "constrain": "domain", **queries},
    }


def _ticks(starts: Sequence[int], shown: Sequence[int], texts: Sequence[str]) -> dict[str, Any]:
    """Labels of some positions of every map, placed by position: equal texts would merge."""
    return {
        "tickmode": "array",
        "tickvals": [start + i for start in starts for i in shown],
        "ticktext": [texts[i] for _ in starts for i in shown],
        "tickfont": {"family": MONOSPACE, "size": 9},
        "ticks": "",
        "showgrid": False,
        "zeroline": False,
    }


def _titles(grid: _Grid) -> list[dict[str, Any]]:
    corners = [(head, *grid.corner(place)) for place, head in enumerate(grid.heads)]
    return [
        {
            "x": left + (grid.side - 1) / 2,
            "y": top - 0.5,
            "yanchor": "bottom",
            "text": f"head {head}",
            "font": {"size": 11},
            "showarrow": False,
            "borderpad": 1,
        }
        for head, top, left in corners
    ]
