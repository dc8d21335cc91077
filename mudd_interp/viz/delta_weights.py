"""What every read takes of every write: architectures under each other, on one scale."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mudd_interp.analysis import DeltaWeights, delta_difference
from mudd_interp.viz.read_panels import Panel, PanelRow, panels_figure, panels_layout
from mudd_interp.viz.theme import finish, robust_limit, source_line
from mudd_interp.viz.triangles import scale

DeltaStatistic = Literal["mean", "std"]

_QUANTILE = 0.9
"""Where colours end: the embedding's weights are often ten times those of all else."""
_WHAT = (
    "weight of a sublayer's write in what a sublayer reads, over all paths together, dimensionless "
    "(one everywhere in a plain Transformer)"
)


def delta_weights_figure(
    result: DeltaWeights,
    baseline: DeltaWeights | None = None,
    statistic: DeltaStatistic = "mean",
) -> go.Figure:
    """A triangle for each stream of attention, and one for FFN and head; a row for each model.

    Args:
        result: Of the model in question.
        baseline: Of another model, of any architecture and depth.
        statistic: Over tokens.

    Raises:
        ValueError: If there is no such statistic.
    """
    _check(statistic)
    results = [result] if baseline is None else [result, baseline]
    names = [each.provenance.model for each in results]
    values = np.concatenate([each.frame[statistic].to_numpy() for each in results])
    end = robust_limit(values, _QUANTILE)
    rows = [_row(each, each.frame, statistic) for each in results]
    return _finished(
        panels_figure(rows),
        f"What every sublayer reads: {' and '.join(names)}",
        f"{_WHAT}; {statistic} over tokens; colours end at ±{end:.3g} ({_QUANTILE:.0%} of "
        "non-zero values)",
        results,
        end,
        statistic,
    )


def delta_difference_figure(
    result: DeltaWeights, baseline: DeltaWeights, statistic: DeltaStatistic = "mean"
) -> go.Figure:
    """:func:`delta_weights_figure` as a difference, on a scale of its own.

    Raises:
        ValueError: If there is no such statistic, or the models have not the same writes.
    """
    _check(statistic)
    frame = delta_difference(result, baseline)
    of = max(result, baseline, key=lambda each: len(each.attention_streams))
    names = [each.provenance.model for each in (result, baseline)]
    end = robust_limit(frame[statistic].dropna().to_numpy(), _QUANTILE)
    return _finished(
        panels_figure([_row(of, frame, statistic, " − ".join(names))]),
        f"What every sublayer reads: {names[0]} − {names[1]}",
        f"{names[0]} − {names[1]}: {_WHAT}; {statistic} over tokens; colours end at ±{end:.3g} "
        f"({_QUANTILE:.0%} of non-zero values)",
        [result, baseline],
        end,
        "difference",
    )


def _check(statistic: str) -> None:
    if statistic not in get_args(DeltaStatistic):
        raise ValueError(
            f"statistic must be one of {', '.join(get_args(DeltaStatistic))}, got {statistic!r}."
        )


_PARTS: dict[str, str] = {"mlp": "FFN", "ple": "per-layer embedding"}


def _row(of: DeltaWeights, frame: Any, statistic: str, model: str = "") -> PanelRow:
    """Attention by stream, and what else reads, of a table of one model."""
    attention = frame["part"] == "attn"
    one = len(of.attention_streams) == 1
    panels = [
        _panel(
            "attention" if one else f"attention, {stream.upper()}",
            frame[attention & (frame["stream"] == stream) | attention & (frame["stream"] == "r")],
            of.writes,
            statistic,
        )
        for stream in of.attention_streams
    ]
    others = frame[~attention]
    kinds = [part for part in dict.fromkeys(others["part"]) if part != "final"]
    for part in kinds:
        rows = others["part"] == part
        ends = (others["part"] == "final") & (part == kinds[0])
        title = f"{_PARTS.get(part, part)}{' and head' if ends.any() else ''}"
        panels.append(_panel(title, others[rows | ends], of.writes, statistic))
    return PanelRow(model or of.provenance.model, of.writes, panels)


def _panel(title: str, frame: pd.DataFrame, writes: Sequence[str], statistic: str) -> Panel:
    places = list(dict.fromkeys(zip(frame["part"], frame["layer"], strict=True)))
    values = np.full((len(places), len(writes)), np.nan)
    for part, layer, write, value in frame[["part", "layer", "write", statistic]].itertuples(
        index=False
    ):
        values[places.index((part, layer)), writes.index(write)] = value
    heads = sum(part == "final" for part, _ in places)
    names = [
        f"{part}.{layer}" if part != "final" else "head" if heads == 1 else f"head, norm {i}"
        for i, (part, layer) in enumerate(places, start=heads - len(places))
    ]
    return Panel(title, tuple(names), values)


def _finished(
    figure: go.Figure,
    title: str,
    what: str,
    results: Sequence[DeltaWeights],
    end: float,
    bar: str,
) -> go.Figure:
    return finish(
        figure,
        title,
        what,
        source_line([each.provenance for each in results]),
        coloraxis=scale(end, bar),
        **panels_layout(1 if bar == "difference" else len(results)),
    )
