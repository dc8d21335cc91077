"""Loss against compute, and the compute that Transformer++ needs for MUDDFormer's loss."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mudd_interp.viz.theme import BASELINE, MUDD, STREAM_STYLES, LineStyle, finish

_CURVES = {"Transformer++": BASELINE, "MUDDFormer": MUDD}
_RATIOS = {
    "ratio": ("files drawn anew", MUDD),
    "ratio, over seeds": ("over seeds", STREAM_STYLES["k"]),
    "ratio, as built": ("as built", BASELINE),
}


def scaling_figure(table: pd.DataFrame, source: str) -> go.Figure:
    """Losses by compute with their intervals, and the ratio at each size, the paper's among them.

    Args:
        table: Columns ``quantity``, ``size``, ``model``, ``seeds``, ``compute``, ``value``,
            ``low``, ``high``, ``note``.
        source: What was measured and where; written below the title.
    """
    figure = make_subplots(
        rows=1,
        cols=2,
        column_widths=[0.58, 0.42],
        horizontal_spacing=0.12,
        subplot_titles=["held-out loss, nats per token", "compute-equivalent ratio"],
    )
    losses: Any = table[table["quantity"] == "loss"]
    for (model, layers), group in losses.groupby(["model", _layers(losses)], sort=False):
        style = _CURVES.get(str(model), STREAM_STYLES["k"])
        name = str(model) if layers == "12" else f"{model}, {layers} layers"
        figure.add_trace(style.trace(name=name, **_points(group, style, "compute")), row=1, col=1)
    for quantity, (name, style) in _RATIOS.items():
        group: Any = table[table["quantity"] == quantity]
        if len(group):
            trace = style.trace(name=f"ratio, {name}", **_points(group, style, "size"))
            figure.add_trace(trace.update(mode="markers"), row=1, col=2)
    if losses.empty:
        # By the figure: the axes of an empty panel are not there.
        place = {"x": 0.26, "y": 0.5, "xref": "paper", "yref": "paper", "showarrow": False}
        figure.add_annotation(text="no complete run yet", **place)
    figure.update_xaxes(type="log", dtick=1, title="compute, 6 N D FLOPs", row=1, col=1)
    figure.update_xaxes(exponentformat="power", row=1, col=1)
    figure.update_yaxes(title="times the compute", row=1, col=2)
    return finish(
        figure,
        "Loss against compute",
        "ratio: the compute that Transformer++ would need for MUDDFormer's loss, over what "
        "MUDDFormer had, linear in log compute between the points; 1 where neither is better; 95% "
        "intervals",
        source,
        height=580,
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": -0.16, "yanchor": "top"},
    )


def _layers(table: pd.DataFrame) -> pd.Series:
    """The number of layers of each row: models of another depth are no points of one curve."""
    return table["size"].str.split("x").str[0]


def _points(table: pd.DataFrame, style: LineStyle, axis: str) -> dict[str, Any]:
    """Values with their intervals along an axis."""
    if axis == "compute":
        table = table.sort_values(axis)
    return {
        "x": table[axis],
        "y": table["value"],
        "error_y": {
            "array": table["high"] - table["value"],
            "arrayminus": table["value"] - table["low"],
            "color": style.colour,
        },
        "customdata": table[["size", "seeds", "note"]],
        "hovertemplate": (
            "%{customdata[0]}: %{y:.4g}, seeds: %{customdata[1]} %{customdata[2]}<extra></extra>"
        ),
    }
