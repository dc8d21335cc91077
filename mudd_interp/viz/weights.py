"""Figures 12 and 13 of the paper: how much of each earlier output each stream reads."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mudd_interp.analysis import DenseWeights, check_same_rows, rectify, weights_difference
from mudd_interp.viz.theme import finish, robust_limit, source_line
from mudd_interp.viz.triangles import MARGIN, height, scale, scale_end, triangles

Statistic = Literal["mean", "std", "static", "dynamic"]
"""Over tokens: mean and standard deviation of the weight, its static part, mean − static part."""

_DEFINITIONS: dict[Statistic, str] = {
    "mean": "over tokens, static part included",
    "std": "over tokens, static part included",
    "static": "static: learned, the same at every token",
    "dynamic": "dynamic: mean over tokens − static part",
}


def weights_figure(
    result: DenseWeights,
    rectified: bool = True,
    statistics: Sequence[Statistic] = ("mean", "std"),
    limit: float | None = None,
    baseline: DenseWeights | None = None,
) -> go.Figure:
    """A triangle for each stream, for mean and standard deviation of the weights (Figs. 12, 13).

    Rows are aggregations from the bottom up, columns are sources, and what does not exist is blank.
    A plain Transformer is the degenerate case: one stream, its weight on the newest source.

    Args:
        result: The weights.
        rectified: Multiply each weight by the mean norm of its source, as the paper does.
        statistics: Which rows of triangles to draw.
        limit: The end of the one colour scale, which is symmetric around 0; ``None`` takes the
            ``ROBUST_QUANTILE`` of what is drawn. Give it to put two figures on one scale.
        baseline: Of the Transformer beside it: a cross on the source that it reads most.

    Raises:
        ValueError: If the models differ in their number of layers.
    """
    frame, model = _frame(result, rectified), result.provenance.model
    other = None if baseline is None else _frame(baseline, rectified)
    end, stated = scale_end(frame[list(statistics)].to_numpy(), limit)
    parts = [_unit(rectified), f"{_definition(statistics)}; colours end at ±{end:.3g} ({stated})"]
    provenances = [result.provenance]
    if baseline is not None:
        parts.append(f"×: what {baseline.provenance.model} (baseline) reads most")
        provenances.append(baseline.provenance)
    check_same_rows(provenances)
    return finish(
        triangles(frame, result.streams, statistics, other, of=result.provenance),
        f"Dense weights of {model}{', rectified' if rectified else ''}",
        "; ".join(parts),
        source_line(provenances),
        coloraxis=scale(end, "weight × norm" if rectified else "weight"),
        margin=MARGIN,
        height=height(result.streams, statistics),
    )


def weights_difference_figure(
    result: DenseWeights,
    baseline: DenseWeights,
    rectified: bool = True,
    statistics: Sequence[Statistic] = ("mean", "std"),
    limit: float | None = None,
) -> go.Figure:
    """:func:`weights_figure` as a difference, on a scale of its own.

    Each stream is compared with the baseline's of that name, or with its stream r where all four
    are one: a plain Transformer takes 1 from each weight on the newest source, and nothing else.

    Args:
        result: Of the model in question.
        baseline: Of the Transformer beside it.
        rectified: Multiply each model's weights by the mean norms of its own sources first.
        statistics: As for :func:`weights_figure`.
        limit: As for :func:`weights_figure`.

    Raises:
        ValueError: If the models differ in their number of layers.
    """
    frame = _with_dynamic(weights_difference(result, baseline, rectified))
    end, stated = scale_end(frame[list(statistics)].to_numpy(), limit)
    names = [each.provenance.model for each in (result, baseline)]
    return finish(
        triangles(frame, result.streams, statistics, of=result.provenance),
        f"Dense weights{', rectified' if rectified else ''}: {names[0]} − {names[1]}",
        f"{names[0]} − {names[1]}, {_unit(rectified)}; {_definition(statistics)}; "
        f"colours end at ±{end:.3g} ({stated})",
        source_line([result.provenance, baseline.provenance]),
        coloraxis=scale(end, "difference"),
        margin=MARGIN,
        height=height(result.streams, statistics),
    )


def weights_limit(
    results: Sequence[DenseWeights],
    rectified: bool = True,
    statistics: Sequence[Statistic] = ("mean", "std"),
) -> float:
    """Where the colours of :func:`weights_figure` end: a quantile of the non-zero magnitudes.

    For several results, it is a scale that their figures can share.
    """
    tables = [_frame(result, rectified)[list(statistics)] for result in results]
    return robust_limit(np.concatenate(tables))


def _frame(result: DenseWeights, rectified: bool) -> pd.DataFrame:
    return _with_dynamic(rectify(result.frame) if rectified else result.frame)


def _with_dynamic(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(dynamic=frame["mean"] - frame["static"])


def _unit(rectified: bool) -> str:
    return "weight × mean norm of the source" if rectified else "weight, dimensionless"


def _definition(statistics: Sequence[Statistic]) -> str:
    return "; ".join(dict.fromkeys(_DEFINITIONS[statistic] for statistic in statistics))
