"""What wrote a prediction or a stream: bars by component, and the heads as a map."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float64
from plotly.subplots import make_subplots

from mudd_interp.analysis import LogitAttribution, StreamDecomposition, check_same_tokens
from mudd_interp.axes import Stream
from mudd_interp.viz.theme import (
    BASELINE,
    MUDD,
    ROBUST_QUANTILE,
    SIGNED,
    colorbar,
    escape,
    finish,
    integer_ticks,
    robust_limit,
    shown,
    source_line,
)

_BAR = 17  # pixels of a component


@dataclass(frozen=True)
class _Parts:
    """One model's contributions: of its components, in the order of depth, and of its heads."""

    model: str
    components: dict[str, float]
    heads: Float64[np.ndarray, "layer head"]


def logit_attribution_figure(
    result: LogitAttribution, baseline: LogitAttribution | None = None
) -> go.Figure:
    """Direct contributions to a logit: embedding, attention and FFN of each layer, and each head.

    Bars and cells are in logits and signed; a model's bars sum to the logit in the subtitle.

    Args:
        result: Of the model in question.
        baseline: Of the Transformer beside it, for the same token at the same position.

    Raises:
        ValueError: If the two are of different texts, positions or tokens.
    """
    results = _both(result, baseline)
    for each in results[1:]:
        check_same_tokens(result, each)
        for name in ("position", "answer", "against"):
            mine, theirs = getattr(result, name), getattr(each, name)
            if mine != theirs:
                raise ValueError(f"{name} is {mine!r} for one model and {theirs!r} for the other.")
    parts = [
        _Parts(each.provenance.model, each.components.to_dict(), each.heads) for each in results
    ]
    what = f"“{shown(result.answer)}”"
    if result.against is not None:
        what += f" − “{shown(result.against)}”"
    sums = "; ".join(f"{each.provenance.model}: {each.logit:.3f}" for each in results)
    capped = any(each.provenance.options.get("softcap") for each in results)
    logit = "logit before its softcap" if capped else "logit"
    figure, height = _bars_and_heads(parts, "contribution (logits)", "logits")
    return finish(
        figure,
        f"What wrote the logit of {what} after {_token(result, result.position)}",
        "output × total coefficient over all paths, through the final norm with its scale frozen; "
        f"bars sum to the {logit} ({sums}); constant: biases of final norm and unembedding; head "
        f"colours end at {ROBUST_QUANTILE:.0%} of non-zero values",
        source_line([each.provenance for each in results]),
        **height,
    )


def stream_decomposition_figure(
    result: StreamDecomposition, position: int, baseline: StreamDecomposition | None = None
) -> go.Figure:
    """The share of each component, and of each head, in one stream at one token.

    Shares are dimensionless and signed; a model's bars sum to one.

    Args:
        result: Of the model in question.
        position: The token.
        baseline: Of the Transformer beside it, on the same tokens, for the same stream.

    Raises:
        ValueError: If the sequence has no such position, or the two are of different texts.
    """
    results = _both(result, baseline)
    for each in results[1:]:
        check_same_tokens(result, each)
    parts: list[_Parts] = []
    for each in results:
        whole = each.frame_at(position)["share"].to_numpy()
        components = dict(zip(each.components, map(float, whole), strict=True))
        name = each.provenance.model
        parts.append(_Parts(name, components, each.head_share[..., position]))
    figure, height = _bars_and_heads(parts, "share of the stream", "share")
    return finish(
        figure,
        f"What {_place(result.layer, result.stream)} is made of at token "
        f"{_token(result, position)}",
        "component·stream / stream·stream, before the norm: dimensionless, bars sum to one; "
        f"‖stream‖ {result.stream_norm[position]:.3g}; head colours end at "
        f"{ROBUST_QUANTILE:.0%} of non-zero values",
        source_line([each.provenance for each in results]),
        **height,
    )


def _both(result: Any, baseline: Any) -> list[Any]:
    return [result] if baseline is None else [result, baseline]


def _token(result: Any, position: int) -> str:
    return f"{position} “{shown(result.tokens[position])}”"


def _place(layer: int, stream: Stream) -> str:
    return f"stream {stream.upper()} of layer {layer}"


def _bars_and_heads(
    parts: Sequence[_Parts], axis: str, unit: str
) -> tuple[go.Figure, dict[str, Any]]:
    """The figure, and the layout that goes with its size."""
    labels = max((each.components for each in parts), key=len)
    rows = {name: row for row, name in enumerate(labels)}
    figure = make_subplots(
        rows=1,
        cols=1 + len(parts),
        column_widths=[1.5, *[1.0 for _ in parts]],
        column_titles=["components", *(f"heads of {escape(each.model)}" for each in parts)],
        horizontal_spacing=0.07,
    )
    figure.update_annotations(font_size=12.5)
    for each, style in zip(parts, (MUDD, BASELINE), strict=False):
        figure.add_trace(
            go.Bar(
                x=list(each.components.values()),
                y=[rows[name] for name in each.components],
                orientation="h",
                marker={"color": style.colour},
                name=escape(each.model),
                hovertext=list(each.components),
                hovertemplate="%{hovertext}: %{x:.4f}<extra>" + escape(each.model) + "</extra>",
            ),
            row=1,
            col=1,
        )
    limit = robust_limit(np.concatenate([each.heads.ravel() for each in parts]))
    for column, each in enumerate(parts, start=2):
        _add_heads(figure, each, column)
    figure.update_yaxes(
        tickvals=list(rows.values()),
        ticktext=list(rows),
        range=[-0.7, len(rows) - 0.3],
        showgrid=False,
        zeroline=False,
        col=1,
    )
    figure.update_xaxes(title=axis, zerolinecolor="#888888", col=1)
    return figure, {
        "height": max(520, _BAR * (1 + len(parts)) * len(rows) // 2 + 240),
        "barmode": "group",
        "bargap": 0.25,
        "coloraxis": {
            "colorscale": SIGNED,
            "cmin": -limit,
            "cmax": limit,
            "colorbar": colorbar(unit),
        },
        "legend": {"orientation": "h", "x": 0, "y": -0.09, "yanchor": "top"},
        "margin": {"l": 75, "r": 30, "t": 130, "b": 80},
    }


def _add_heads(figure: go.Figure, parts: _Parts, column: int) -> None:
    n_layers, n_heads = parts.heads.shape
    figure.add_trace(
        go.Heatmap(
            z=parts.heads,
            coloraxis="coloraxis",
            xgap=1,
            ygap=1,
            hovertemplate="layer %{y}, head %{x}: %{z:.4f}<extra></extra>",
            name=escape(parts.model),
        ),
        row=1,
        col=column,
    )
    figure.update_xaxes(title="head", showgrid=False, **integer_ticks(n_heads, 8), col=column)
    figure.update_yaxes(showgrid=False, **integer_ticks(max(n_layers, 1), 24), col=column)
    if column == 2:
        figure.update_yaxes(title="layer", col=column)
