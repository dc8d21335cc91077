"""What each edge would cost, to first order: all edges from one backward pass."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from mudd_interp.analysis.ablation import edits_table
from mudd_interp.analysis.bootstrap import mean_and_interval
from mudd_interp.analysis.finite import arrays_of, finite_hooks
from mudd_interp.analysis.inputs import checked, require_evaluation
from mudd_interp.analysis.predictions import as_float64, token_losses
from mudd_interp.analysis.provenance import TokensSeen, provenance
from mudd_interp.analysis.result import Result
from mudd_interp.analysis.sweep import NO_BATCHES, NO_LOCK, Progress
from mudd_interp.axes import Aggregate
from mudd_interp.data import TokenBatches, describe
from mudd_interp.edits import Edit, aggregate_hook, as_edits, every_edge
from mudd_interp.protocol import HookedModel


@dataclass(frozen=True, eq=False, kw_only=True)
class EdgeAttribution(Result):
    """First-order estimates of what cutting each edge does to the loss.

    ``−A · ∂loss/∂A``, summed over the tokens: the change of the loss if it were linear in the
    weight. For the one edge of a stream on the plain residual it is ``−⟨X, ∂loss/∂X⟩``. How far it
    can be trusted is measured against ``ablation_sweep``, not known beforehand.

    Attributes:
        estimate: Of the loss summed over a sequence, in nats.
        predicted: Predicted tokens of each sequence.
    """

    needed: ClassVar[Mapping[str, Any]] = MappingProxyType({"edits": list[str]})
    labelled: ClassVar[Mapping[str, str]] = MappingProxyType({"edge": "edits"})

    estimate: Float64[np.ndarray, "edge sequence"]
    predicted: Int64[np.ndarray, " sequence"]

    @property
    def frame(self) -> pd.DataFrame:
        """A row for each edge.

        The label columns of ``AblationSweep.frame``, and ``estimate`` (nats per predicted token)
        with the ends of its 95% interval, ``estimate_low`` and ``estimate_high``. Estimates add up
        to the estimate for all of these edges together, the effects that they estimate do not.
        """
        mean, low, high = mean_and_interval(self.estimate, self.predicted)
        table = edits_table([as_edits(text) for text in self.provenance.options["edits"]])
        return table.assign(estimate=mean, estimate_low=low, estimate_high=high)

    def _check_shapes(self, other: Result) -> None:
        """Nothing: results of one model have sequences of their own."""

    def _merged(self, other: Any) -> dict[str, np.ndarray]:
        names = arrays_of(self)
        return {n: np.concatenate([getattr(self, n), getattr(other, n)], axis=-1) for n in names}


def edge_attribution(
    model: HookedModel,
    batches: TokenBatches,
    progress: Progress | None = None,
    lock: AbstractContextManager[Any] = NO_LOCK,
) -> EdgeAttribution:
    """Estimate what cutting each edge does to the loss, from one backward pass per batch.

    No gradient is left on the model's parameters.

    Args:
        model: Any hooked model, in evaluation mode.
        batches: int64 token ids ``[batch pos]``, without padding.
        progress: See :data:`Progress`.
        lock: Held during each pass, as for :func:`sweep`.

    Raises:
        ValueError: As for :func:`layer_similarity`.
    """
    require_evaluation(model)
    edges, seen = every_edge(model), TokensSeen()
    estimates: list[Float64[np.ndarray, "edge batch"]] = []
    predicted: list[int] = []
    for tokens in checked(batches, model):
        with lock:
            estimates.append(_estimates(model, tokens, edges))
        predicted += [tokens.shape[1] - 1] * len(tokens)
        seen.add(tokens)
        if progress is not None:
            progress(seen.sequences, seen.tokens)
    if not estimates:
        raise ValueError(NO_BATCHES)
    options = {"edits": [str(edge) for edge in edges]}
    return EdgeAttribution(
        provenance=provenance(model, describe(batches), seen, options),
        streams=model.streams,
        estimate=np.concatenate(estimates, axis=1),
        predicted=np.array(predicted),
    )


def _estimates(
    model: HookedModel, tokens: Int64[Tensor, "batch pos"], edges: tuple[Edit, ...]
) -> Float64[np.ndarray, "edge batch"]:
    kept: dict[Aggregate, Tensor] = {}
    keys = dict.fromkeys(_key(edge) for edge in edges)
    hooks = [
        (model.weights_hook(*key) or aggregate_hook(model, *key), partial(keep, kept, key))
        for key in keys
    ]
    with torch.enable_grad(), model.hooks([*finite_hooks(model), *hooks]):
        loss = token_losses(model(tokens, return_type="logits"), tokens).sum()
        gradients = torch.autograd.grad(loss, [kept[key] for key in keys])
    products = {
        key: as_float64(-(gradient * kept[key].detach()).sum(1))
        for key, gradient in zip(keys, gradients, strict=True)
    }
    rows = [
        products[key].sum(-1) if model.weights_hook(*key) is None else products[key][:, edge.source]
        for edge in edges
        for key in [_key(edge)]
    ]
    return np.stack(rows)


def _key(edge: Edit) -> Aggregate:
    assert edge.layer is not None
    assert edge.stream is not None
    return edge.layer, edge.stream


def keep(
    kept: dict[Any, Tensor],
    key: Any,
    tensor: Float[Tensor, "batch pos _"],
    hook: Any,  # noqa: ARG001 (a hook's signature)
) -> Float[Tensor, "batch pos _"]:
    """A hook that keeps a tensor under a key, to take the gradient of what follows from it."""
    # Without gradients of its own (frozen parameters) the tensor is where they begin.
    kept[key] = tensor if tensor.requires_grad else tensor.detach().requires_grad_()
    return kept[key]
