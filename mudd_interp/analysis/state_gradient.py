"""What putting a state back would change, to first order: all layers and tokens from one backward.

``X_j`` acts on the answer ``m`` through all that reads it. Of the state that enters block ``l`` the
newest output X_l acts through all of its readers: ``⟨dX_l, ∂m/∂X_l⟩``. An older X_j acts through
those that are still to come, the aggregations ``i >= l - 1``, each of which reads it with the
weight ``A^c_ij`` on stream ``c``: ``sum_i sum_c A^c_ij ⟨dX_j, ∂m/∂X̄^c_i⟩``. (The weights
themselves depend on X_{i+1} only, which is newer.)
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from mudd_interp.analysis.attribution import keep
from mudd_interp.analysis.finite import advice
from mudd_interp.analysis.predictions import as_float64
from mudd_interp.analysis.prompt_pairs import logit_difference
from mudd_interp.precision import wide
from mudd_interp.protocol import Hook, HookedModel
from mudd_interp.wiring import Read


def first_order(
    model: HookedModel,
    tokens: Int64[Tensor, "prompt pos"],
    changes: Sequence[Float[Tensor, "prompt pos d_model"]],
    answers: Int64[Tensor, "prompt 2"],
) -> Float64[np.ndarray, "layer pos prompt"]:
    """The estimated change of the logit difference for the state at each layer and position.

    No gradient is left on the model's parameters.

    Args:
        model: A model without PrePostDANorm.
        tokens: What it runs on.
        changes: What is added to X_0..X_L.
        answers: The tokens whose logits are compared.

    Raises:
        ValueError: If a gradient is not finite.
    """
    wiring = model.wiring
    kept: dict[Any, Tensor] = {}  # X_j by its number, a stream by its row
    weights: dict[Read, Tensor] = {}
    hooks: list[Hook] = [
        (source.hook, partial(keep, kept, j)) for j, source in enumerate(wiring.sources)
    ]
    hooks += wiring.watch_rows(partial(_look, weights))
    hooks += [
        (read.hook, partial(keep, kept, read)) for read in wiring.rows if wiring.weighed(read)
    ]
    with torch.enable_grad(), model.hooks(hooks):
        difference = logit_difference(model(tokens, return_type="logits"), answers).sum()
        found = torch.autograd.grad(difference, list(kept.values()))
    gradients = {key: wide(gradient) for key, gradient in zip(kept, found, strict=True)}
    estimate = torch.stack(
        [(gradients[j] * wide(change)).sum(-1) for j, change in enumerate(changes)]
    )
    for read, weight in weights.items():
        # The newest source, X_layer, is left out: all of its readers are counted above.
        for j, of_source in zip(wiring.columns(read)[:-1], wide(weight).unbind(-1), strict=False):
            taken = of_source * (wide(changes[j]) * gradients[read]).sum(-1)
            # Besides X_l the state at l holds X_0..X_{l-1}, which rows from l - 1 on read.
            estimate[j + 1 : read.layer + 1] += taken
    if not estimate.isfinite().all():
        dtype = str(model.cfg.dtype).removeprefix("torch.")
        raise ValueError(
            f"the gradient of a logit difference of {model.info.name} is not finite: "
            f"{advice(dtype)}"
        )
    return as_float64(estimate.transpose(1, 2))


def _look(
    weights: dict[Read, Tensor], read: Read, found: Float[Tensor, "prompt pos source"]
) -> None:
    weights[read] = found.detach()
