"""Figures as dicts that a browser draws once.

Streamlit's front end draws each chart, then sets the same figure again, parsed a second time.
Plotly would draw all of it a second time: it takes a template, ``meta`` and typed arrays as
changed, because they are other objects, and lists too unless ``datarevision`` says that they are
the same. Here a figure has none of the three, and a ``datarevision``.
"""

from base64 import b64decode
from typing import Any, cast

import numpy as np
import plotly.graph_objects as go
from plotly.io.json import to_json_plotly

from mudd_interp.files import sha256
from mudd_interp.viz.theme import merged

Fields = dict[str, Any]

_LISTED = {"annotations": "annotationdefaults", "shapes": "shapedefaults"}
_AXES = ("xaxis", "yaxis", "coloraxis")


def spec(figure: go.Figure) -> Fields:
    """A figure as a dict, looking the same, with its template's values in their places.

    Args:
        figure: Its template gives one default for each type of trace, as Plotly's own do.
    """
    whole: Fields = _untyped(figure.to_dict())
    revision = sha256(str(to_json_plotly(whole)).encode())
    layout: Fields = {**whole["layout"], "datarevision": revision}
    layout.pop("meta", None)
    template: Fields = layout.pop("template", {})
    defaults: Fields = dict(template.get("layout", {}))
    listed: Fields = {name: defaults.pop(key, {}) for name, key in _LISTED.items()}
    axes: Fields = {kind: defaults.pop(kind, {}) for kind in _AXES}
    layout = merged(defaults, layout)
    for kind in ("xaxis", "yaxis"):
        layout.setdefault(kind, {})
        # With a colour of its own, Plotly would draw the line.
        axes[kind] = {"showline": False, **axes[kind]}
    for name, value in layout.items():
        if (kind := name.rstrip("0123456789")) in axes:
            layout[name] = merged(axes[kind], value)
    for name, default in listed.items():
        if name in layout:
            layout[name] = [merged(default, each) for each in layout[name]]
    traces: dict[str, list[Fields]] = template.get("data", {})
    data = [merged(traces.get(each["type"], [{}])[0], each) for each in whole["data"]]
    return {**whole, "data": data, "layout": layout}


def _untyped(value: Any) -> Any:
    """The same, with lists of numbers in place of the arrays that Plotly has encoded."""
    if isinstance(value, list):
        return [_untyped(each) for each in cast(list[Any], value)]
    if not isinstance(value, dict):
        return value
    fields = cast(Fields, value)
    if fields.keys() == {"dtype", "bdata"}:
        return np.frombuffer(b64decode(fields["bdata"]), fields["dtype"]).tolist()
    return {name: _untyped(each) for name, each in fields.items()}
