"""By how much two models differ in their losses, over all tokens of a corpus."""

import numpy as np
import plotly.graph_objects as go

from mudd_interp.analysis import LossComparison
from mudd_interp.viz.theme import BASELINE, DIFFERENCE, MUDD, escape, finish, source_line

_DRAWN = 0.999
"""The least share of the tokens in the drawn range, if the histogram has as many."""

_INK = "#111111"


def loss_comparison_figure(comparison: LossComparison) -> go.Figure:
    """How many tokens differ by how much, with the mean difference and its 95% interval.

    Bars left of 0 are tokens on which the model is better. Counts are on a logarithmic axis: most
    tokens differ by little.

    Args:
        comparison: Of the model in question and the Transformer beside it.
    """
    low, high, count = comparison.histogram_frame.to_numpy().T
    summary, reach = comparison.summary, _reach(comparison)
    drawn = (low >= -reach) & (high <= reach)
    provenances = [comparison.provenance, comparison.baseline_provenance]
    shares = [summary.model_better, summary.baseline_better]
    figure = go.Figure()
    for side, each, share, style in zip(
        (high <= 0, low >= 0), provenances, shares, (MUDD, BASELINE), strict=True
    ):
        bars = drawn & side
        figure.add_trace(
            go.Bar(
                x=(low[bars] + high[bars]) / 2,
                y=count[bars],
                width=high[bars] - low[bars],
                marker={"color": style.colour, "line": {"width": 0}},
                name=f"{escape(each.model)} is better: {share:.1%} of tokens",
                customdata=np.stack([low[bars], high[bars]], axis=1),
                hovertemplate="%{customdata[0]:+.2f} to %{customdata[1]:+.2f} nats<br>"
                "%{y:,} tokens<extra></extra>",
            )
        )
    _mark_mean(figure, comparison)
    outside = int(count[~drawn].sum())
    return finish(
        figure,
        f"{DIFFERENCE}: loss of each token",
        "difference of −log p, in nats; negative where the model is better"
        + (f"; {outside:,} of {summary.tokens:,} tokens lie outside" if outside else ""),
        source_line(provenances),
        xaxis={
            "title": f"{DIFFERENCE}, nats",
            "range": [-reach, reach],
            "zeroline": False,
            "showgrid": False,
        },
        yaxis={
            "title": "tokens",
            "type": "log",
            "dtick": 1,
            "range": [np.log10(0.6), np.log10(max(count)) + 0.1],
        },
        legend={"orientation": "h", "x": 0, "y": -0.14, "yanchor": "top"},
        margin={"l": 70, "r": 40, "t": 120, "b": 95},
        bargap=0,
    )


def _reach(comparison: LossComparison) -> float:
    """The end of the drawn range: the smallest whole number of nats that leaves out few tokens."""
    low, high, count = comparison.histogram_frame.to_numpy().T
    widest = int(high[-2])
    for reach in range(1, widest):
        held = count[(low >= -reach) & (high <= reach)].sum()
        if held >= _DRAWN * count.sum():
            return float(reach)
    return float(widest)


def _mark_mean(figure: go.Figure, comparison: LossComparison) -> None:
    summary = comparison.summary
    low, high = summary.interval
    interval = "one sequence: no interval"
    if np.isfinite(summary.standard_error):
        interval = f"95% interval {low:+.3f} to {high:+.3f} over {summary.sequences:,} sequences"
        figure.add_vrect(x0=low, x1=high, fillcolor=_INK, opacity=0.25, line_width=0)
    text = f"mean {summary.difference:+.4f}, {interval}"
    figure.add_vline(x=0, line={"color": "#888888", "width": 1, "dash": "dot"})
    figure.add_vline(
        x=summary.difference,
        line={"color": _INK, "width": 1.5},
        annotation={"text": text.replace("-", "−"), "font": {"size": 12}},
        annotation_position="top",
    )
