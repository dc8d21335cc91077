"""Triangles of reads by writes, some to a row, whatever the architecture."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float64
from plotly.subplots import make_subplots

from mudd_interp.viz.theme import escape, named_ticks

_GRID = 12  # columns that panels share: one, two, three or four of them fill it
ROW_HEIGHT = 250  # pixels


@dataclass(frozen=True)
class Panel:
    """The reads of one kind, in the order of depth."""

    title: str
    layers: tuple[str, ...]
    values: Float64[np.ndarray, "layer write"]


@dataclass(frozen=True)
class PanelRow:
    """One to four panels side by side.

    Attributes:
        title: What they are of.
        writes: What their columns are called.
        panels: From left to right.
    """

    title: str
    writes: Sequence[str]
    panels: Sequence[Panel]

    @property
    def wide(self) -> int:
        """Columns of the grid that a panel takes."""
        return _GRID // (3 if len(self.panels) == 3 else 2 ** (len(self.panels) - 1).bit_length())


def panels_figure(rows: Sequence[PanelRow]) -> go.Figure:
    """The panels, each row below the one before."""
    starts = [range(0, _GRID, row.wide)[: len(row.panels)] for row in rows]
    figure = make_subplots(
        rows=len(rows),
        cols=_GRID,
        specs=[
            [{"colspan": row.wide} if i in start else None for i in range(_GRID)]
            for row, start in zip(rows, starts, strict=True)
        ],
        subplot_titles=[panel.title for row in rows for panel in row.panels],
        horizontal_spacing=0.055,
        vertical_spacing=0.26 / max(1, len(rows)),
    ).update_annotations(font_size=12.5)
    for number, (row, start) in enumerate(zip(rows, starts, strict=True), start=1):
        for panel, at in zip(row.panels, start, strict=True):
            where: dict[str, Any] = {"row": number, "col": 1 + at}
            figure.add_trace(_triangle(panel, row.writes), **where)
            ticks = named_ticks(row.writes, row.wide)
            last = "written by" if number == len(rows) else None
            figure.update_xaxes(title=last, **ticks, **where)
            figure.update_yaxes(
                title=None if at else f"{escape(row.title)}<br>read by block",
                tickfont_size=10,
                **_blocks(panel),
                **where,
            )
    return figure.update_xaxes(showgrid=False).update_yaxes(showgrid=False)


def panels_layout(rows: int) -> dict[str, Any]:
    """Height and margins of so many rows."""
    return {
        "height": 200 + ROW_HEIGHT * rows + 60 * (rows - 1),
        "margin": {"l": 75, "r": 30, "t": 125, "b": 75},
    }


def _blocks(panel: Panel) -> dict[str, Any]:
    """Axis settings with the number of each block, or a head."""
    return named_ticks([name.partition(".")[2] or name for name in panel.layers], 9)


def _triangle(panel: Panel, writes: Sequence[str]) -> go.Heatmap:
    return go.Heatmap(
        z=panel.values,
        text=[[f"{read} of {write}" for write in writes] for read in panel.layers],
        coloraxis="coloraxis",
        hovertemplate="%{text}: %{z:.4g}<extra>" + panel.title + "</extra>",
        hoverongaps=False,
        name=panel.title,
    )
