"""What a model expects to come next, beside what another one expects."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mudd_interp.analysis import Predictions, check_same_tokens
from mudd_interp.viz.theme import (
    BASELINE,
    MONOSPACE,
    MUDD,
    WIDTH,
    LineStyle,
    escape,
    finish,
    shown,
    source_line,
    visible,
)

_BAR = 27  # pixels
_CONTEXT = 60  # characters of the preceding text that the figure quotes
_INSIDE = 0.7  # longer bars have their number inside
_CAME = "#111111"


def next_tokens_figure(
    result: Predictions, position: int, baseline: Predictions | None = None
) -> go.Figure:
    """The likeliest tokens after a position, with their probabilities on a scale of 0..1.

    The token that did come next has a dark outline; its probability and rank, and the entropy of
    the prediction, are above the bars.

    Args:
        result: Of the model in question.
        position: The last token that the models have seen.
        baseline: Of the Transformer beside it, on the same tokens.

    Raises:
        ValueError: If the sequence has no such position, or the two models split it differently.
    """
    if baseline is not None:
        check_same_tokens(result, baseline)
    results = [result] if baseline is None else [result, baseline]
    frames = [each.top_frame(position) for each in results]
    figure = make_subplots(
        rows=1,
        cols=len(results),
        subplot_titles=[_heading(each, position) for each in results],
        horizontal_spacing=0.2,
    )
    for column, (each, frame) in enumerate(zip(results, frames, strict=True), start=1):
        came = frame["token_id"].isin(each.token_ids[position + 1 : position + 2].tolist())
        figure.add_trace(_bars(frame, came.tolist(), (MUDD, BASELINE)[column - 1]), 1, column)
        _label_bars(figure, frame, column)
    figure.update_xaxes(range=[0, 1], title="probability", zeroline=False)
    figure.update_annotations(font_size=12.5)
    before = "".join(result.tokens[: position + 1])
    quoted = shown(before[-_CONTEXT:], len(before) + _CONTEXT)
    longest = max(map(len, frames))
    return finish(
        figure,
        f"Likeliest next tokens after position {position}",
        f"after “{'…' if len(before) > _CONTEXT else ''}{quoted}”; probability, 0..1",
        source_line([each.provenance for each in results]),
        width=WIDTH if baseline is not None else WIDTH // 2 + 100,
        height=longest * _BAR + 190,
        margin={"l": 120, "r": 60, "t": 130, "b": 60},
        showlegend=False,
    )


def _heading(result: Predictions, position: int) -> str:
    entropy = f"entropy {result.next_entropy[position]:.2f} nats"
    return f"<b>{escape(result.provenance.model)}</b> · {entropy}<br>{_came(result, position)}"


def _came(result: Predictions, position: int) -> str:
    """What came next, and the probability that the model gave it."""
    after = position + 1
    if after == len(result.tokens):
        return "the sequence ends here"
    probability = float(np.exp(-result.loss[after]))
    return (
        f"rank {result.rank[after]:,}, probability {_number(probability)} for what came next: "
        f"<b>{visible(result.tokens[after])}</b>"
    )


def _number(probability: float) -> str:
    return f"{probability:.3f}" if probability >= 0.001 else f"{probability:.0e}"


def _bars(frame: pd.DataFrame, came: Sequence[bool], style: LineStyle) -> go.Bar:
    """A bar for each likely token; the one that came next is marked."""
    probability = frame["probability"].tolist()
    return go.Bar(
        x=probability,
        y=list(range(len(frame))),
        orientation="h",
        marker={
            "color": style.colour,
            "line": {"color": _CAME, "width": [2.5 if each else 0 for each in came]},
        },
        text=[
            f"{_number(value)}{' ◂ came next' if each else ''}"
            for value, each in zip(probability, came, strict=True)
        ],
        textposition=["inside" if value > _INSIDE else "outside" for value in probability],
        textangle=0,
        cliponaxis=False,
        customdata=frame[["rank", "token_id", "logit"]],
        hovertext=[visible(token, 40) for token in frame["token"]],
        hovertemplate="%{hovertext} (id %{customdata[1]})<br>rank %{customdata[0]}<br>"
        "probability %{x:.4f}<br>logit %{customdata[2]:.4f}<extra></extra>",
    )


def _label_bars(figure: go.Figure, frame: pd.DataFrame, column: int) -> None:
    figure.update_yaxes(
        tickmode="array",
        tickvals=list(range(len(frame))),
        ticktext=[visible(token, 14) for token in frame["token"]],
        tickfont={"family": MONOSPACE, "size": 12},
        range=[len(frame) - 0.4, -0.6],
        showgrid=False,
        zeroline=False,
        col=column,
    )
