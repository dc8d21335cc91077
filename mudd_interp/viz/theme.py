"""How figures look: colours, scales, margins, escaped text, and the line that names their data.

Baseline and MUDD each have the same colour and dash everywhere; each stream has a letter and a
marker besides its colour. Signed numbers are drawn in ``RdBu_r`` around 0, unsigned ones in
``viridis`` from 0. Depth goes upwards.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from textwrap import wrap
from typing import Any

import numpy as np
import plotly.graph_objects as go
import plotly.io as pio
from jaxtyping import Float64, Shaped

from mudd_interp.analysis import Provenance
from mudd_interp.axes import STREAM_NAMES, Stream

WIDTH, HEIGHT = 1000, 600
"""The size for which figures are laid out, in pixels."""

SIGNED, UNSIGNED = "RdBu_r", "viridis"
"""Colour scales: symmetric around 0, and from 0."""

ROBUST_QUANTILE = 0.98
"""The share of the non-zero magnitudes that lies inside a signed colour scale."""

_CHARACTERS, _LINE = 0.155, 15  # of the lines below the title: in a pixel of width; height

FONT = "DejaVu Sans, Verdana, Arial, sans-serif"
MONOSPACE = "DejaVu Sans Mono, Menlo, Consolas, monospace"
_TRACES = ("bar", "heatmap", "scatter")
_OTHER_SUBPLOTS = ("geo", "polar", "scene", "ternary")
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "$": "&#36;"}
_VISIBLE = {" ": "·", "\n": "⏎", "\r": "␍", "\t": "⇥"}


@dataclass(frozen=True)
class LineStyle:
    """How one curve is drawn.

    Attributes:
        colour: The colour of line and marker.
        dash: Plotly's name of the dash.
        symbol: Plotly's name of the marker.
    """

    colour: str
    dash: str
    symbol: str

    def trace(self, **options: Any) -> go.Scatter:
        """A curve with markers in this style."""
        return go.Scatter(
            mode="lines+markers",
            line={"color": self.colour, "dash": self.dash, "width": 2.2},
            marker={"color": self.colour, "symbol": self.symbol, "size": 8},
            **options,
        )

    def band(
        self,
        x: Float64[np.ndarray, " point"],
        low: Float64[np.ndarray, " point"],
        high: Float64[np.ndarray, " point"],
    ) -> go.Scatter:
        """The area between two curves, faint, without legend or hover."""
        return go.Scatter(
            x=np.concatenate([x, np.flip(x)]),
            y=np.concatenate([low, np.flip(high)]),
            mode="lines",
            line={"width": 0},
            fill="toself",
            fillcolor=self.colour,
            opacity=0.12,
            hoverinfo="skip",
            showlegend=False,
        )


BASELINE = LineStyle("#4C6A92", "dash", "x")
MUDD = LineStyle("#C8641B", "solid", "circle")
STREAM_STYLES: dict[Stream, LineStyle] = {
    "q": LineStyle("#7B4FA6", "solid", "square"),
    "k": LineStyle("#148F8B", "solid", "diamond"),
    "v": LineStyle("#262626", "solid", "triangle-up"),
    "r": MUDD,
}


def stream_title(stream: Stream) -> str:
    """A stream's letter and name: ``Q · query``."""
    return f"{stream.upper()} · {STREAM_NAMES[stream]}"


def escape(text: str) -> str:
    """Text that Plotly shows as it is: it would read some HTML, and formulas between dollars."""
    return "".join(_ESCAPES.get(character, character) for character in text)


def shown(token: str, longest: int = 12) -> str:
    """A token as plain text: a space as ``·``, a newline as ``⏎``, cut if it is long."""
    text = "".join(_VISIBLE.get(c, c if c.isprintable() else f"\\x{ord(c):02x}") for c in token)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def visible(token: str, longest: int = 12) -> str:
    """:func:`shown`, escaped for a Plotly label."""
    return escape(shown(token, longest))


def short_name(model: str, longest: int = 18) -> str:
    """A model's name as a label, escaped; only the end of a long path."""
    return escape(model if len(model) <= longest else "…" + model[1 - longest :])


def minus(result: Provenance, baseline: Provenance, longest: int = 18) -> str:
    """The name of a difference between two models, escaped; only the ends of long names."""
    return " − ".join(short_name(each.model, longest) for each in (result, baseline))


def robust_limit(values: Shaped[np.ndarray, "..."], quantile: float = ROBUST_QUANTILE) -> float:
    """The end of a colour scale: a quantile of the non-zero magnitudes, NaN left out."""
    magnitudes = np.abs(values[np.isfinite(values) & (values != 0)])
    return float(np.quantile(magnitudes, quantile)) if magnitudes.size else 1.0


def source_line(provenances: Sequence[Provenance]) -> str:
    """What a figure was computed on: models, data, tokens, library version; escaped."""
    data = list(dict.fromkeys(_data(p) for p in provenances))
    if len(data) == 1:
        models = " and ".join(dict.fromkeys(_model(p) for p in provenances))
        parts = [models, data[0]]
    else:
        parts = ["; ".join(f"{_model(p)} on {_data(p)}" for p in provenances)]
    versions = " and ".join(dict.fromkeys(p.version for p in provenances))
    return escape(" · ".join([*parts, f"mudd-interp {versions}"]))


def _model(provenance: Provenance) -> str:
    identity = provenance.digest or provenance.revision
    details = [identity[:8]] if identity else []
    return f"{provenance.model} ({', '.join([*details, provenance.dtype])})"


def _data(provenance: Provenance) -> str:
    data, sequences = " + ".join(provenance.data), provenance.sequences
    plural = "" if sequences == 1 else "s"
    if provenance.reads == "images":
        return f"{data}, {provenance.tokens:,} patches in {sequences:,} image{plural}"
    return f"{data}, {provenance.tokens:,} tokens in {sequences:,} sequence{plural}"


@cache
def template(name: str) -> Any:
    """One of Plotly's templates, reduced to what is drawn here: Plotly checks it for every figure.

    Labels are drawn even where the edge of a figure cuts them off. To find those, a browser would
    measure every label several times, which takes longer than the rest of the drawing.

    Args:
        name: ``plotly_white`` or ``plotly_dark``.
    """
    whole = pio.templates[name].to_plotly_json()
    data = {kind: whole["data"][kind] for kind in _TRACES}
    layout = {key: value for key, value in whole["layout"].items() if key not in _OTHER_SUBPLOTS}
    for axis in ("xaxis", "yaxis"):
        layout[axis] |= {"ticklabeloverflow": "allow"}
    return go.layout.Template(data=data, layout=layout)


def finish(figure: go.Figure, title: str, what: str, source: str, **layout: Any) -> go.Figure:
    """Give a figure its title, two lines below it, fonts, margins and size.

    Args:
        figure: The figure; changed in place, and returned.
        title: What is shown; plain text.
        what: The definition, with its range or unit; plain text.
        source: What it was computed on; already escaped.
        **layout: More of Plotly's layout. Text that does not fit its width continues on another
            line, and the figure grows by as much.
    """
    characters = int(_CHARACTERS * layout.get("width", WIDTH))
    definition = [escape(line) for line in wrap(what, characters)]
    lines = [*definition, *wrap(source, characters, break_on_hyphens=False)]
    common = {
        "template": template("plotly_white"),
        "width": WIDTH,
        "height": HEIGHT,
        "font": {"family": FONT, "size": 12, "color": "#222222"},
        "title": {
            "text": escape(title),
            "font": {"size": 18},
            "subtitle": {
                "text": "<br>".join(lines),
                "font": {"size": 11.5, "color": "#555555"},
            },
            "x": 0.015,
            "y": 0.975,
            "xanchor": "left",
            "yanchor": "top",
        },
        "margin": {"l": 70, "r": 40, "t": 100, "b": 60},
        # For a page that writes them itself and breaks lines at its own width.
        "meta": {"definition": escape(what), "source": source},
    }
    whole = merged(merged(figure.layout.to_plotly_json(), common), layout)
    more = _LINE * (len(lines) - 2)
    whole["height"] += more
    whole["margin"]["t"] += more
    # In one step: Plotly takes several times as long to update an existing layout.
    figure.layout = whole
    return figure


def merged(layout: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A layout with changes, as ``update_layout`` makes them, without Plotly's checks."""
    whole = dict(layout)
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(whole.get(key), Mapping):
            value = merged(whole[key], value)
        whole[key] = value
    return whole


def colorbar(title: str) -> dict[str, Any]:
    """A colour bar as tall as the plot, with an empty line between its title and its end."""
    return {"title": {"text": f"{title}<br> "}, "thickness": 16, "len": 1, "outlinewidth": 0}


def token_names(positions: Iterable[int], tokens: Iterable[str]) -> list[str]:
    """Each token with its position, for hover texts."""
    return [f"{i} {visible(token, 40)}" for i, token in zip(positions, tokens, strict=True)]


def token_ticks(positions: Iterable[int], tokens: Iterable[str]) -> dict[str, Any]:
    """Axis settings for tokens, placed by position: as categories, equal texts would merge."""
    return {
        "tickmode": "array",
        "tickvals": list(positions),
        "ticktext": [visible(token, 10) for token in tokens],
        "tickangle": -90,
        "tickfont": {"family": MONOSPACE, "size": 9.5},
        "showgrid": False,
        "zeroline": False,
    }


def named_ticks(names: Sequence[str], at_most: int = 16) -> dict[str, Any]:
    """Axis settings for names at whole numbers from 0, thinned to a readable number."""
    ticks = integer_ticks(len(names), at_most)
    shown_at: list[int] = ticks["tickvals"]
    return {**ticks, "ticktext": [escape(str(names[at])) for at in shown_at]}


def integer_ticks(count: int, at_most: int = 16) -> dict[str, Any]:
    """Axis settings for whole numbers ``0..count-1``, thinned to a readable number."""
    step = -(-count // at_most)
    return {"tickmode": "array", "tickvals": list(range(0, count, step)), "zeroline": False}
