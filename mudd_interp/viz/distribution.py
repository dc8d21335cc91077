"""How the weight of one edge is distributed over the tokens of a corpus."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mudd_interp.analysis import (
    DenseWeights,
    WeightDistribution,
    check_same_rows,
    counterpart,
    edge_index,
)
from mudd_interp.axes import Stream
from mudd_interp.viz.edges import LEGEND, Limits, edge_name, padded
from mudd_interp.viz.theme import BASELINE, STREAM_STYLES, LineStyle, escape, finish, source_line

_LEAST_BINS = 40  # the least width of the x axis


@dataclass(frozen=True)
class _Line:
    """A value marked by a vertical line.

    Attributes:
        value: Where the line is.
        name: Its name in the legend; escaped.
        colour: Its colour.
        dash: Plotly's name of its dash.
    """

    value: float
    name: str
    colour: str
    dash: str

    def trace(self, top: float) -> go.Scatter:
        """The line, from 0 to ``top``."""
        return go.Scatter(
            x=[self.value, self.value],
            y=[0, top],
            mode="lines",
            line={"color": self.colour, "dash": self.dash, "width": 2.2},
            name=self.name,
            hoverinfo="skip",
        )


def edge_distribution_figure(
    distribution: WeightDistribution,
    weights: DenseWeights,
    stream: Stream,
    layer: int,
    source: int,
    *,
    rectified: bool = False,
    baseline: DenseWeights | None = None,
    as_baseline: bool = False,
    limits: Limits | None = None,
) -> go.Figure:
    """The histogram of one edge's weight over a corpus, with mean ± std and the static part.

    What lies beyond a limit of the histogram is one wide bin, hatched, and as high as if its tokens
    were spread evenly up to the smallest or the largest weight.

    Args:
        distribution: The histograms.
        weights: Mean, std and static part, of the same model on the same tokens.
        stream: Which stream reads; in a baseline with one stream it is r.
        layer: The aggregation at which it reads.
        source: Which X_source it reads.
        rectified: Multiply weights by the mean norm of their source.
        baseline: Of the Transformer beside it: its mean weight, dashed; that weight does not vary.
        as_baseline: Draw the results themselves as the baseline, for a figure beside another's.
        limits: The ends of the x axis; ``None`` fits what is drawn.

    Raises:
        ValueError: If there is no such edge, with the range of possible edges, or the results are
            not of one model on the same tokens.
    """
    _check_same_run(distribution, weights)
    check_same_rows([each.provenance for each in (weights, baseline) if each is not None])
    own = counterpart(stream, weights.streams)
    edge = _edge(weights, own, layer, source, rectified)
    bins = _bins(distribution, own, layer, source)
    bins[["low", "high"]] *= edge["factor"]
    style = BASELINE if as_baseline else STREAM_STYLES[own]
    lines, provenances = _lines(edge, style), [weights.provenance]
    if baseline is not None:
        lines.append(_baseline_line(baseline, stream, layer, source, rectified))
        provenances.append(baseline.provenance)
    top = 1.15 * float(bins["height"].to_numpy().max())
    figure = go.Figure([_bars(bins, style), *(line.trace(top) for line in lines)])
    band = edge["mean"] - edge["std"], edge["mean"] + edge["std"]
    figure.add_vrect(*band, fillcolor=style.colour, opacity=0.12, line_width=0)
    ends = [*band, *bins["low"], *bins["high"], *(line.value for line in lines)]
    return finish(
        figure,
        f"Distribution of the weight of {edge_name(weights.provenance, own, layer, source)}",
        _definition(distribution, bins, rectified, edge["factor"]),
        source_line(provenances),
        xaxis={
            "title": "weight × mean norm" if rectified else "weight",
            "range": limits or _reach(ends, edge["factor"] * _width(distribution)),
            "zerolinecolor": "#999999",
            "showgrid": False,
        },
        yaxis={"title": "share of tokens", "range": [0, top], "zeroline": False},
        legend=LEGEND,
        showlegend=True,
        margin={"l": 80, "r": 40, "t": 115, "b": 60},
    )


def _reach(values: Sequence[float], width: float) -> Limits:
    """An x axis that includes all values, wide enough for a spike to look like one."""
    low, high = padded(np.array(values))
    lacking = max(0.0, _LEAST_BINS * width - (high - low))
    return low - lacking / 2, high + lacking / 2


def _check_same_run(distribution: WeightDistribution, weights: DenseWeights) -> None:
    runs = [
        (each.provenance.model, each.provenance.digest, each.provenance.token_digest)
        for each in (distribution, weights)
    ]
    if runs[0] != runs[1]:
        raise ValueError(
            "expected a distribution and weights of one model on the same tokens, got "
            f"{runs[0][0]} and {runs[1][0]} on {distribution.provenance.tokens:,} and "
            f"{weights.provenance.tokens:,} tokens: compute both in one sweep."
        )


def _bins(
    distribution: WeightDistribution, stream: Stream, layer: int, source: int
) -> pd.DataFrame:
    """The bins from the first to the last with a token in them, and how high they are drawn."""
    edge = edge_index(distribution.streams, distribution.present, stream, layer, source)
    frame, width = distribution.edge_frame(stream, layer, source), _width(distribution)
    beyond = np.isinf(frame["high"] - frame["low"])
    least, most = distribution.minimum[edge], distribution.maximum[edge]
    low = frame["low"].clip(lower=min(least, frame["high"].iloc[0] - width))
    high = frame["high"].clip(upper=max(most, frame["low"].iloc[-1] + width))
    height = frame["share"].where(~beyond, frame["share"] * width / (high - low))
    filled = np.flatnonzero(frame["count"])
    every = frame.assign(low=low, high=high, height=height, beyond=beyond)
    return every.iloc[filled[0] : filled[-1] + 1]


def _width(distribution: WeightDistribution) -> float:
    """How wide a bin is."""
    return 2 * distribution.provenance.options["limit"] / distribution.provenance.options["bins"]


def _edge(
    weights: DenseWeights, stream: Stream, layer: int, source: int, rectified: bool
) -> dict[str, float]:
    """Mean, std and static part of one edge, and the factor of a raw weight."""
    values = weights.edge(stream, layer, source)
    factor = values["source_norm"] if rectified else 1.0
    return {name: factor * values[name] for name in ("mean", "std", "static")} | {"factor": factor}


def _lines(edge: dict[str, float], style: LineStyle) -> list[_Line]:
    mean, std, static = edge["mean"], edge["std"], edge["static"]
    return [
        _Line(mean, f"mean ± std: {mean:.3g} ± {std:.3g}", style.colour, "solid"),
        _Line(static, f"static part: {static:.3g}", style.colour, "dot"),
    ]


def _baseline_line(
    baseline: DenseWeights, stream: Stream, layer: int, source: int, rectified: bool
) -> _Line:
    own = counterpart(stream, baseline.streams)
    edge = _edge(baseline, own, layer, source, rectified)
    how = f"mean {edge['mean']:.3g}" if edge["std"] else f"always {edge['mean']:.3g}"
    name = f"{escape(baseline.provenance.model)} (baseline): {how}"
    return _Line(edge["mean"], name, BASELINE.colour, BASELINE.dash)


def _bars(bins: pd.DataFrame, style: LineStyle) -> go.Bar:
    return go.Bar(
        x=(bins["low"] + bins["high"]) / 2,
        width=bins["high"] - bins["low"],
        y=bins["height"],
        customdata=bins["count"],
        hovertext=[f"{low:.4g} to {high:.4g}" for low, high in bins[["low", "high"]].to_numpy()],
        marker={
            "color": style.colour,
            "opacity": 0.55,
            "line": {"width": 0},
            "pattern": {"shape": np.where(bins["beyond"], "/", "")},
        },
        name="tokens",
        showlegend=False,
        hovertemplate="%{hovertext}<br>%{customdata:,} tokens<extra></extra>",
    )


def _definition(
    distribution: WeightDistribution, bins: pd.DataFrame, rectified: bool, factor: float
) -> str:
    """The unit, what a bar is, and how many tokens lie beyond the histogram."""
    unit = "weight × mean norm of the source" if rectified else "weight, dimensionless"
    words = f"{unit}; share of tokens in bins {factor * _width(distribution):.3g} wide"
    beyond = int(bins.loc[bins["beyond"], "count"].sum())
    if not beyond:
        return words
    limit = factor * distribution.provenance.options["limit"]
    share = beyond / distribution.provenance.tokens
    return f"{words}; hatched: {beyond:,} tokens ({share:.1%}) beyond ±{limit:.3g}, in one bin"
