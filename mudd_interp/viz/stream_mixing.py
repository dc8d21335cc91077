"""How much of the differences between streams is left, sublayer by sublayer."""

from typing import Any

import plotly.graph_objects as go

from mudd_interp.analysis import StreamMixing
from mudd_interp.viz.curves import LAYOUT
from mudd_interp.viz.theme import (
    BASELINE,
    MUDD,
    LineStyle,
    escape,
    finish,
    named_ticks,
    source_line,
)

_NAMES = {"alone": "T of the sublayer alone", "composed": "all T up to it, multiplied"}


def stream_mixing_figure(result: StreamMixing, baseline: StreamMixing | None = None) -> go.Figure:
    """Distance of T, and of the product of all T so far, from mixing all streams alike.

    Args:
        result: Of the model in question.
        baseline: Of another model with mixed streams.
    """
    given = [(result, MUDD), *([(baseline, BASELINE)] if baseline is not None else [])]
    figure = go.Figure()
    for each, style in given:
        _add(figure, each, style)
    longest = max((each.sublayers for each, _ in given), key=len)
    return finish(
        figure,
        "Does mixing wash the streams out?",
        "‖T − 1/n‖ / √(n − 1), mean over tokens ± std: 1 for the identity and every other "
        "permutation of the streams, 0 where each becomes the mean of all",
        source_line([each.provenance for each, _ in given]),
        **{
            **LAYOUT,
            "xaxis": {**named_ticks(longest, 13), "title": "streams mixed beside sublayer"},
            "yaxis": {"title": "distance from uniform", "rangemode": "tozero"},
        },
    )


def _add(figure: go.Figure, result: StreamMixing, style: LineStyle) -> None:
    frame: Any = result.frame
    for kind, name in _NAMES.items():
        rows = frame[frame["kind"] == kind]
        x, mean, std = (rows[column].to_numpy(float) for column in ("depth", "mean", "std"))
        legend = f"{escape(result.provenance.model)}: {name}"
        if kind == "composed":
            figure.add_trace(style.band(x, (mean - std).clip(0), mean + std))
        trace = style.trace(
            x=x,
            y=mean,
            name=legend,
            text=rows["sublayer"],
            hovertemplate="%{text}: %{y:.4g}<extra>" + legend + "</extra>",
        )
        figure.add_trace(trace if kind == "composed" else trace.update(line_dash="dot"))
