"""Everything up to a block, put back to a cached run: the state where connections are dense."""

from collections.abc import Collection
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mudd_interp import axes
from mudd_interp.analysis.inputs import check_position
from mudd_interp.protocol import Hook


def state_hooks(
    cache: Any,
    layer: int,
    positions: Collection[int] | None = None,
    elsewhere: Any = None,
) -> list[Hook]:
    """Hooks that put everything up to block ``layer`` back to a cached run: X_0..X_layer.

    ``model.run_with_hooks(corrupted, fwd_hooks=state_hooks(cache, 6))`` runs blocks 6 and later on
    the clean state. In a plain Transformer it is what a hook on ``hook_resid_pre`` does.

    Args:
        cache: Of a run on as many tokens, with its batch axis; ``hook_embed`` and each block's
            ``hook_resid_post`` must be in it.
        layer: Which block; the number of layers stands for the final norm.
        positions: At which tokens; ``None`` for all.
        elsewhere: A cache of the run that the other positions keep. Without one they are computed,
            and in the blocks below they read the tokens that were put back.

    Raises:
        ValueError: If the layer is negative, the cache lacks an output (or the model such a layer),
            or there is no such position.
    """
    if layer < 0:
        raise ValueError(f"layer must be 0 or more, got {layer}.")
    names = [axes.source_output(j) for j in range(layer + 1)]
    for name in names:
        if name not in cache.keys():  # noqa: SIM118 (a cache has no `in` of its own)
            raise ValueError(
                f"the cache lacks `{name}`, which enters block {layer}: keep hook_embed and every "
                "hook_resid_post below it, or give a layer that the model has."
            )
    length = cache[names[0]].shape[1]
    at = torch.zeros(length, dtype=torch.bool)
    for position in range(length) if positions is None else positions:
        check_position(position, length)
        at[position] = True
    other = {name: None if elsewhere is None else elsewhere[name] for name in names}
    return [(name, partial(_put_back, at, cache[name], other[name])) for name in names]


def _put_back(
    at: Bool[Tensor, " pos"],
    clean: Float[Tensor, "batch pos d_model"],
    other: Float[Tensor, "batch pos d_model"] | None,
    x: Float[Tensor, "batch pos d_model"],
    hook: Any,  # noqa: ARG001 (a hook's signature)
) -> Float[Tensor, "batch pos d_model"]:
    return torch.where(at.to(x.device)[:, None], clean.to(x), x if other is None else other.to(x))
