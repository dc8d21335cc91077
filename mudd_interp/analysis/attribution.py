"""What each edge would cost, to first order: all edges from one backward pass."""

from collections.abc import Callable, Iterable, Mapping
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
from mudd_interp.analysis.base import Accumulator, Analysis, Tape
from mudd_interp.analysis.bootstrap import mean_and_interval
from mudd_interp.analysis.edges import watch_sources
from mudd_interp.analysis.finite import arrays_of, finite_hooks
from mudd_interp.analysis.inputs import NEXT_TOKEN
from mudd_interp.analysis.predictions import as_float64, token_losses
from mudd_interp.analysis.provenance import Provenance
from mudd_interp.analysis.result import Result
from mudd_interp.analysis.walk import NO_LOCK, Progress, walk
from mudd_interp.data import TokenBatches
from mudd_interp.edits import as_edits, every_edge
from mudd_interp.protocol import Hook, HookedModel
from mudd_interp.wiring import Read


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


@dataclass(frozen=True)
class EdgeAttributionAnalysis(Analysis[EdgeAttribution]):
    """Computes :class:`EdgeAttribution`; it has no options."""

    name = "edge_attribution"
    result = EdgeAttribution
    requires = NEXT_TOKEN

    def start(self, model: HookedModel) -> "AttributionSums":
        """Empty sums for one model."""
        return AttributionSums(model)


class AttributionSums(Accumulator[EdgeAttribution]):
    """The estimates of each sequence, from a pass with gradients for each batch."""

    shared = False

    def __init__(self, model: HookedModel):
        self._model = model
        self.options: Mapping[str, Any] = {"edits": [str(edge) for edge in every_edge(model)]}
        self._estimates: list[Float64[np.ndarray, "edge batch"]] = []
        self._predicted: list[int] = []

    def steps(self, tape: Tape) -> Iterable[Callable[[], object]]:
        """The pass forward and backward."""
        yield partial(self._add, tape.tokens)

    def _add(self, tokens: Int64[Tensor, "batch pos"]) -> None:
        self._estimates.append(_estimates(self._model, tokens))
        self._predicted += [tokens.shape[1] - 1] * len(tokens)

    def finish(self, provenance: Provenance) -> EdgeAttribution:
        """The result of all batches so far."""
        return EdgeAttribution(
            provenance=provenance,
            streams=self._model.wiring.streams,
            estimate=np.concatenate(self._estimates, axis=1),
            predicted=np.array(self._predicted),
        )


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
    return walk(model, batches, [EdgeAttributionAnalysis()], progress, lock)[0]


def _estimates(
    model: HookedModel, tokens: Int64[Tensor, "batch pos"]
) -> Float64[np.ndarray, "edge batch"]:
    """In the order of :func:`every_edge`."""
    wiring, kept = model.wiring, dict[Read, Tensor]()
    rows = sorted(wiring.rows, key=lambda read: wiring.streams.index(read.stream))
    hooks = [(wiring.gate(read) or read.hook, partial(keep, kept, read)) for read in rows]
    terms = _Terms(model)
    with torch.enable_grad(), model.hooks([*finite_hooks(model), *hooks, *terms.hooks()]):
        loss = token_losses(model(tokens, return_type="logits"), tokens).sum()
        gradients = torch.autograd.grad(loss, [kept[read] for read in rows])
    estimates: list[Float64[np.ndarray, "edge batch"]] = []
    for read, gradient in zip(rows, gradients, strict=True):
        if wiring.weighed(read) and wiring.gate(read) is None:
            products = terms.along(read, gradient)
        else:
            products = gradient * kept[read].detach()
        edges = as_float64(-products.sum(1)).T
        estimates.append(edges if wiring.weighed(read) else edges.sum(0, keepdims=True))
    return np.concatenate(estimates)


class _Terms:
    """What edges without a tensor of weights carry: ``W_j write_j`` of composed weights."""

    def __init__(self, model: HookedModel):
        self._wiring = model.wiring
        self._composed = [
            read
            for read in self._wiring.rows
            if self._wiring.weighed(read) and self._wiring.gate(read) is None
        ]
        self._weights: dict[Read, Float[Tensor, "batch pos source"]] = {}
        self._sources: dict[int, Float[Tensor, "batch pos d_model"]] = {}

    def hooks(self) -> list[Hook]:
        """Looks at the weights and at what they multiply, where there are such edges."""
        if not self._composed:
            return []
        return [
            *self._wiring.watch_rows(self._weights.__setitem__),
            *watch_sources(self._wiring, lambda j, x: self._sources.__setitem__(j, x.detach())),
        ]

    def along(
        self, read: Read, gradient: Float[Tensor, "batch pos d_model"]
    ) -> Float[Tensor, "batch pos source"]:
        """The product of each edge's term with a gradient at the read."""
        products = [
            torch.linalg.vecdot(gradient, self._sources[j].to(gradient.dtype))
            for j in self._wiring.columns(read)
        ]
        return self._weights[read] * torch.stack(products, dim=-1)


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
