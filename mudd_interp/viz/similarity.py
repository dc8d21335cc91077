"""Figure 6 of the paper: how similar the inputs of neighbouring blocks are."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from mudd_interp.analysis import LayerSimilarity, similarity_difference
from mudd_interp.viz.curves import (
    LAYOUT,
    SUBTRACTED,
    Limits,
    difference_axis,
    difference_curves,
    draw,
    label_ends,
    stream_curves,
)
from mudd_interp.viz.theme import finish, integer_ticks, source_line

_COSINE = "cos(input of block l, input of block l − 1) before the norms"


def similarity_figure(
    result: LayerSimilarity,
    baseline: LayerSimilarity | None = None,
    *,
    limits: Limits | None = None,
    as_baseline: bool = False,
) -> go.Figure:
    """Mean cosine similarity of neighbouring blocks' inputs, a curve for each stream (Fig. 6).

    Args:
        result: Of the model in question.
        baseline: Of the Transformer beside it: stream r, dashed.
        limits: The ends of the y axis; ``None`` takes those of :func:`similarity_limits`. Give them
            to put two figures on one scale.
        as_baseline: Draw ``result`` itself as the baseline, for a figure beside another's.

    Raises:
        ValueError: If a model has one block only.
    """
    results = [result] if baseline is None else [result, baseline]
    low, high = limits or similarity_limits(results)
    curves = stream_curves(result, baseline, as_baseline)
    figure = go.Figure()
    draw(figure, curves, "cosine")
    label_ends(figure, curves, "cosine", (low, high))
    return finish(
        figure,
        "Similarity of the inputs of neighbouring blocks",
        f"mean over tokens of {_COSINE}; −1..1, 1 = same direction",
        source_line([each.provenance for each in results]),
        yaxis={"title": "mean cosine similarity", "range": [low, high], "zeroline": False},
        **_layout(max(each.n_layers for each in results)),
    )


def similarity_limits(results: Sequence[LayerSimilarity]) -> Limits:
    """Where the y axis of :func:`similarity_figure` ends: a little below all values, and above 1.

    For several results, it is a scale that their figures can share.

    Raises:
        ValueError: If a model has one block only.
    """
    for result in results:
        _check_two_blocks(result)
    low = float(np.concatenate([result.frame["cosine"] for result in results]).min())
    pad = 0.05 * (1 - low) or 0.05
    return low - pad, 1 + pad


def similarity_difference_figure(result: LayerSimilarity, baseline: LayerSimilarity) -> go.Figure:
    """:func:`similarity_figure` as a difference, around 0: below 0, the model's differ more.

    Args:
        result: Of the model in question.
        baseline: Of the Transformer beside it.

    Raises:
        ValueError: If the models differ in their number of layers, or have one block only.
    """
    _check_two_blocks(result)
    curves = difference_curves(similarity_difference(result, baseline), result.streams)
    axis = difference_axis("difference of mean cosine similarity", curves, "cosine")
    figure = go.Figure()
    draw(figure, curves, "cosine", "+.4f")
    label_ends(figure, curves, "cosine", axis["range"])
    return finish(
        figure,
        f"Similarity of the inputs of neighbouring blocks: "
        f"{result.provenance.model} − {baseline.provenance.model}",
        f"difference of mean {_COSINE}; {SUBTRACTED}",
        source_line([result.provenance, baseline.provenance]),
        yaxis=axis,
        **_layout(result.n_layers),
    )


def _check_two_blocks(result: LayerSimilarity) -> None:
    if result.n_layers < 2:
        raise ValueError(
            f"no similarity of {result.provenance.model} to draw: it needs a model with at least "
            "two blocks."
        )


def _layout(n_layers: int) -> dict[str, Any]:
    return {
        **LAYOUT,
        "xaxis": {
            **integer_ticks(n_layers, 24),
            "title": "block l",
            "range": [0.6, n_layers - 0.4],
        },
    }
