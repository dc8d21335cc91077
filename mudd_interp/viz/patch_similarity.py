"""How alike the patches of one image are: a curve over depth for each stream."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from mudd_interp.analysis import PatchSimilarity, patch_similarity_difference
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

_COSINE = "cos of the inputs of block l at two different patches of one image, before the norms"


def patch_similarity_figure(
    result: PatchSimilarity,
    baseline: PatchSimilarity | None = None,
    *,
    limits: Limits | None = None,
    as_baseline: bool = False,
) -> go.Figure:
    """Mean cosine between the patches of an image by depth: a curve for each stream.

    Each stands in a band of ± std over images.

    Args:
        result: Of the model in question.
        baseline: Of the Transformer beside it: stream r, dashed.
        limits: The ends of the y axis; ``None`` takes those of :func:`patch_similarity_limits`.
            Give them to put two figures on one scale.
        as_baseline: Draw ``result`` itself as the baseline, for a figure beside another's.
    """
    results = [result] if baseline is None else [result, baseline]
    low, high = limits or patch_similarity_limits(results)
    curves = stream_curves(result, baseline, as_baseline)
    figure = go.Figure()
    for curve in curves:
        layer, mean, std = curve.rows[["layer", "cosine", "std"]].to_numpy().T
        band = curve.style.band(layer, mean - std, mean + std)
        figure.add_trace(band.update(legendgroup=curve.name))
    draw(figure, curves, "cosine")
    label_ends(figure, curves, "cosine", (low, high))
    return finish(
        figure,
        "Similarity of the patches of an image",
        f"mean over pairs of patches and over images of {_COSINE}, with a band of ± std over "
        "images; −1..1, 1 = all patches alike (over-smoothing)",
        source_line([each.provenance for each in results]),
        yaxis={"title": "mean cosine between patches", "range": [low, high], "zeroline": False},
        **with_final_norm(max(each.n_layers for each in results)),
    )


def patch_similarity_limits(results: Sequence[PatchSimilarity]) -> Limits:
    """Where the y axis of :func:`patch_similarity_figure` ends: below all bands, and above 1.

    For several results, it is a scale that their figures can share.
    """
    cosine, std = np.concatenate([result.frame[["cosine", "std"]] for result in results]).T
    low = float((cosine - std).min())
    pad = 0.05 * (1 - low) or 0.05
    return low - pad, 1 + pad


def patch_similarity_difference_figure(
    result: PatchSimilarity, baseline: PatchSimilarity
) -> go.Figure:
    """The means of :func:`patch_similarity_figure` as a difference, around 0.

    Below 0 the model's patches differ more than the baseline's.

    Args:
        result: Of the model in question.
        baseline: Of the Transformer beside it.

    Raises:
        ValueError: If the models differ in their number of layers.
    """
    curves = difference_curves(patch_similarity_difference(result, baseline), result.streams)
    axis = difference_axis("difference of mean cosine between patches", curves, "cosine")
    figure = go.Figure()
    draw(figure, curves, "cosine", "+.4f")
    label_ends(figure, curves, "cosine", axis["range"])
    return finish(
        figure,
        f"Similarity of the patches of an image: "
        f"{result.provenance.model} − {baseline.provenance.model}",
        f"difference of the mean {_COSINE}; {SUBTRACTED}",
        source_line([result.provenance, baseline.provenance]),
        yaxis=axis,
        **with_final_norm(result.n_layers),
    )
