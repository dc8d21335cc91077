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

from mudd_interp import axes
from mudd_interp.analysis.attribution import keep
from mudd_interp.analysis.edges import weights_hooks
from mudd_interp.analysis.finite import advice
from mudd_interp.analysis.predictions import as_float64
from mudd_interp.analysis.prompt_pairs import logit_difference
from mudd_interp.axes import Aggregate
from mudd_interp.edits import aggregate_hook
from mudd_interp.precision import wide
from mudd_interp.protocol import Hook, HookedModel, Observer


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
    kept: dict[Any, Tensor] = {}  # X_j by its number, a stream by its aggregate
    weights: dict[Aggregate, Tensor] = {}
    hooks: list[Hook] = [
        (axes.source_output(j), partial(keep, kept, j)) for j in range(len(changes))
    ]
    for key, name in weights_hooks(model).items():
        hooks.append((name, Observer(partial(_look, weights, key))))
        hooks.append((aggregate_hook(model, *key), partial(keep, kept, key)))
    with torch.enable_grad(), model.hooks(hooks):
        difference = logit_difference(model(tokens, return_type="logits"), answers).sum()
        found = torch.autograd.grad(difference, list(kept.values()))
    gradients = {key: wide(gradient) for key, gradient in zip(kept, found, strict=True)}
    estimate = torch.stack(
        [(gradients[j] * wide(change)).sum(-1) for j, change in enumerate(changes)]
    )
    for (i, stream), weight in weights.items():
        # The newest source, X_{i+1}, is left out: all of its readers are counted above.
        older = torch.stack([wide(change) for change in changes[: i + 1]])
        read = wide(weight)[..., :-1] * torch.einsum("jbpd,bpd->bpj", older, gradients[i, stream])
        # Besides X_l the state at l holds X_0..X_{l-1}, which aggregations from l - 1 on read.
        estimate[1 : i + 2] += read.cumsum(-1).permute(2, 0, 1)
    if not estimate.isfinite().all():
        dtype = str(model.cfg.dtype).removeprefix("torch.")
        raise ValueError(
            f"the gradient of a logit difference of {model.info.name} is not finite: "
            f"{advice(dtype)}"
        )
    return as_float64(estimate.transpose(1, 2))


def _look(
    weights: dict[Aggregate, Tensor],
    key: Aggregate,
    tensor: Float[Tensor, "prompt pos source"],
    hook: Any,  # noqa: ARG001 (a hook's signature)
) -> None:
    weights[key] = tensor.detach()
