"""Maps of patches drawn over a picture, side by side: what all figures of one image share."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, UInt8
from PIL import Image

from mudd_interp.viz.theme import SIGNED, UNSIGNED, WIDTH, colorbar, escape, merged, short_name

MARK = "#FF2D95"
"""The outline of the patch that is looked at."""

_OPACITY = 0.8  # of a map over its picture
_SHARP = 448  # pixels to which a small picture is enlarged, so that no browser blurs it
_HEADER, _GAP, _BAR = 30, 22, 112  # pixels: title of a panel; between panels; of a colour bar
_LEFT, _TOP, _BOTTOM = 25, 100, 25  # margins
_HIGHEST, _LARGEST = 620, 330  # pixels: height of all panels, side of one
_ABOVE_CHART, _BELOW_CHART, _LEFT_OF_CHART = 35, 45, 50  # pixels: for what its axes say
_NEARLY = 0.8  # of the largest size of a panel, for which rows are saved


@dataclass(frozen=True, eq=False)
class Picture:
    """An image and the patches that it is cut into.

    Attributes:
        pixels: Brightness, 0 (black) to 255, with one channel or three.
        name: What it shows, in words; empty where that is not known.
        side: How many patches stand beside each other, and how many below each other.
    """

    pixels: UInt8[np.ndarray, "row column channel"]
    name: str
    side: int

    @property
    def title(self) -> str:
        """What it is called above a panel; escaped."""
        return f"the image: {short_name(self.name, 24)}" if self.name else "the image"

    @property
    def source(self) -> str:
        """The picture as a PNG within a page, each pixel a square."""
        grey = self.pixels.shape[2] == 1
        image = Image.fromarray(self.pixels[..., 0] if grey else self.pixels)
        scale = max(1, _SHARP // max(image.size))
        size = image.width * scale, image.height * scale
        written = io.BytesIO()
        image.resize(size, Image.Resampling.NEAREST).save(written, "PNG", optimize=True)
        return "data:image/png;base64," + base64.b64encode(written.getvalue()).decode()

    def grid(self, values: Float[np.ndarray, " pos"]) -> Float[np.ndarray, "row column"]:
        """A number for each patch, where the patch stands."""
        return values.reshape(self.side, self.side)

    def patch(self, position: int) -> str:
        """A patch in words: its number, and its row and column from 0."""
        row, column = divmod(position, self.side)
        return f"patch {position} (row {row}, column {column})"

    def outline(self, position: int) -> dict[str, float]:
        """The corners of a patch in the coordinates of a panel: patches have whole numbers."""
        row, column = divmod(position, self.side)
        return {"x0": column - 0.5, "x1": column + 0.5, "y0": row - 0.5, "y1": row + 0.5}


@dataclass(frozen=True, eq=False)
class Scale:
    """A colour scale, with its bar.

    Attributes:
        title: The quantity, with its unit.
        low: Where it begins.
        high: Where it ends.
        signed: Whether it is symmetric around 0; then ``low`` is ``-high``.
    """

    title: str
    low: float
    high: float
    signed: bool = False


@dataclass(frozen=True, eq=False)
class Map:
    """A number for each patch.

    Attributes:
        title: What it shows; escaped.
        values: By the number of the patch; NaN where there is none.
        scale: Which of the figure's scales it is on.
    """

    title: str
    values: Float[np.ndarray, " pos"]
    scale: int = 0


@dataclass(frozen=True, eq=False)
class Panels:
    """The picture, then each map over it, row by row.

    Attributes:
        picture: The picture.
        maps: What is drawn over it.
        scales: What the maps' colours mean.
        mark: The patch that is outlined in all panels; ``None`` for none.
        below: Pixels to leave free below the plot.
        chart: Pixels below the panels, within the plot, for a chart of another kind.
    """

    picture: Picture
    maps: Sequence[Map]
    scales: Sequence[Scale]
    mark: int | None = None
    below: int = 0
    chart: int = 0

    @property
    def right(self) -> int:
        """The margin for the colour bars, in pixels."""
        return _BAR * len(self.scales) + 10

    @property
    def columns(self) -> int:
        """Panels in a row: as many as leave them nearly as large as they can be."""
        every = range(1, 2 + len(self.maps))
        largest = max(map(self._size, every))
        return max(columns for columns in every if self._size(columns) >= _NEARLY * largest)

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return ceil((1 + len(self.maps)) / self.columns)

    @property
    def size(self) -> float:
        """The side of a panel, in pixels."""
        return self._size(self.columns)

    def _size(self, columns: int) -> float:
        rows = ceil((1 + len(self.maps)) / columns)
        across = (WIDTH - _LEFT - self.right - _GAP * (columns - 1)) / columns
        return min(across, _HIGHEST / rows - _HEADER, float(_LARGEST))

    @property
    def area(self) -> tuple[float, float]:
        """Width and height of the plot, in pixels."""
        return float(WIDTH - _LEFT - self.right), self._tall + self.chart

    @property
    def _tall(self) -> float:
        """The height of all panels together, in pixels."""
        return self.rows * (self.size + _HEADER)

    def figure(self) -> go.Figure:
        """The traces."""
        return go.Figure([self._trace(place, each) for place, each in enumerate(self.maps, 1)])

    def layout(self) -> dict[str, Any]:
        """Axes, pictures, titles, scales and size, for :func:`mudd_interp.viz.theme.finish`."""
        places = range(1 + len(self.maps))
        titles = [self.picture.title, *(each.title for each in self.maps)]
        layout: dict[str, Any] = {
            "images": [self._image(place) for place in places],
            "shapes": [] if self.mark is None else [self._mark(place) for place in places],
            "annotations": [self._title(place, text) for place, text in enumerate(titles)],
            "width": WIDTH,
            "height": round(self.area[1]) + _TOP + _BOTTOM + self.below,
            "margin": {"l": _LEFT, "r": self.right, "t": _TOP, "b": _BOTTOM + self.below},
        }
        for place in places:
            left, top = self._corner(place)
            layout[_axis("xaxis", place)] = {
                **_NO_TICKS,
                "domain": self._share(0, left),
                "anchor": _axis("y", place),
                "range": [-0.5, self.picture.side - 0.5],
                "constrain": "domain",
            }
            layout[_axis("yaxis", place)] = {
                **_NO_TICKS,
                "domain": self._share(1, self.area[1] - top - self.size),
                "anchor": _axis("x", place),
                "range": [self.picture.side - 0.5, -0.5],
                "scaleanchor": _axis("x", place),  # square wherever it is drawn
                "constrain": "domain",
            }
        return layout | {
            _axis("coloraxis", number): self._coloured(number, scale)
            for number, scale in enumerate(self.scales)
        }

    @property
    def on_chart(self) -> dict[str, str]:
        """The axes of the chart below the panels, for its traces."""
        number = 1 + len(self.maps)
        return {"xaxis": _axis("x", number), "yaxis": _axis("y", number)}

    def layout_with_chart(self, x: Mapping[str, Any], y: Mapping[str, Any]) -> dict[str, Any]:
        """:meth:`layout`, and the axes of the chart with their settings."""
        names, top = self.on_chart, (self.chart - _ABOVE_CHART) / self.area[1]
        chart = {
            names["xaxis"].replace("x", "xaxis"): {
                "domain": [_LEFT_OF_CHART / self.area[0], 1.0],
                "anchor": names["yaxis"],
                **x,
            },
            names["yaxis"].replace("y", "yaxis"): {
                "domain": [_BELOW_CHART / self.area[1], top],
                "anchor": names["xaxis"],
                **y,
            },
        }
        return self.layout() | chart

    def _corner(self, place: int) -> tuple[float, float]:
        """Left and top of a panel in pixels, from the left and the top of the area."""
        row, column = divmod(place, self.columns)
        return column * (self.size + _GAP), row * (self.size + _HEADER) + _HEADER

    def _share(self, direction: int, start: float) -> list[float]:
        whole = self.area[direction]
        return [max(0.0, start / whole), min(1.0, (start + self.size) / whole)]

    def _trace(self, place: int, drawn: Map) -> go.Heatmap:
        side = self.picture.side
        texts = [f"row {row}, column {column}" for row in range(side) for column in range(side)]
        quantity = self.scales[drawn.scale].title
        return go.Heatmap(
            z=self.picture.grid(drawn.values),
            text=np.array(texts, dtype=object).reshape(side, side),
            xaxis=_axis("x", place),
            yaxis=_axis("y", place),
            coloraxis=_axis("coloraxis", drawn.scale),
            opacity=_OPACITY,
            name=drawn.title,
            hovertemplate=f"%{{text}}<br>{escape(quantity)}: %{{z:.4g}}"
            f"<extra>{drawn.title}</extra>",
            hoverongaps=False,
        )

    def _image(self, place: int) -> dict[str, Any]:
        side = self.picture.side
        return {
            "source": self.picture.source,
            "xref": _axis("x", place),
            "yref": _axis("y", place),
            "x": -0.5,
            "y": -0.5,
            "sizex": side,
            "sizey": side,
            "sizing": "stretch",
            "layer": "below",
        }

    def _mark(self, place: int) -> dict[str, Any]:
        assert self.mark is not None
        return {
            "type": "rect",
            "xref": _axis("x", place),
            "yref": _axis("y", place),
            **self.picture.outline(self.mark),
            "line": {"color": MARK, "width": 2.5},
        }

    def _title(self, place: int, text: str) -> dict[str, Any]:
        return {
            "xref": f"{_axis('x', place)} domain",
            "yref": f"{_axis('y', place)} domain",
            "x": 0.5,
            "y": 1,
            "yanchor": "bottom",
            "text": text,
            "font": {"size": 12},
            "showarrow": False,
        }

    def _coloured(self, number: int, scale: Scale) -> Mapping[str, Any]:
        right = 1 + (12 + _BAR * number) / self.area[0]
        place = {
            "x": right,
            "xanchor": "left",
            "xpad": 0,
            "y": 1 - _HEADER / self.area[1],
            "yanchor": "top",
            "ypad": 0,
            "len": (self._tall - _HEADER) / self.area[1],
        }
        bar = merged(colorbar(scale.title), {**place, "title": {"font": {"size": 12}}})
        scales = SIGNED if scale.signed else UNSIGNED
        return {"colorscale": scales, "cmin": scale.low, "cmax": scale.high, "colorbar": bar}


_NO_TICKS = {"showgrid": False, "zeroline": False, "showticklabels": False, "ticks": ""}


def _axis(letter: str, number: int) -> str:
    """Plotly's name of an axis: the first has no number."""
    return f"{letter}{number + 1 if number else ''}"


def check_patches(patches: int, picture: Picture, position: int | None = None) -> None:
    """Refuse numbers that are not one for each patch, and a patch that is not there.

    Raises:
        ValueError: With what was expected and what came.
    """
    expected = picture.side**2
    if patches != expected:
        raise ValueError(f"expected a number for each of {expected} patches, got {patches}.")
    if position is not None and not 0 <= position < expected:
        raise ValueError(f"position must lie in 0..{expected - 1}, got {position}.")
