"""Where the strongest heads of a kind are, and how many there are."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mudd_interp.analysis import HeadActivity, HeadEntropy, HeadScores
from mudd_interp.request import HeadMeasure
from mudd_interp.viz.curves import LAYOUT
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

RANKED = 20
"""How many heads of each model the sorted curve shows."""

NUMBERED = 5
"""How many of them are numbered in the maps."""


@dataclass(frozen=True)
class _Words:
    """What a measure is called, and its definition; plain text."""

    name: str
    definition: str


_SHARE = "mean over the queries that have any, 0..1"
_WORDS: dict[HeadMeasure, _Words] = {
    "previous_token": _Words("Previous-token score", f"attention on the token before; {_SHARE}"),
    "duplicate_token": _Words(
        "Duplicate-token score", f"attention on earlier occurrences of the same token; {_SHARE}"
    ),
    "induction": _Words(
        "Induction score",
        f"attention on the token that followed this one a period ago (i − period + 1); {_SHARE}",
    ),
    "prefix_matching": _Words(
        "Prefix-matching score",
        f"attention on all tokens that followed an earlier occurrence of this one; {_SHARE}",
    ),
    "activity": _Words(
        "Head activity", "share of tokens at which the largest weight is not on a sink, 0..1"
    ),
    "entropy": _Words(
        "Attention entropy", "mean entropy of a token's attention in nats, 0..log(number of keys)"
    ),
}


def head_scores_figure(
    result: HeadScores | HeadEntropy,
    baseline: HeadScores | HeadEntropy | None = None,
    by: HeadMeasure = "induction",
) -> go.Figure:
    """One score of every head: layer by head for each model, and the highest ones in order.

    Both models share one scale, 0..1 (of entropy: from 0 to the largest). In the maps the
    highest heads carry their rank, which is the horizontal axis of the sorted curves.

    Args:
        result: Of the model in question.
        baseline: Of the Transformer beside it.
        by: The score; ``"entropy"`` is drawn from a ``HeadEntropy``, the others from
            ``HeadScores``.

    Raises:
        ValueError: If a result does not have that score.
    """
    results = [result] if baseline is None else [result, baseline]
    frames = [_column(each, by) for each in results]
    names = [escape(each.provenance.model) for each in results]
    figure = make_subplots(
        rows=1,
        cols=len(results) + 1,
        column_titles=[*names, "the highest, in order"],
        column_widths=[*[1.0 for _ in results], 1.3],
        horizontal_spacing=0.07,
    )
    end = 1.0 if by != "entropy" else max(max(frame["value"]) for frame in frames)
    for column, (name, frame) in enumerate(zip(names, frames, strict=True), start=1):
        _add_map(figure, frame, name, end, column)
    for name, frame, style in zip(names, frames, (MUDD, BASELINE), strict=False):
        _add_curve(figure, frame, name, style, len(results) + 1)
    _label_axes(figure, end, len(results) + 1)
    words = _WORDS[by]
    return finish(
        figure,
        f"{words.name} of every head",
        words.definition,
        source_line([each.provenance for each in results]),
        coloraxis={
            "colorscale": UNSIGNED,
            "cmin": 0,
            "cmax": end,
            "colorbar": colorbar("nats" if by == "entropy" else "score"),
        },
        legend={"x": 0.98, "y": 0.98, "xanchor": "right", "yanchor": "top"},
        margin={"l": 70, "r": 30, "t": 130, "b": 60},
    )


def head_depth_figure(
    result: HeadScores | HeadEntropy | HeadActivity,
    baseline: HeadScores | HeadEntropy | HeadActivity | None = None,
    by: HeadMeasure = "induction",
) -> go.Figure:
    """One score against depth: the highest head of each layer as a curve, all heads as points.

    Arguments and errors are those of :func:`head_scores_figure`; ``"activity"`` is drawn from a
    ``HeadActivity``.
    """
    results = [result] if baseline is None else [result, baseline]
    n_layers = 1 + int(max(max(_column(each, by)["layer"]) for each in results))
    figure = go.Figure()
    for each, style in zip(results, (MUDD, BASELINE), strict=False):
        frame, name = _column(each, by), escape(each.provenance.model)
        best = frame.loc[frame.groupby("layer")["value"].idxmax()]
        curve = style.trace(
            x=best["layer"],
            y=best["value"],
            name=f"{name}: highest head",
            text=[f"head {layer}.{head}" for layer, head in best[["layer", "head"]].to_numpy()],
            hovertemplate="%{text}: %{y:.3f}<extra>" + name + "</extra>",
        )
        points = go.Scatter(
            x=frame["layer"],
            y=frame["value"],
            mode="markers",
            marker={"color": style.colour, "symbol": style.symbol, "size": 6, "opacity": 0.35},
            name=f"{name}: every head",
            hoverinfo="skip",
        )
        figure.add_traces([curve, points])
    words = _WORDS[by]
    return finish(
        figure,
        f"{words.name} against depth",
        words.definition,
        source_line([each.provenance for each in results]),
        xaxis={"title": "layer", **integer_ticks(n_layers)},
        yaxis={"title": "nats" if by == "entropy" else "score", "rangemode": "tozero"},
        **LAYOUT,
    )


def _column(result: HeadScores | HeadEntropy | HeadActivity, by: HeadMeasure) -> pd.DataFrame:
    """Columns ``layer``, ``head`` and ``value``."""
    frame = result.frame.rename(columns={"active": "activity"})
    known = list(frame.columns.drop(["layer", "head"]))
    if by not in known:
        raise ValueError(
            f"a {type(result).__name__} has no {by!r}, only {', '.join(known)}: draw one of them, "
            "or give the other result."
        )
    return frame[["layer", "head"]].assign(value=frame[by])


def _add_map(figure: go.Figure, frame: pd.DataFrame, name: str, end: float, column: int) -> None:
    grid = frame.pivot(index="layer", columns="head", values="value").to_numpy()
    hover = "layer %{y}, head %{x}: %{z:.3f}<extra></extra>"
    figure.add_trace(
        go.Heatmap(z=grid, coloraxis="coloraxis", hovertemplate=hover, xgap=1, ygap=1, name=name),
        row=1,
        col=column,
    )
    highest = frame.nlargest(NUMBERED, "value")
    colours = np.where(highest["value"] > 0.6 * end, "black", "white")
    figure.add_trace(
        go.Scatter(
            x=highest["head"],
            y=highest["layer"],
            text=[f"<b>{rank}</b>" for rank in range(1, len(highest) + 1)],
            mode="text",
            textfont={"color": colours},
            hoverinfo="skip",
            showlegend=False,
        ),
        row=1,
        col=column,
    )
    (n_layers, n_heads), half = grid.shape, 0.5  # of a cell
    x = {**integer_ticks(n_heads, 8), "title": "head", "range": [-half, n_heads - half]}
    y = {**integer_ticks(n_layers, 24), "range": [-half, n_layers - half]}
    figure.update_layout({f"xaxis{column}": x, f"yaxis{column}": y})
    figure.update_xaxes(showgrid=False, col=column)
    figure.update_yaxes(showgrid=False, col=column)


def _add_curve(
    figure: go.Figure, frame: pd.DataFrame, name: str, style: LineStyle, column: int
) -> None:
    highest = frame.nlargest(RANKED, "value")
    hover = "layer %{customdata[0]}, head %{customdata[1]}: %{y:.3f}<extra>" + name + "</extra>"
    curve = style.trace(
        x=np.arange(1, len(highest) + 1),
        y=highest["value"],
        customdata=highest[["layer", "head"]],
        name=name,
        hovertemplate=hover,
    )
    figure.add_trace(curve, row=1, col=column)


def _label_axes(figure: go.Figure, end: float, last: int) -> None:
    figure.update_yaxes(title="layer", col=1)
    figure.update_xaxes(
        title="rank",
        range=[0.3, RANKED + 0.7],
        tickvals=[1, *range(5, RANKED + 1, 5)],
        zeroline=False,
        col=last,
    )
    figure.update_yaxes(range=[-0.02 * end, 1.02 * end], zeroline=False, col=last)
