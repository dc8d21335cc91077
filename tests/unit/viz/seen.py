"""Each figure function of images, drawn of a tiny pair."""

from typing import Any

from mudd_interp import viz
from mudd_interp.analysis import (
    attention_rollout,
    class_attribution,
    path_coefficients,
    sweep,
    token_weights,
)
from mudd_interp.images import bundled_images
from mudd_interp.study import attention_pattern
from tests.unit import seeing

ANALYSES = ["patch_similarity", "patch_sinks", "relative_offsets"]


def picture(number: int = 0) -> viz.Picture:
    """One of the bundled images, cut as the tiny models cut it."""
    images = bundled_images()
    assert images.labels is not None
    assert images.class_names is not None
    name = images.class_names[images.labels[number]]
    return viz.Picture(images.pixels[number], name, seeing.PATCHES.side)


def vision_figures() -> dict[str, Any]:
    """By the function's name."""
    models = [seeing.vision_model(name) for name in ("see", "see-plain")]
    results = [sweep(model, seeing.batches(2, 1), ANALYSES) for model in models]
    similarity, sinks, offsets = zip(*results, strict=True)
    image = seeing.seen(1)
    pattern = attention_pattern(models[0], image, layer=1).numpy()
    weights = token_weights(models[0], image)
    classes = [class_attribution(model, image, "Bag") for model in models]
    return {
        "patch_similarity_figure": viz.patch_similarity_figure(*similarity),
        "patch_similarity_difference_figure": viz.patch_similarity_difference_figure(*similarity),
        "attention_over_image_figure": viz.attention_over_image_figure(
            pattern, picture(), 6, layer=1, model="<m>", source="here"
        ),
        "class_attribution_figure": viz.class_attribution_figure(classes[0], picture(), classes[1]),
        "patch_sinks_figure": viz.patch_sinks_figure(*sinks),
        "relative_offsets_figure": viz.relative_offsets_figure(offsets[0], 1),
        "relative_offset_scores_figure": viz.relative_offset_scores_figure(*offsets),
        "rollout_figure": viz.rollout_figure(
            attention_rollout(models[0], image), path_coefficients(models[0], image), picture()
        ),
        "weights_over_image_figure": viz.weights_over_image_figure(
            weights, picture(), "v", 1, 1, added="a norm"
        ),
    }
