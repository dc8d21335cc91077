"""What every read takes of every write: architectures under each other, on one scale."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float64
from plotly.subplots import make_subplots

from mudd_interp.analysis import DeltaWeights, delta_difference
from mudd_interp.viz.theme import (
    SIGNED,
    colorbar,
    escape,
    finish,
    integer_ticks,
    named_ticks,
    robust_limit,
    source_line,
)

DeltaStatistic = Literal["mean", "std"]

_GRID = 12  # columns that panels share: one, two, three or four of them fill it
_ROW = 250  # pixels of a model
_QUANTILE = 0.9
"""Where colours end: the embedding's weights are often ten times those of all else."""
_WHAT = (
    "weight of a sublayer's write in what a sublayer reads, over all paths together, dimensionless "
    "(one everywhere in a plain Transformer)"
)


@dataclass(frozen=True)
class _Panel:
    """The reads of one kind, in the order of depth."""

    title: str
    layers: tuple[str, ...]
    values: Float64[np.ndarray, "layer write"]


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
    rows = [_panels(each.frame, each, statistic) for each in results]
    return _finished(
        _drawn(rows, results),
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
        _drawn([_panels(frame, of, statistic)], [of]),
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


def _panels(frame: pd.DataFrame, of: DeltaWeights, statistic: str) -> list[_Panel]:
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
        title = {"mlp": "FFN"}.get(part, part) + (" and head" if ends.any() else "")
        panels.append(_panel(title, others[rows | ends], of.writes, statistic))
    return panels


def _panel(title: str, frame: pd.DataFrame, writes: Sequence[str], statistic: str) -> _Panel:
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
    return _Panel(title, tuple(names), values)


def _drawn(rows: Sequence[Sequence[_Panel]], results: Sequence[DeltaWeights]) -> go.Figure:
    specs: list[list[Any]] = []
    titles: list[str] = []
    for panels in rows:
        wide = _GRID // len(panels)
        specs.append([{"colspan": wide} if i % wide == 0 else None for i in range(_GRID)])
        titles += [panel.title for panel in panels]
    figure = make_subplots(
        rows=len(rows),
        cols=_GRID,
        specs=specs,
        subplot_titles=titles,
        horizontal_spacing=0.055,
        vertical_spacing=0.26 / max(1, len(rows)),
    ).update_annotations(font_size=12.5)
    for row, (panels, result) in enumerate(zip(rows, results, strict=True), start=1):
        wide, name = _GRID // len(panels), escape(result.provenance.model)
        for i, panel in enumerate(panels):
            where: dict[str, int] = {"row": row, "col": 1 + i * wide}
            figure.add_trace(_triangle(panel, result.writes), **where)
            ticks = named_ticks(result.writes, 12 // len(panels))
            figure.update_xaxes(title="written by" if row == len(rows) else None, **ticks, **where)
            names = {"ticktext": [_tick(panel.layers[j]) for j in _shown(panel)]}
            figure.update_yaxes(
                title=f"{name}<br>read by block" if i == 0 else None,
                tickfont_size=10,
                **integer_ticks(len(panel.layers), 9),
                **where,
            ).update_yaxes(**names, **where)
    return figure.update_xaxes(showgrid=False).update_yaxes(showgrid=False)


def _shown(panel: _Panel) -> list[int]:
    return integer_ticks(len(panel.layers), 9)["tickvals"]


def _tick(name: str) -> str:
    """The number of a block, or a head."""
    return name.partition(".")[2] or name


def _triangle(panel: _Panel, writes: Sequence[str]) -> go.Heatmap:
    return go.Heatmap(
        z=panel.values,
        text=[[f"{read} of {write}" for write in writes] for read in panel.layers],
        coloraxis="coloraxis",
        hovertemplate="%{text}: %{z:.4g}<extra>" + panel.title + "</extra>",
        hoverongaps=False,
        name=panel.title,
    )


def _finished(
    figure: go.Figure,
    title: str,
    what: str,
    results: Sequence[DeltaWeights],
    end: float,
    bar: str,
) -> go.Figure:
    rows = 1 if bar == "difference" else len(results)
    return finish(
        figure,
        title,
        what,
        source_line([each.provenance for each in results]),
        coloraxis={
            "colorscale": SIGNED,
            "cmin": -end,
            "cmax": end,
            "colorbar": colorbar(bar),
        },
        height=200 + _ROW * rows + 60 * (rows - 1),
        margin={"l": 75, "r": 30, "t": 125, "b": 75},
    )
