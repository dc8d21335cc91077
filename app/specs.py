"""Figures as dicts that a browser draws once.

Streamlit's front end draws each chart, then sets the same figure again, parsed anew. Plotly would
draw all of it a second time: it takes for changed a template, ``meta`` and typed arrays, for they
are other objects, and lists too unless ``datarevision`` says that they are the same. Here a figure
has none of the three, and a ``datarevision``.
"""

from base64 import b64decode
from typing import Any, cast

import numpy as np
import plotly.graph_objects as go

from mudd_interp.files import sha256

Fields = dict[str, Any]

_LISTED = {"annotations": "annotationdefaults", "shapes": "shapedefaults"}
_AXES = ("xaxis", "yaxis", "coloraxis")


def spec(figure: go.Figure) -> Fields:
    """A figure as a dict, looking the same, with its template's values in their places.

    Args:
        figure: Its template gives one default for each type of trace, as Plotly's own do.
    """
    whole: Fields = _untyped(figure.to_dict())
    layout: Fields = {**whole["layout"], "datarevision": sha256(str(figure.to_json()).encode())}
    layout.pop("meta", None)
    template: Fields = layout.pop("template", {})
    defaults: Fields = dict(template.get("layout", {}))
    listed: Fields = {name: defaults.pop(key, {}) for name, key in _LISTED.items()}
    axes: Fields = {kind: defaults.pop(kind, {}) for kind in _AXES}
    layout = _over(defaults, layout)
    for kind in ("xaxis", "yaxis"):
        layout.setdefault(kind, {})
        # A colour of its own would have Plotly draw the line.
        axes[kind] = {"showline": False, **axes[kind]}
    for name, value in layout.items():
        if (kind := name.rstrip("0123456789")) in axes:
            layout[name] = _over(axes[kind], value)
    for name, default in listed.items():
        if name in layout:
            layout[name] = [_over(default, each) for each in layout[name]]
    traces: dict[str, list[Fields]] = template.get("data", {})
    data = [_over(traces.get(each["type"], [{}])[0], each) for each in whole["data"]]
    return {**whole, "data": data, "layout": layout}


def _untyped(value: Any) -> Any:
    """The same with a list of numbers for each array of them that Plotly has encoded."""
    if isinstance(value, list):
        return [_untyped(each) for each in cast(list[Any], value)]
    if not isinstance(value, dict):
        return value
    fields = cast(Fields, value)
    if fields.keys() == {"dtype", "bdata"}:
        return np.frombuffer(b64decode(fields["bdata"]), fields["dtype"]).tolist()
    return {name: _untyped(each) for name, each in fields.items()}


def _over(defaults: Fields, values: Fields) -> Fields:
    """Values, and defaults where there are none."""
    whole = dict(defaults)
    for name, value in values.items():
        default = whole.get(name)
        both = isinstance(default, dict) and isinstance(value, dict)
        whole[name] = _over(cast(Fields, default), cast(Fields, value)) if both else value
    return whole
