"""The patches of an image as a grid: what analyses of vision models have in common."""

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from mudd_interp.analysis.predictions import as_float64
from mudd_interp.protocol import HookedModel, PatchFront, Trait, require_traits

OF_IMAGES: frozenset[Trait] = frozenset({"images"})
"""What an analysis of patches requires of a model."""


def patch_front(model: HookedModel, what: str) -> PatchFront:
    """The front of a model of images.

    Args:
        model: The model.
        what: What asks for it, the subject of the sentence.

    Raises:
        ValueError: If the model reads no images, or not every position is a patch.
    """
    require_traits(model, what, OF_IMAGES)
    assert isinstance(model.front, PatchFront)
    if model.front.n_prefix:
        raise ValueError(
            f"{what} is not for {model.info.name}, because a class token stands before its "
            "patches, and it takes every position for a patch: look at attention_maps, "
            "token_weights or layer_similarity."
        )
    return model.front


def rows_and_columns(side: int) -> Int64[np.ndarray, "2 pos"]:
    """The row and the column of each patch, from 0."""
    return np.indices((side, side)).reshape(2, -1)


def patch_columns(side: int) -> pd.DataFrame:
    """Columns ``patch``, ``row`` and ``column``, all from 0: every table of patches begins so."""
    row, column = rows_and_columns(side)
    return pd.DataFrame({"patch": np.arange(side**2), "row": row, "column": column})


def cosines_among(
    vectors: Float[Tensor, "pos d_model"],
) -> float:
    """The mean cosine of two different vectors of several, over all pairs, in float64.

    ``(|Σ u|² − Σ |u|²) / n(n − 1)`` with ``u`` the vectors at length one. The zero vector has no
    direction: its cosine with anything is 0.
    """
    given: Float64[np.ndarray, "pos d_model"] = as_float64(vectors)
    length = np.linalg.norm(given, axis=1, keepdims=True)
    unit = given / np.where(length == 0, 1, length)
    total, count = unit.sum(0), len(unit)
    return float((total @ total - np.square(unit).sum()) / (count * (count - 1)))
