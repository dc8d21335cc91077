"""Where one patch of an image looks: each head of a layer over the picture."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from mudd_interp.viz.picture import Map, Panels, Picture, Scale, check_patches
from mudd_interp.viz.theme import escape, finish

_SLIDER = 75  # pixels


def attention_over_image_figure(
    pattern: Float[np.ndarray, "head query key"],
    picture: Picture,
    position: int,
    *,
    layer: int,
    model: str,
    source: str,
) -> go.Figure:
    """The attention of one patch to all patches, for each head of a layer, over the picture.

    All maps are on one scale, from 0 to the largest weight of that layer on this image, so that it
    stays the same while the slider goes from patch to patch.

    Args:
        pattern: Attention probabilities on one image; rows sum to one.
        picture: The image.
        position: The patch that looks, outlined.
        layer: Which layer it is.
        model: The name of the model.
        source: What it was computed on; escaped.

    Raises:
        ValueError: If the pattern is not one of the picture's patches, or there is no such patch.
    """
    check_patches(pattern.shape[-1], picture, position)
    panels = Panels(
        picture,
        [Map(f"head {head}", rows[position]) for head, rows in enumerate(pattern)],
        [Scale("probability", 0.0, float(pattern.max()))],
        mark=position,
        below=_SLIDER,
    )
    layout = panels.layout()
    return finish(
        panels.figure(),
        f"Attention of {model}, layer {layer}, from {picture.patch(position)}",
        "attention probability of the outlined patch (the query) to each patch (the keys): 0..1, "
        "each map sums to one; one scale, to the largest weight of the layer on this image",
        source,
        sliders=[_slider(pattern, picture, position, layout["shapes"], f"{model}, layer {layer}")],
        **layout,
    )


def _slider(
    pattern: Float[np.ndarray, "head query key"],
    picture: Picture,
    position: int,
    shapes: Sequence[Any],
    what: str,
) -> dict[str, Any]:
    """A step for each patch: the maps of its row, its outline and its name in the title."""
    steps = [
        {
            "method": "update",
            "label": f"{query // picture.side},{query % picture.side}",
            "args": [
                {"z": [picture.grid(rows[query]).tolist() for rows in pattern]},
                {
                    "title.text": escape(f"Attention of {what}, from {picture.patch(query)}"),
                    **{
                        f"shapes[{number}].{corner}": value
                        for number in range(len(shapes))
                        for corner, value in picture.outline(query).items()
                    },
                },
            ],
        }
        for query in range(pattern.shape[1])
    ]
    return {
        "active": position,
        "steps": steps,
        "currentvalue": {"prefix": "the patch that looks (row,column): ", "font": {"size": 12}},
        "pad": {"t": 8, "b": 5},
        "font": {"size": 9},
        "ticklen": 3,
        "y": 0,
    }
