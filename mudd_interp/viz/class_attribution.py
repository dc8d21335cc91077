"""What spoke for a class: contributions to its logit over the picture, and by component."""

from typing import Any

import numpy as np
import plotly.graph_objects as go

from mudd_interp.analysis import ClassAttribution
from mudd_interp.viz.picture import Map, Panels, Picture, Scale, check_patches
from mudd_interp.viz.theme import BASELINE, MUDD, LineStyle, escape, finish, short_name, source_line

_CHART = 330  # pixels


def class_attribution_figure(
    result: ClassAttribution, picture: Picture, baseline: ClassAttribution | None = None
) -> go.Figure:
    """Direct contributions to a class logit: of each patch, over the picture, and each component.

    Args:
        result: Of the model in question.
        picture: The image.
        baseline: Of the Transformer beside it, for the same class of the same image.

    Raises:
        ValueError: If the two are of different classes, or not of the picture's patches.
    """
    results = [result] if baseline is None else [result, baseline]
    for each in results:
        check_patches(len(each.by_patch), picture)
        for name in ("answer", "against"):
            mine, theirs = getattr(result, name), getattr(each, name)
            if mine != theirs:
                raise ValueError(f"{name} is {mine!r} for one model and {theirs!r} for the other.")
    end = max(float(np.abs(each.by_patch).max()) for each in results) or 1.0
    panels = Panels(
        picture,
        [Map(short_name(each.provenance.model), each.by_patch) for each in results],
        [Scale("logits", -end, end, signed=True)],
        chart=_CHART,
    )
    figure = panels.figure()
    for each, style in zip(results, (MUDD, BASELINE), strict=False):
        figure.add_trace(_bars(each, style, panels))
    what = f"“{result.answer}”" + (f" − “{result.against}”" if result.against is not None else "")
    sums = "; ".join(
        f"{each.provenance.model}: {each.logit:.4f} (relative error {each.completeness_error:.0e})"
        for each in results
    )
    names = [*max((each.components for each in results), key=len), "constant"]
    return finish(
        figure,
        f"What spoke for {what}",
        "output × total coefficient over all paths, through the final norm with its scale frozen, "
        f"as mean over patches; maps and constant sum to the logit, and so do the bars ({sums}); "
        "constant: biases of final norm and head; a patch's share is of what stands there at the "
        "end, which attention may have brought there",
        source_line([each.provenance for each in results]),
        **panels.layout_with_chart(_ticks(names), _AXIS),
        barmode="group",
        bargap=0.25,
        legend={"orientation": "h", "x": 0, "y": 0, "yanchor": "top"},
        showlegend=len(results) > 1,
    )


_AXIS = {"title": {"text": "contribution (logits)"}, "zerolinecolor": "#888888"}


def _ticks(names: list[str]) -> dict[str, Any]:
    return {
        "tickvals": list(range(len(names))),
        "ticktext": names,
        "tickangle": -90 if len(names) > 16 else 0,
        "showgrid": False,
    }


def _bars(result: ClassAttribution, style: LineStyle, panels: Panels) -> go.Bar:
    name, parts = escape(result.provenance.model), result.by_component
    return go.Bar(
        x=list(range(len(parts))),
        y=parts.to_numpy(),
        marker={"color": style.colour},
        name=name,
        hovertext=list(parts.index),
        hovertemplate="%{hovertext}: %{y:.4f}<extra>" + name + "</extra>",
        **panels.on_chart,
    )
