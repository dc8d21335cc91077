"""Do the inputs stay distinct?"""

from collections.abc import Callable
from typing import Any

import pandas as pd

from mudd_interp.analysis import (
    Analysis,
    LayerSimilarityAnalysis,
    SimilarityMatrixAnalysis,
    StreamNormsAnalysis,
    norms_difference,
    similarity_difference,
    similarity_matrix_difference,
)
from mudd_interp.catalog.kind import (
    SCOPED,
    Drawn,
    FigureKind,
    of_both,
    of_models,
    results,
)
from mudd_interp.request import Mode
from mudd_interp.study import Study
from mudd_interp.viz import (
    norms_difference_figure,
    norms_figure,
    norms_limits,
    similarity_difference_figure,
    similarity_figure,
    similarity_limits,
    similarity_matrix_difference_figure,
    similarity_matrix_figure,
)

CURVES: tuple[Mode, ...] = ("overlay", "side_by_side", "difference")


def curves(
    analysis: Analysis[Any],
    figure: Callable[..., Any],
    limits: Callable[..., Any],
    difference: Callable[..., pd.DataFrame],
    difference_figure: Callable[..., Any],
) -> Callable[[Study], Drawn]:
    """Curves by layer: both models in one plot, each in its own on one scale, or the difference."""

    def draw(study: Study) -> Drawn:
        model, baseline = results(study, analysis)
        if study.request.mode == "difference":
            return Drawn(difference_figure(model, baseline), difference(model, baseline))
        if study.request.mode != "side_by_side":
            frame = of_both(study, lambda role: study.result(role, analysis).frame)
            return Drawn(figure(model, baseline), frame)
        shared = limits([each for each in (model, baseline) if each is not None])
        of_baseline = study.request.of == "baseline"
        shown = baseline if of_baseline else model
        return Drawn(figure(shown, limits=shared, as_baseline=of_baseline), shown.frame)

    return draw


def _matrix(study: Study) -> Drawn:
    analysis = SimilarityMatrixAnalysis()
    model, baseline = results(study, analysis)
    if study.request.mode == "difference":
        frame = similarity_matrix_difference(model, baseline)
        return Drawn(similarity_matrix_difference_figure(model, baseline), frame)
    frame = of_both(study, lambda role: study.result(role, analysis).frame)
    return Drawn(similarity_matrix_figure(model, baseline), frame)


KINDS = (
    FigureKind(
        name="layer_similarity",
        title="Do the inputs stay distinct? (Fig. 6)",
        draw=curves(
            LayerSimilarityAnalysis(),
            similarity_figure,
            similarity_limits,
            similarity_difference,
            similarity_difference_figure,
        ),
        needs=of_models(LayerSimilarityAnalysis()),
        uses=SCOPED,
        modes=CURVES,
        single=True,
        standard=True,
    ),
    FigureKind(
        name="similarity_matrix",
        title="How similar the inputs of any two blocks are",
        draw=_matrix,
        needs=of_models(SimilarityMatrixAnalysis()),
        uses=SCOPED,
        modes=("side_by_side", "difference"),
        why_not={"overlay": "two squares of colours would hide each other"},
    ),
    FigureKind(
        name="stream_norms",
        title="How long the inputs of the blocks are",
        draw=curves(
            StreamNormsAnalysis(),
            norms_figure,
            norms_limits,
            norms_difference,
            norms_difference_figure,
        ),
        needs=of_models(StreamNormsAnalysis()),
        uses=SCOPED,
        modes=CURVES,
        single=True,
    ),
)
