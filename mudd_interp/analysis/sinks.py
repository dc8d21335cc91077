"""How much head activity depends on what counts as a sink (paper, Fig. 8)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from mudd_interp.analysis.base import Accumulator, Analysis
from mudd_interp.analysis.heads import SinkTokens, first_largest, pattern_hooks, sink_positions
from mudd_interp.analysis.provenance import Provenance
from mudd_interp.analysis.result import Result
from mudd_interp.analysis.walk import Progress, walk
from mudd_interp.axes import Stream
from mudd_interp.data import TokenBatches
from mudd_interp.protocol import Hook, HookedModel, Inputs, Trait


@dataclass(frozen=True, eq=False, kw_only=True)
class SinkSensitivity(Result):
    """Head activity (Fig. 8) under every sink rule: dimensionless, in 0..1.

    A rule says how many first positions are sinks, from 0 up, and whether sink tokens are. The
    paper's rule is two positions, with sink tokens: there the numbers are those of
    :class:`HeadActivity`.

    Attributes:
        active_count: Number of tokens at which the head is active; the first axis is without and
            with sink tokens, the second the number of first positions.
    """

    needed: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"sink_token_ids": list[int], "sink_texts": list[str] | None, "most_positions": int}
    )

    active_count: Int64[np.ndarray, "sink_tokens first_positions layer head"]

    @property
    def frame(self) -> pd.DataFrame:
        """Columns ``sink_tokens`` (bool), ``first_positions``, ``layer``, ``head``, ``active``."""
        sink_tokens, first_positions, layer, head = np.indices(self.active_count.shape)
        return pd.DataFrame(
            {
                "sink_tokens": sink_tokens.ravel().astype(bool),
                "first_positions": first_positions.ravel(),
                "layer": layer.ravel(),
                "head": head.ravel(),
                "active": self.active_count.ravel() / self.provenance.tokens,
            }
        )

    @property
    def mean_frame(self) -> pd.DataFrame:
        """Columns ``sink_tokens``, ``first_positions``, ``active``: the mean over all heads."""
        active = self.active_count.mean(axis=(2, 3)) / self.provenance.tokens
        sink_tokens, first_positions = np.indices(active.shape)
        return pd.DataFrame(
            {
                "sink_tokens": sink_tokens.ravel().astype(bool),
                "first_positions": first_positions.ravel(),
                "active": active.ravel(),
            }
        )

    def _merged(self, other: Any) -> dict[str, np.ndarray]:
        return {"active_count": self.active_count + other.active_count}


@dataclass(frozen=True)
class SinkSensitivityAnalysis(SinkTokens, Analysis[SinkSensitivity]):
    """Computes :class:`SinkSensitivity`.

    Attributes:
        most_positions: The largest number of first positions that is tried.
    """

    name = "sink_sensitivity"
    result = SinkSensitivity

    most_positions: int = 8

    @property
    def required(self) -> frozenset[Trait]:
        """Tokens, for there to be sinks among them; first positions are sinks if all see them."""
        return self._required(self.most_positions)

    def start(self, model: HookedModel) -> "SensitivitySums":
        """Empty sums for one model.

        Raises:
            ValueError: If a sink is outside the vocabulary, there are none given and the model
                has no tokenizer to find them with, or ``most_positions`` is negative.
        """
        if self.most_positions < 0:
            raise ValueError(f"most_positions must be 0 or more, got {self.most_positions}.")
        return SensitivitySums(model, self._sink_options(model), self.most_positions)


class SensitivitySums(Accumulator[SinkSensitivity]):
    """Counts of active tokens under every rule, from one look at each layer's pattern."""

    def __init__(self, model: HookedModel, sinks: Mapping[str, Any], most_positions: int):
        self._streams: tuple[Stream, ...] = model.wiring.streams
        self._front = model.front
        shape = (2, most_positions + 1, model.cfg.n_layers, model.cfg.n_heads)
        self._counts = np.zeros(shape, dtype=np.int64)
        self.options: Mapping[str, Any] = {**sinks, "most_positions": most_positions}
        self._sinks = torch.tensor(sinks["sink_token_ids"], dtype=torch.int64)
        self._is_sink: Bool[Tensor, "batch pos"] = torch.zeros(0, 0, dtype=torch.bool)

    def hooks(self) -> list[Hook]:
        """A hook on each block's attention pattern: the slow path of attention."""
        return pattern_hooks(self._counts.shape[2], self._see)

    def begin(self, tokens: Inputs) -> None:
        """Mark the sink tokens."""
        self._is_sink = sink_positions(self._front, tokens, self._sinks)

    def _see(
        self,
        layer: int,
        pattern: Float[Tensor, "batch head query key"],
        hook: Any,  # noqa: ARG002 (a hook's signature)
    ) -> None:
        is_sink = self._is_sink.to(pattern.device)
        for heads, sinks in zip(pattern.detach(), is_sink, strict=True):
            counts = active_by_rule(heads, sinks, self._counts.shape[1])
            self._counts[:, :, layer] += counts.cpu().numpy()

    def finish(self, provenance: Provenance) -> SinkSensitivity:
        """The result of all batches so far."""
        return SinkSensitivity(
            provenance=provenance, streams=self._streams, active_count=self._counts.copy()
        )


def active_by_rule(
    pattern: Float[Tensor, "head query key"], is_sink_token: Bool[Tensor, " key"], n_rules: int
) -> Int64[Tensor, "sink_tokens first_positions head"]:
    """How many queries of each head are active with ``0..n_rules-1`` first positions as sinks.

    The first axis is without and with sink tokens.
    """
    largest = first_largest(pattern)
    first_positions = torch.arange(n_rules, device=pattern.device).view(-1, 1, 1)
    beyond = largest >= first_positions
    return torch.stack([beyond, beyond & ~is_sink_token[largest]]).sum(-1)


def sink_sensitivity(
    model: HookedModel,
    batches: TokenBatches,
    sink_token_ids: Iterable[int] | None = None,
    most_positions: int = SinkSensitivityAnalysis.most_positions,
    progress: Progress | None = None,
) -> SinkSensitivity:
    """Head activity under every sink rule: 0..``most_positions`` first positions, twice.

    Args:
        model: Any hooked model, in evaluation mode.
        batches: int64 token ids ``[batch pos]``, without padding: every position counts.
        sink_token_ids: As for :func:`head_activity`; each rule is tried with and without them.
        most_positions: The largest number of first positions that is tried.
        progress: See :data:`Progress`.

    Raises:
        ValueError: As :func:`head_activity`.
    """
    analysis = SinkSensitivityAnalysis(sink_token_ids, most_positions)
    return walk(model, batches, [analysis], progress)[0]
