"""What a stream multiplies each X_j by, read from a cache: one form for every backbone."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mudd_interp import axes
from mudd_interp.axes import Stream
from mudd_interp.paths import newest_only, norm_weights

Kept = Callable[[str], Tensor]
"""A cached tensor by its name, positions sliced."""


def mixing_weights(
    model: Any, kept: Kept, layer: int, stream: Stream
) -> Float[Tensor, "*token source _"]:
    """The weights of X_0..X_layer in a stream of block ``layer``; layer L is the final norm.

    The last axis is 1, or d_model with PrePostDANorm.
    """
    own = stream if stream in model.streams else "r"
    name = model.weights_hook(layer - 1, own) if layer else None
    if name is None:
        return newest_only(layer + 1, kept(axes.EMBED))
    weights = kept(name)[..., None]
    if model.cfg.pre_post_norm == "none":
        return weights
    return _with_norms(model, kept, layer - 1, own, weights)


def _with_norms(
    model: Any, kept: Kept, aggregation: int, stream: Stream, weights: Float[Tensor, "*t source 1"]
) -> Float[Tensor, "*t source d_model"]:
    sources = range(axes.n_sources(aggregation))
    scales = torch.stack([kept(axes.source_scale(j)) for j in sources], dim=-2)
    gains = torch.stack([model.dense_pre_norms[j].w for j in sources]).detach()
    norms = model.dense[str(aggregation)].post_norms
    if stream not in norms:
        return norm_weights(weights, scales, gains)
    scale = kept(axes.aggregate_scale(aggregation, stream))
    return norm_weights(weights, scales, gains, scale, norms[stream].w.detach())
