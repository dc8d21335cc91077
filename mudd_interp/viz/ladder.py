"""Table 5: the gap of each step, ours beside the paper's; induction scores, and by position."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mudd_interp.viz.theme import BASELINE, MUDD, STREAM_STYLES, LineStyle, finish

_SOURCES = (BASELINE, MUDD, STREAM_STYLES["k"])
_RUNGS = (MUDD, BASELINE, STREAM_STYLES["k"], STREAM_STYLES["q"], STREAM_STYLES["v"])
_DASHES = ("solid", "dash", "dot")


def ladder_figure(table: pd.DataFrame, source: str) -> go.Figure:
    """:func:`gaps_figure` of Table 5, with the paper's gaps; below, the largest of our ladders."""
    return gaps_figure(
        table,
        source,
        "Table 5: what each step is worth",
        "gap: second model minus first, below 0 where the second is better; ours with 95% "
        "intervals of Student's t over paired seeds, the paper's with what the rounding of its "
        "perplexities allows; below, means over seeds, and the bars from the least to the largest",
    )


def zoo_figure(table: pd.DataFrame, source: str) -> go.Figure:
    """:func:`gaps_figure` of relatives of MUDDFormer."""
    return gaps_figure(
        table,
        source,
        "What each architecture is worth",
        "gap: second model minus first, below 0 where the second is better; 95% intervals of "
        "Student's t over paired seeds, and of held-out files drawn anew; below, means over seeds, "
        "and the bars from the least to the largest",
    )


def gaps_figure(table: pd.DataFrame, source: str, title: str, what: str) -> go.Figure:
    """Three panels: the gap of each contrast by source, induction, and the gap by position.

    Args:
        table: Columns ``quantity``, ``of``, ``source``, ``seeds``, ``position``, ``value``,
            ``low``, ``high``, ``note``.
        source: What was measured and where; written below the title.
        title: Of the figure.
        what: The definition of what is drawn.
    """
    figure = make_subplots(
        rows=2,
        cols=2,
        specs=[[{"colspan": 2}, None], [{}, {}]],
        row_heights=[0.55, 0.45],
        vertical_spacing=0.13,
        horizontal_spacing=0.16,
        subplot_titles=[
            "gap in loss",
            "largest induction score of a head",
            "gap to Transformer++ by position",
        ],
    )
    gaps: Any = table[table["quantity"] == "gap"]
    for name, style in zip(gaps["source"].unique(), _SOURCES, strict=False):
        trace = _across(gaps[gaps["source"] == name], style, str(name))
        figure.add_trace(trace, row=1, col=1)
    ours: Any = table[table["quantity"].isin(["induction", "gap by position"])]
    for largest in ours["source"].unique()[-1:]:
        _panels(figure, ours[ours["source"] == largest])
    if ours.empty:
        # By the figure: the axes of an empty panel are not there.
        place = {"y": 0.2, "xref": "paper", "yref": "paper", "showarrow": False}
        for x in (0.21, 0.79):
            figure.add_annotation(text="no complete run yet", x=x, **place)
    ticks = [int(position) for position in sorted(ours["position"].unique()) if position]
    figure.update_xaxes(title="gap, nats per token", row=1, col=1)
    figure.update_yaxes(title="step", autorange="reversed", automargin=True, row=1, col=1)
    figure.update_yaxes(title="model", autorange="reversed", automargin=True, row=2, col=1)
    figure.update_xaxes(range=[0, 1], title="share of attention, 0 to 1", row=2, col=1)
    figure.update_xaxes(type="log", tickvals=ticks, title="from position", row=2, col=2)
    figure.update_yaxes(title="nats per token", row=2, col=2)
    return finish(
        figure,
        title,
        what,
        source,
        height=900,
    )


def _panels(figure: go.Figure, ours: Any) -> None:
    scores = ours[ours["quantity"] == "induction"]
    figure.add_trace(_across(scores, MUDD, None), row=2, col=1)
    by_position = ours[ours["quantity"] == "gap by position"]
    for number, (rung, group) in enumerate(by_position.groupby("of", sort=False)):
        base = _RUNGS[number % len(_RUNGS)]
        style = LineStyle(base.colour, _DASHES[number // len(_RUNGS)], base.symbol)
        trace = style.trace(
            x=group["position"],
            y=group["value"],
            name=str(rung),
            hovertemplate=f"from position %{{x}}: %{{y:+.4f}}<extra>{rung}</extra>",
        )
        figure.add_trace(trace, row=2, col=2)


def _across(table: pd.DataFrame, style: LineStyle, name: str | None) -> go.Scatter:
    """Values with their ends from left to right; without a name, not in the legend."""
    given: dict[str, Any] = {"showlegend": False} if name is None else {"name": name}
    return go.Scatter(
        x=table["value"],
        y=table["of"],
        error_x={
            "array": table["high"] - table["value"],
            "arrayminus": table["value"] - table["low"],
            "color": style.colour,
        },
        mode="markers",
        orientation="h",
        marker={"color": style.colour, "symbol": style.symbol, "size": 9},
        customdata=table[["seeds", "note", "low", "high"]],
        hovertemplate=(
            "%{y}: %{x:+.4f} (%{customdata[2]:+.4f} to %{customdata[3]:+.4f})<br>"
            "seeds: %{customdata[0]}. %{customdata[1]}<extra></extra>"
        ),
        **given,
    )
