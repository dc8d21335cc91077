"""How much head activity depends on what counts as a sink, and the words for sinks."""

from collections.abc import Sequence
from dataclasses import replace

import plotly.graph_objects as go

from mudd_interp.analysis import Result, SinkSensitivity
from mudd_interp.viz.theme import (
    BASELINE,
    MUDD,
    LineStyle,
    escape,
    finish,
    integer_ticks,
    shown,
    source_line,
)

_PAPER = 2  # first positions in the paper's rule
_MOST_SINKS = 6  # more than these are counted, not listed


def sink_words(results: Sequence[Result]) -> str:
    """The texts of the sink tokens, or their ids where those are unknown; plain text.

    Args:
        results: Results whose options name the sinks; where they differ, those of each are named.
    """
    words = [_words(each) for each in results]
    if len(set(words)) == 1:
        return words[0]
    named = zip(results, words, strict=True)
    return "; ".join(f"{each.provenance.model}: {text}" for each, text in named)


def _words(result: Result) -> str:
    options = result.provenance.options
    ids, texts = options["sink_token_ids"], options["sink_texts"]
    if not ids:
        return "none"
    if len(ids) > _MOST_SINKS:
        return f"{len(ids)} tokens"
    if texts is None:
        return f"ids {', '.join(map(str, ids))}"
    return " ".join(f"“{shown(text, 16)}”" for text in texts)


def sink_sensitivity_figure(
    result: SinkSensitivity, baseline: SinkSensitivity | None = None
) -> go.Figure:
    """Head activity against the number of first positions that are sinks; mean over all heads.

    The filled curve of a model counts sink tokens as sinks too, the dotted one does not. The
    paper's rule is marked.

    Args:
        result: Of the model in question.
        baseline: Of the Transformer beside it.
    """
    figure = go.Figure()
    results = [result] if baseline is None else [result, baseline]
    for each, style in zip(results, (MUDD, BASELINE), strict=False):
        suffix = "" if each is result else " (baseline)"
        _add_curves(figure, each, f"{escape(each.provenance.model)}{suffix}", style)
    most = max(each.active_count.shape[1] for each in results) - 1
    if most >= _PAPER:
        figure.add_vline(
            x=_PAPER,
            line={"color": "#888888", "width": 1},
            annotation={"text": "the paper: 2, with sink tokens"},
        )
    lowest = min(min(each.mean_frame["active"]) for each in results)
    pad = 0.05 * (1 - lowest) or 0.05
    return finish(
        figure,
        "Head activity under every sink rule",
        "share of tokens whose largest attention weight is on no sink, mean over all heads, 0..1; "
        f"sink tokens: {sink_words(results)}",
        source_line([each.provenance for each in results]),
        xaxis={
            **integer_ticks(most + 1),
            "title": "first positions that count as sinks",
            "range": [-0.25, most + 0.25],
        },
        yaxis={
            "title": "active share of tokens",
            "range": [lowest - pad, 1 + pad],
            "zeroline": False,
        },
        legend={"orientation": "h", "x": 0, "y": -0.14, "yanchor": "top"},
        margin={"l": 70, "r": 40, "t": 95, "b": 95},
    )


def _add_curves(figure: go.Figure, result: SinkSensitivity, name: str, style: LineStyle) -> None:
    without = replace(style, dash="dot", symbol=f"{style.symbol}-open")
    frame = result.mean_frame
    for is_sink, words, look in (
        (True, "with sink tokens", style),
        (False, "positions only", without),
    ):
        rows = frame.loc[frame["sink_tokens"] == is_sink]
        label = f"{name}: {words}"
        hover = "%{x} first positions: %{y:.4f}<extra>" + label + "</extra>"
        figure.add_trace(
            look.trace(x=rows["first_positions"], y=rows["active"], name=label, hovertemplate=hover)
        )
