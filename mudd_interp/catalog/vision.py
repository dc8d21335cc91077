"""What does a Vision Transformer see, and where?"""

from mudd_interp.analysis import PatchSimilarityAnalysis, patch_similarity_difference
from mudd_interp.analysis.patches import OF_IMAGES
from mudd_interp.catalog.kind import SCOPED, FigureKind, of_models
from mudd_interp.catalog.similarity import CURVES, curves
from mudd_interp.viz import (
    patch_similarity_difference_figure,
    patch_similarity_figure,
    patch_similarity_limits,
)

KINDS = (
    FigureKind(
        name="patch_similarity",
        title="Do the patches of an image stay distinct?",
        draw=curves(
            PatchSimilarityAnalysis(),
            patch_similarity_figure,
            patch_similarity_limits,
            patch_similarity_difference,
            patch_similarity_difference_figure,
        ),
        needs=of_models(PatchSimilarityAnalysis()),
        uses=SCOPED,
        modes=CURVES,
        single=True,
        requires=OF_IMAGES,
    ),
)
