"""Figure 8 of the paper: how often heads attend to something other than a sink."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mudd_interp.analysis import HeadActivity, activity_difference
from mudd_interp.viz.sinks import sink_words
from mudd_interp.viz.theme import (
    BASELINE,
    MUDD,
    UNSIGNED,
    LineStyle,
    colorbar,
    escape,
    finish,
    integer_ticks,
    source_line,
)


def head_activity_figure(result: HeadActivity, baseline: HeadActivity | None = None) -> go.Figure:
    """The share of active tokens by layer, as the mean over heads; small dots are heads (Fig. 8).

    Args:
        result: Of the model in question.
        baseline: Of the Transformer beside it, dashed.
    """
    figure = go.Figure()
    results = [result] if baseline is None else [result, baseline]
    for each, style in zip(results, (MUDD, BASELINE), strict=False):
        suffix = "" if each is result else " (baseline)"
        _add_model(figure, each, f"{escape(each.provenance.model)}{suffix}", style)
    n_layers = max(len(each.active_count) for each in results)
    return finish(
        figure,
        "Head activity by layer",
        f"{_definition(results)}; 0..1",
        source_line([each.provenance for each in results]),
        xaxis={**integer_ticks(n_layers, 24), "title": "layer", "range": [-0.4, n_layers - 0.6]},
        yaxis={"title": "active share of tokens", "range": [-0.02, 1.02], "zeroline": False},
        legend={"orientation": "h", "x": 0, "y": -0.14, "yanchor": "top"},
        margin={"l": 70, "r": 40, "t": 95, "b": 95},
    )


def head_heatmap_figure(result: HeadActivity, baseline: HeadActivity | None = None) -> go.Figure:
    """Share of active tokens of every head: layer by head, both models on one 0..1 scale.

    Args:
        result: Of the model in question.
        baseline: Of the Transformer beside it.
    """
    results = [result] if baseline is None else [result, baseline]
    titles = [escape(each.provenance.model) for each in results]
    figure = make_subplots(
        rows=1, cols=len(results), shared_yaxes=True, column_titles=titles, horizontal_spacing=0.04
    )
    for column, each in enumerate(results, start=1):
        n_heads = each.active_count.shape[1]
        figure.add_trace(_heatmap(each), row=1, col=column)
        figure.update_xaxes(title="head", showgrid=False, **integer_ticks(n_heads), col=column)
    n_layers = max(len(each.active_count) for each in results)
    figure.update_yaxes(showgrid=False, **integer_ticks(n_layers, 24))
    figure.update_yaxes(title="layer", col=1)
    return finish(
        figure,
        "Head activity by layer and head",
        f"{_definition(results)}; 0..1",
        source_line([each.provenance for each in results]),
        coloraxis=_share_scale("active share"),
        margin={"l": 70, "r": 30, "t": 130, "b": 60},
    )


def activity_difference_figure(result: HeadActivity, baseline: HeadActivity) -> go.Figure:
    """How much more often heads are active than the baseline's, by layer, as means over heads.

    Args:
        result: Of the model in question: bars above zero have its colour.
        baseline: Of the Transformer beside it: bars below zero have its colour.

    Raises:
        ValueError: If the models are not equally deep, or their sink rules differ in the number of
            first positions.
    """
    table = activity_difference(result, baseline)
    difference = table["difference"].to_numpy()
    end = 1.1 * float(np.abs(difference).max()) or 1.0
    bars = go.Bar(
        x=table["layer"],
        y=difference,
        marker_color=np.where(difference < 0, BASELINE.colour, MUDD.colour),
        customdata=table[["active", "baseline"]],
        hovertemplate="layer %{x}: %{y:+.3f}<br>%{customdata[0]:.3f} − %{customdata[1]:.3f}"
        "<extra></extra>",
    )
    n_layers = len(table)
    return finish(
        go.Figure(bars),
        f"Head activity by layer: {result.provenance.model} − {baseline.provenance.model}",
        f"{_definition([result, baseline])}; difference, −1..1",
        source_line([result.provenance, baseline.provenance]),
        xaxis={**integer_ticks(n_layers, 24), "title": "layer", "showgrid": False},
        yaxis={
            "title": "difference of active shares, mean over heads",
            "range": [-end, end],
            "zerolinecolor": "#222222",
            "zerolinewidth": 1,
        },
    )


def _definition(results: Sequence[HeadActivity]) -> str:
    positions = [each.provenance.options["first_positions"] for each in results]
    counts = " and ".join(map(str, dict.fromkeys(positions)))
    return (
        "share of tokens whose largest attention weight falls neither on the first "
        f"{counts} positions nor on a sink token ({sink_words(results)})"
    )


def _add_model(figure: go.Figure, result: HeadActivity, name: str, style: LineStyle) -> None:
    heads, layers = result.frame, result.layer_frame
    figure.add_trace(
        go.Scatter(
            x=heads["layer"],
            y=heads["active"],
            customdata=heads["head"],
            mode="markers",
            marker={"color": style.colour, "symbol": style.symbol, "size": 5, "opacity": 0.35},
            name=f"{name}: heads",
            hovertemplate="layer %{x}, head %{customdata}: %{y:.3f}<extra></extra>",
        )
    )
    hover = "layer %{x}: %{y:.3f}<extra></extra>"
    name = f"{name}: mean over heads"
    figure.add_trace(
        style.trace(x=layers["layer"], y=layers["active"], name=name, hovertemplate=hover)
    )


def _heatmap(result: HeadActivity) -> go.Heatmap:
    grid = result.frame["active"].to_numpy().reshape(result.active_count.shape)
    hover = "layer %{y}, head %{x}: %{z:.3f}<extra></extra>"
    name = escape(result.provenance.model)
    return go.Heatmap(z=grid, coloraxis="coloraxis", hovertemplate=hover, xgap=1, ygap=1, name=name)


def _share_scale(title: str) -> dict[str, Any]:
    return {
        "colorscale": UNSIGNED,
        "cmin": 0,
        "cmax": 1,
        "colorbar": colorbar(title),
    }
