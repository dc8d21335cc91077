"""The norms of the blocks' inputs: a curve over depth for each stream."""

from collections.abc import Sequence
from math import ceil, floor
from typing import Any

import numpy as np
import plotly.graph_objects as go

from mudd_interp.analysis import StreamNorms, norms_difference
from mudd_interp.viz.curves import (
    SUBTRACTED,
    Limits,
    difference_axis,
    difference_curves,
    draw,
    label_ends,
    stream_curves,
    with_final_norm,
)
from mudd_interp.viz.theme import finish, source_line

_LOG_FROM = 20
"""The ratio of the largest to the smallest mean from which the axis is logarithmic."""

_UNIT = "units of the residual stream"


def norms_figure(
    result: StreamNorms,
    baseline: StreamNorms | None = None,
    *,
    limits: Limits | None = None,
    as_baseline: bool = False,
) -> go.Figure:
    """Mean L2 norm of the blocks' inputs: a curve for each stream in a band of ± std over tokens.

    The axis is logarithmic if its ends are far apart; a band that would reach below is cut off.

    Args:
        result: Of the model in question.
        baseline: Of the Transformer beside it: stream r, dashed.
        limits: The ends of the y axis; ``None`` takes those of :func:`norms_limits`. Give them to
            put two figures on one scale.
        as_baseline: Draw ``result`` itself as the baseline, for a figure beside another's.
    """
    results = [result] if baseline is None else [result, baseline]
    low, high = limits or norms_limits(results)
    log = low > 0
    curves = stream_curves(result, baseline, as_baseline)
    figure = go.Figure()
    for curve in curves:
        layer, mean, std = curve.rows[["layer", "mean", "std"]].to_numpy().T
        band = curve.style.band(layer, np.maximum(mean - std, low), mean + std)
        figure.add_trace(band.update(legendgroup=curve.name))
    draw(figure, curves, "mean", ".4g")
    label_ends(figure, curves, "mean", (low, high), log)
    return finish(
        figure,
        "Norms of the inputs of the blocks",
        f"mean L2 norm over tokens before the norms, with a band of ± std; {_UNIT}",
        source_line([each.provenance for each in results]),
        yaxis={
            "title": f"mean L2 norm, {_UNIT}{' (log scale)' if log else ''}",
            **_axis(low, high),
        },
        **with_final_norm(max(each.n_layers for each in results)),
    )


def norms_limits(results: Sequence[StreamNorms]) -> Limits:
    """Where the y axis of :func:`norms_figure` ends; above 0 if it is logarithmic.

    For several results, it is a scale that their figures can share.
    """
    mean, std = np.concatenate([result.frame[["mean", "std"]] for result in results]).T
    low, top = float(mean.min()), float((mean + std).max())
    if low > 0 and mean.max() / low >= _LOG_FROM:
        return low / 1.3, top * 1.3
    return 0.0, 1.05 * top or 1.0


def norms_difference_figure(result: StreamNorms, baseline: StreamNorms) -> go.Figure:
    """The means of :func:`norms_figure` as a difference, around 0.

    Args:
        result: Of the model in question.
        baseline: Of the Transformer beside it.

    Raises:
        ValueError: If the models differ in their number of layers.
    """
    curves = difference_curves(norms_difference(result, baseline), result.streams)
    axis = difference_axis(f"difference, {_UNIT}", curves, "mean")
    figure = go.Figure()
    draw(figure, curves, "mean", "+.4g")
    label_ends(figure, curves, "mean", axis["range"])
    return finish(
        figure,
        f"Norms of the inputs of the blocks: "
        f"{result.provenance.model} − {baseline.provenance.model}",
        f"difference of mean L2 norms over tokens, {_UNIT}; {SUBTRACTED}",
        source_line([result.provenance, baseline.provenance]),
        yaxis=axis,
        **with_final_norm(result.n_layers),
    )


def _axis(low: float, high: float) -> dict[str, Any]:
    if low <= 0:
        return {"range": [low, high]}
    bottom, top = np.log10([low, high]).tolist()
    steps = (1, 2, 5) if top - bottom < 3 else (1,)
    ticks = [step * 10.0**power for power in range(floor(bottom), ceil(top)) for step in steps]
    return {"type": "log", "range": [bottom, top], "tickmode": "array", "tickvals": ticks}
