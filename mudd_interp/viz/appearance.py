"""A figure for a dark page, and in words for those who cannot see it."""

import re
from collections import Counter
from colorsys import hls_to_rgb, rgb_to_hls
from html import unescape
from operator import itemgetter
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Shaped

from mudd_interp.viz.theme import template

DARK_PAGE = "#0E1117"
"""The background of a dark figure."""

READABLE = 4.5
"""The contrast of a colour with its background, 1..21: what the WCAG asks of text."""

_KINDS = {
    "lines": "curve",
    "lines+markers": "curve",
    "markers": "set of points",
    "bar": "set of bars",
    "heatmap": "heat map",
}

Rgb = tuple[float, float, float]

_Json = dict[str, Any]
"""A trace or a layout, or a part of one, as Plotly writes it."""

_End = tuple[float, str]
"""A number, and where it is."""


def dark(figure: go.Figure) -> go.Figure:
    """A copy of a figure for a dark page; the figure itself stays as it is.

    Lines, markers, bars and text keep their hue, but become light enough to be read on
    ``DARK_PAGE``. The scales of heat maps and the text on their cells stay as they are, so that a
    colour means the same on both pages.

    Raises:
        ValueError: If a colour is not written as ``#RRGGBB``.
    """
    layout = _recoloured({**figure.layout.to_plotly_json(), "template": None})
    layout |= {
        "template": template("plotly_dark"),
        "paper_bgcolor": DARK_PAGE,
        "plot_bgcolor": DARK_PAGE,
    }
    return go.Figure([_recoloured(trace.to_plotly_json()) for trace in figure.data], layout)


def _recoloured(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {
            name: inner if name == "textfont" else _recoloured(inner, name)
            for name, inner in value.items()
        }
    if key.endswith("bgcolor"):
        return DARK_PAGE
    if isinstance(value, str):
        return _lightened(value) if key.endswith("color") else value
    if isinstance(value, list | tuple | np.ndarray) and (key.endswith("color") or _parts(value)):
        return [_recoloured(inner, key) for inner in value]
    return value


def _parts(values: Any) -> bool:
    """Whether these are parts of a figure, such as its annotations, and not numbers or texts."""
    return len(values) > 0 and isinstance(values[0], dict)


def _lightened(colour: str) -> str:
    """The colour if it can be read on a dark page, else with its lightness mirrored, or lighter."""
    hue, lightness, saturation = rgb_to_hls(*_rgb(colour))
    if contrast(colour, DARK_PAGE) >= READABLE:
        return colour
    for light in np.arange(max(1 - lightness, lightness), 1.0, 0.01):
        lighter = _hex(hls_to_rgb(hue, light, saturation))
        if contrast(lighter, DARK_PAGE) >= READABLE:
            return lighter
    return "#FFFFFF"


def contrast(one: str, other: str) -> float:
    """The contrast of two ``#RRGGBB`` colours as defined by the WCAG, 1..21."""
    low, high = sorted((_luminance(_rgb(one)), _luminance(_rgb(other))))
    return (high + 0.05) / (low + 0.05)


def _luminance(rgb: Rgb) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def _rgb(colour: str) -> Rgb:
    if not re.fullmatch("#[0-9A-Fa-f]{6}", colour):
        raise ValueError(f"expected a colour as #RRGGBB, got {colour!r}.")
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


def _hex(rgb: Rgb) -> str:
    return "#" + "".join(f"{round(255 * c):02X}" for c in rgb)


def alt_text(figure: go.Figure) -> str:
    """A figure in two sentences: its title and what it draws, and the range of its numbers.

    For the alternative text of a picture: plain text, computed from what is drawn. Numbers on
    different axes or colour scales are kept apart; what has no hover text is left out.
    """
    # Plain dictionaries: each access to Plotly's own objects goes up to the figure and down again.
    layout = figure.layout.to_plotly_json()
    every = [trace.to_plotly_json() for trace in figure.data]
    traces = [trace for trace in every if trace.get("hoverinfo") != "skip"]
    counts = Counter(_kind(trace) for trace in traces)
    drawn = " and ".join(f"{n} {kind if n == 1 else _plural(kind)}" for kind, n in counts.items())
    title = _text(layout)
    words = f"{_plain(title)}: {drawn}." if title else f"{_capital(drawn)}."
    ends: dict[str, list[_End]] = {}
    for trace in traces:
        ends.setdefault(_quantity(layout, trace), []).extend(_ends(layout, trace))
    ranges = [_range(name, numbers) for name, numbers in ends.items() if name and numbers]
    return f"{words} {_capital('; '.join(ranges))}." if ranges else words


def _kind(trace: _Json) -> str:
    kind: str = trace["type"]
    return _KINDS.get(trace.get("mode", "") if kind == "scatter" else kind, kind)


def _text(titled: _Json) -> str:
    """The title of a layout, an axis or a colour bar; empty if it has none."""
    return titled.get("title", {}).get("text") or ""


def _plural(kind: str) -> str:
    return kind.replace("set", "sets") if kind.startswith("set") else f"{kind}s"


def _range(quantity: str, ends: list[_End]) -> str:
    low, high = (_words(*pick(ends, key=itemgetter(0))) for pick in (min, max))
    return f"{quantity}: from {low} to {high}"


def _ends(layout: _Json, trace: _Json) -> list[_End]:
    """The smallest and the largest number of a trace."""
    numbers = trace["z"] if trace["type"] == "heatmap" else trace[_value_axis(trace)]
    values = np.asarray(numbers, dtype=np.float64)
    if not np.isfinite(values).any():
        return []
    ends = [int(find(values)) for find in (np.nanargmin, np.nanargmax)]
    places = [tuple(map(int, np.unravel_index(end, values.shape))) for end in ends]
    return [(float(values[place]), _place(layout, trace, place)) for place in places]


def _value_axis(trace: _Json) -> str:
    return "x" if trace.get("orientation") == "h" else "y"


def _place(layout: _Json, trace: _Json, index: tuple[int, ...]) -> str:
    parts = [_plain(trace.get("name", ""))]
    if (texts := trace.get("hovertext" if trace["type"] == "bar" else "text")) is not None:
        parts.append(_plain(str(np.asarray(texts)[index]).replace("<br>", ", ")))
    elif trace["type"] == "heatmap":
        parts += [_on_axis(layout, trace, *at) for at in zip("yx", index, strict=True)]
    else:
        parts.append(_on_axis(layout, trace, "yx"[_value_axis(trace) == "y"], index[0]))
    words = ", ".join(part for part in parts if part)
    return f"({words})" if words else ""


def _on_axis(layout: _Json, trace: _Json, letter: str, index: int) -> str:
    """A place on an axis, such as ``block l 3``; empty if the axis shows texts, not numbers."""
    if _axis(layout, trace, letter).get("ticktext") is not None:
        return ""
    positions: Shaped[np.ndarray, " position"] | None = trace.get(letter)
    title = _title(layout, trace, letter)
    return f"{title.split(' (')[0]} {index if positions is None else positions[index]}"


def _quantity(layout: _Json, trace: _Json) -> str:
    """What the numbers of a trace are; empty if their axis does not say."""
    if trace["type"] != "heatmap":
        return _plain(_text(_axis(layout, trace, _value_axis(trace))))
    scaled = layout[trace["coloraxis"]] if "coloraxis" in trace else trace
    return _plain(_text(scaled["colorbar"]))


def _axis(layout: _Json, trace: _Json, letter: str) -> _Json:
    name = trace.get(f"{letter}axis", letter)
    return layout.get(f"{letter}axis{name[1:]}", {})


def _title(layout: _Json, trace: _Json, letter: str) -> str:
    """The title of an axis; in a grid of panels only those at the edge have one."""
    others = [axis for name, axis in layout.items() if name.startswith(f"{letter}axis")]
    titles = [text for axis in (_axis(layout, trace, letter), *others) if (text := _text(axis))]
    return _plain(titles[0]) if titles else letter


def _plain(text: str) -> str:
    """Text without Plotly's markup, on one line."""
    return unescape(re.sub("<[^>]*>", "", text.replace("<br>", " "))).strip()


def _words(value: float, place: str) -> str:
    return f"{value:.3g} {place}".replace("-", "−", 1 if value < 0 else 0).strip()


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
