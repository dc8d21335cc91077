"""The loss of each token of one sequence, as a coloured strip and as curves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float64
from plotly.subplots import make_subplots

from mudd_interp.analysis import Predictions, loss_difference
from mudd_interp.viz.theme import (
    BASELINE,
    MUDD,
    ROBUST_QUANTILE,
    SIGNED,
    UNSIGNED,
    escape,
    finish,
    minus,
    robust_limit,
    short_name,
    source_line,
    token_names,
    token_ticks,
)

MOST_LABELS = 512
"""Sequences beyond this are drawn without the texts of their tokens; hovering shows them."""

_ROW, _LABELS, _GAP = 20, 66, 16  # pixels: a strip, the texts below it, the gap between two lines
_TOP, _BOTTOM, _LEFT, _RIGHT = 105, 75, 165, 30  # margins; the scales are in the lower one
_LEAST = 60  # pixels: a single strip is taller; Plotly puts a scale no further below a plot
_UNLIT = "#e8e8e8"  # where there is no loss: the first token


@dataclass(frozen=True)
class _Layout:
    """How a sequence is broken into lines of strips."""

    tokens: int
    strips: int

    @property
    def wide(self) -> int:
        """Tokens in a line."""
        return min(self.tokens, 32) if self.tokens <= 128 else 64

    @property
    def starts(self) -> range:
        return range(0, self.tokens, self.wide)

    @property
    def labelled(self) -> bool:
        return self.tokens <= MOST_LABELS

    @property
    def gap(self) -> int:
        """Pixels between the strips of two lines."""
        return _GAP + (_LABELS if self.labelled else 0)

    @property
    def plot(self) -> int:
        """The height inside the margins, in pixels."""
        lines = len(self.starts)
        return max(_LEAST, lines * self.strips * _ROW + (lines - 1) * self.gap)

    @property
    def below(self) -> int:
        """Pixels below the last strip."""
        return self.gap + _BOTTOM


def loss_strip_figure(
    result: Predictions,
    baseline: Predictions | None = None,
    *,
    title: str = "Loss of each token",
    difference: str | None = None,
) -> go.Figure:
    """The loss of each token, as colours: a strip for each model, and one for their difference.

    Long sequences are broken into lines. Both models share one scale from 0; the difference has its
    own, symmetric around 0, negative where the model is better. The first token is not predicted.

    Args:
        result: Of the model in question.
        baseline: Of the Transformer beside it, on the same tokens.
        title: The figure's title.
        difference: The name of the first minus the second; ``None`` for that of the models.

    Raises:
        ValueError: If the sequence has only one token, or the two models split it differently.
    """
    frame = _losses(result, baseline)
    strips = [short_name(each.provenance.model) for each in _given(result, baseline)]
    if baseline is not None:
        difference = difference or minus(result.provenance, baseline.provenance, longest=9)
        strips.append(difference)
    layout = _Layout(len(frame), len(strips))
    lines = len(layout.starts)
    figure = make_subplots(
        rows=lines, cols=1, vertical_spacing=layout.gap / layout.plot if lines > 1 else 0
    )
    for line, start in enumerate(layout.starts, start=1):
        part = frame.iloc[start : start + layout.wide]
        for trace in _line(part, strips):
            figure.add_trace(trace, row=line, col=1)
        _label_line(figure, part, strips, layout, line)
    end, reach = _limits(frame)
    stated = f"colours end at {end:.3g} nats"
    if baseline is not None:
        stated += f", of the difference at ±{reach:.3g}"
    hidden = "" if layout.labelled else "; hover for the tokens"
    return finish(
        figure,
        title,
        f"−log p of the token, in nats, not negative; {stated} ({ROBUST_QUANTILE:.0%} of values)"
        f"{hidden}",
        _source(result, baseline),
        height=_TOP + layout.plot + layout.below,
        margin={"l": _LEFT, "r": _RIGHT, "t": _TOP, "b": layout.below},
        plot_bgcolor=_UNLIT,
        coloraxis=_scale(UNSIGNED, (0.0, end), "loss, nats", 0.0, layout),
        coloraxis2=_scale(SIGNED, (-reach, reach), f"{difference}, nats", 0.55, layout),
    )


def loss_lines_figure(result: Predictions, baseline: Predictions | None = None) -> go.Figure:
    """The loss of each token over positions, a curve for each model.

    The arguments and errors are those of :func:`loss_strip_figure`.
    """
    frame = _losses(result, baseline)
    figure = go.Figure()
    columns = [("loss", result, MUDD, ""), ("baseline_loss", baseline, BASELINE, " (baseline)")]
    for column, each, style, suffix in columns:
        if each is None:
            continue
        name = f"{escape(each.provenance.model)}{suffix}"
        trace = style.trace(
            x=frame["position"],
            y=frame[column],
            name=name,
            text=token_names(frame["position"], frame["token"]),
            hovertemplate="%{text}<br>%{y:.4f} nats<extra>" + name + "</extra>",
        )
        figure.add_trace(trace)
    if len(frame) > 64:
        figure.update_traces(marker_size=4, line_width=1.4)
    step = -(-len(frame) // 80)
    every = "" if step == 1 else f"; one in {step} is named"
    return finish(
        figure,
        "Loss of each token by position",
        "−log p of the token, in nats, not negative; the first token is not predicted",
        _source(result, baseline),
        xaxis={
            **token_ticks(frame["position"][::step], frame["token"][::step]),
            "title": {"text": f"token that was predicted{every}", "standoff": 8},
            "range": [-0.5, len(frame) - 0.5],
        },
        yaxis={"title": "loss, nats", "rangemode": "tozero"},
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.01, "yanchor": "bottom"},
        margin={"l": 70, "r": 40, "t": 105, "b": 115},
    )


def _given(result: Predictions, baseline: Predictions | None) -> list[Predictions]:
    return [result] if baseline is None else [result, baseline]


def _source(result: Predictions, baseline: Predictions | None) -> str:
    return source_line([each.provenance for each in _given(result, baseline)])


def _losses(result: Predictions, baseline: Predictions | None) -> pd.DataFrame:
    """Columns ``position``, ``token``, ``loss``; of two models those of ``loss_difference``."""
    if len(result.tokens) < 2:
        raise ValueError("a loss needs at least two tokens: the second is predicted.")
    if baseline is None:
        return result.frame.loc[:, ["position", "token", "loss"]]
    return loss_difference(result, baseline)


def _columns(frame: pd.DataFrame) -> list[str]:
    """The columns that are drawn, each as a strip."""
    return [name for name in ("loss", "baseline_loss", "difference") if name in frame]


def _limits(frame: pd.DataFrame) -> tuple[float, float]:
    """Where the colours end: of the losses, and of their difference."""
    losses = frame[[name for name in _columns(frame) if name != "difference"]]
    reach = robust_limit(frame["difference"].to_numpy()) if "difference" in frame else 1.0
    return robust_limit(losses.to_numpy()), reach


def _line(part: pd.DataFrame, strips: Sequence[str]) -> list[go.Heatmap]:
    """The strips of one line: the losses on their colour axis, the difference on another."""
    values = part[_columns(part)].to_numpy().T
    texts = _hover(part, strips)
    is_difference = np.array([name == "difference" for name in _columns(part)])[:, None]
    traces = [_strip(part, np.where(is_difference, np.nan, values), texts, "coloraxis")]
    if is_difference.any():
        traces.append(_strip(part, np.where(is_difference, values, np.nan), texts, "coloraxis2"))
    return traces


def _strip(
    part: pd.DataFrame, z: Float64[np.ndarray, "strip pos"], texts: list[list[str]], axis: str
) -> go.Heatmap:
    return go.Heatmap(
        x=part["position"],
        y=list(range(len(z))),
        z=z,
        text=texts,
        coloraxis=axis,
        hovertemplate="%{text}<extra></extra>",
        hoverongaps=False,
        xgap=1,
        ygap=1,
    )


def _hover(part: pd.DataFrame, strips: Sequence[str]) -> list[list[str]]:
    """The hover text, the same on all strips: every number of a token."""
    values = part[_columns(part)].to_numpy()
    signs = ["+" if column == "difference" else "" for column in _columns(part)]
    lines = [
        "<br>".join(
            f"{name}: {value:{sign}.4f}"
            for name, sign, value in zip(strips, signs, row, strict=True)
        )
        for row in values
    ]
    names = token_names(part["position"], part["token"])
    texts = [f"{name}<br>{line}" for name, line in zip(names, lines, strict=True)]
    return [texts] * len(strips)


def _label_line(
    figure: go.Figure, part: pd.DataFrame, strips: Sequence[str], layout: _Layout, line: int
) -> None:
    start, stop = int(part["position"].iloc[0]), int(part["position"].iloc[-1])
    ticks: dict[str, Any] = {"showticklabels": False, "showgrid": False}
    if layout.labelled:
        ticks = token_ticks(part["position"], part["token"])
    figure.update_xaxes(**ticks, range=[start - 0.5, start + layout.wide - 0.5], row=line)
    figure.update_yaxes(
        tickmode="array",
        tickvals=list(range(len(strips))),
        ticktext=list(strips),
        range=[len(strips) - 0.5, -0.5],
        title={"text": f"{start}–{stop}", "font": {"size": 11}, "standoff": 6},
        showgrid=False,
        zeroline=False,
        row=line,
    )


def _scale(
    colours: str, ends: tuple[float, float], title: str, x: float, layout: _Layout
) -> dict[str, Any]:
    """A colour axis with its bar below the strips and their labels."""
    return {
        "colorscale": colours,
        "cmin": ends[0],
        "cmax": ends[1],
        "colorbar": {
            "orientation": "h",
            "x": x,
            "xanchor": "left",
            "len": 0.45,
            "y": -layout.gap / layout.plot,
            "yanchor": "top",
            "thickness": 12,
            "outlinewidth": 0,
            "title": {"text": title, "side": "top"},
        },
    }
