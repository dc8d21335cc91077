"""What each stream reads at one token: the weights of Figures 12 and 13 without the average."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import plotly.graph_objects as go

from mudd_interp.analysis import TokenWeights, check_same_rows, rectify, token_weights_difference
from mudd_interp.viz.theme import (
    ROBUST_QUANTILE,
    finish,
    robust_limit,
    shown,
    source_line,
)
from mudd_interp.viz.triangles import MARGIN, scale, scale_end, triangles

TokenStatistic = Literal["static", "dynamic", "total"]
"""At a token: the weight (total), its static part, and the rest (dynamic)."""

_DEFINITIONS: dict[TokenStatistic, str] = {
    "static": "static: learned, the same at every token",
    "dynamic": "dynamic: weight − static part",
    "total": "static part included",
}
_EVERY_TOKEN = f"{ROBUST_QUANTILE:.0%} of non-zero values at all tokens"


def token_weights_figure(
    result: TokenWeights,
    position: int,
    statistic: TokenStatistic = "total",
    rectified: bool = False,
    limit: float | None = None,
    baseline: TokenWeights | None = None,
) -> go.Figure:
    """A triangle for each stream, of the weights at one token.

    Rows are aggregations from the bottom up, columns are sources, and what does not exist is blank.

    Args:
        result: The weights of one sequence.
        position: The token.
        statistic: The weight, or its static or dynamic part.
        rectified: Multiply each weight by the norm of its source at this token.
        limit: The end of the colour scale, which is symmetric around 0; ``None`` takes that of
            :func:`token_weights_limit`, the same at every token of the sequence. Give it to put
            two figures on one scale.
        baseline: Of the Transformer beside it: a cross on the source that it reads most.

    Raises:
        ValueError: If a sequence has no such position, or the models differ in their number of
            layers.
    """
    frames = [
        rectify(each.frame_at(position)) if rectified else each.frame_at(position)
        for each in (result, baseline)
        if each is not None
    ]
    end = token_weights_limit([result], statistic, rectified) if limit is None else limit
    stated = "a common scale" if limit is not None else _EVERY_TOKEN
    parts = [_unit(rectified), f"{_DEFINITIONS[statistic]}; colours end at ±{end:.3g} ({stated})"]
    provenances = [result.provenance]
    if baseline is not None:
        parts.append(f"×: what {baseline.provenance.model} (baseline) reads most")
        provenances.append(baseline.provenance)
    check_same_rows(provenances)
    return finish(
        triangles(frames[0], result.streams, [statistic], *frames[1:], of=result.provenance),
        f"Dense weights of {result.provenance.model} at token {_token(result, position)}"
        f"{', rectified' if rectified else ''}",
        "; ".join(parts),
        source_line(provenances),
        coloraxis=scale(end, "weight × norm" if rectified else "weight"),
        margin=MARGIN,
    )


def token_weights_difference_figure(
    result: TokenWeights,
    baseline: TokenWeights,
    position: int,
    statistic: TokenStatistic = "total",
    rectified: bool = False,
    limit: float | None = None,
) -> go.Figure:
    """:func:`token_weights_figure` as a difference, on a scale of its own.

    Args:
        result: Of the model in question.
        baseline: Of the Transformer beside it, on the same tokens.
        position: The token.
        statistic: As for :func:`token_weights_figure`.
        rectified: Multiply each model's weights by the norms of its own sources at this token
            first.
        limit: The end of the colour scale; ``None`` takes the ``ROBUST_QUANTILE`` of what is drawn.

    Raises:
        ValueError: If the models differ in their number of layers, or do not split the text into
            the same tokens, or the sequence has no such position.
    """
    frame = token_weights_difference(result, baseline, position, rectified)
    end, stated = scale_end(frame[[statistic]].to_numpy(), limit)
    names = [each.provenance.model for each in (result, baseline)]
    return finish(
        triangles(frame, result.streams, [statistic], of=result.provenance),
        f"Dense weights at token {_token(result, position)}{', rectified' if rectified else ''}: "
        f"{names[0]} − {names[1]}",
        f"{names[0]} − {names[1]}, {_unit(rectified)}; {_DEFINITIONS[statistic]}; "
        f"colours end at ±{end:.3g} ({stated})",
        source_line([result.provenance, baseline.provenance]),
        coloraxis=scale(end, "difference"),
        margin=MARGIN,
    )


def token_weights_limit(
    results: Sequence[TokenWeights],
    statistic: TokenStatistic = "total",
    rectified: bool = False,
) -> float:
    """Where the colours of :func:`token_weights_figure` end.

    It is a quantile of the non-zero magnitudes at all tokens; for several results, a scale that
    their figures can share.
    """
    values = list[np.ndarray]()
    for result in results:
        static = np.broadcast_to(result.static[..., None], result.weights.shape)
        drawn = {"static": static, "total": result.weights, "dynamic": result.weights - static}
        norms = result.source_norm if rectified else 1.0
        values.append((drawn[statistic] * norms).ravel())
    return robust_limit(np.concatenate(values))


def _token(result: TokenWeights, position: int) -> str:
    return f"{position} “{shown(result.tokens[position])}”"


def _unit(rectified: bool) -> str:
    return "weight × norm of the source at the token" if rectified else "weight, dimensionless"
