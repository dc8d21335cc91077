"""Each figure function of images, drawn of a tiny pair."""

from typing import Any

from mudd_interp import viz
from mudd_interp.analysis import sweep
from tests.unit import seeing

ANALYSES = ["patch_similarity"]


def vision_figures() -> dict[str, Any]:
    """By the function's name."""
    models = [seeing.vision_model(name) for name in ("see", "see-plain")]
    results = [sweep(model, seeing.batches(2, 1), ANALYSES) for model in models]
    (similarity,) = zip(*results, strict=True)
    return {
        "patch_similarity_figure": viz.patch_similarity_figure(*similarity),
        "patch_similarity_difference_figure": viz.patch_similarity_difference_figure(*similarity),
    }
