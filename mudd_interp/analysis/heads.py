"""How often an attention head attends to something other than a sink (paper, Fig. 8)."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from mudd_interp import axes
from mudd_interp.analysis.base import Accumulator, Analysis
from mudd_interp.analysis.inputs import PATTERNS
from mudd_interp.analysis.provenance import Provenance
from mudd_interp.analysis.result import Result
from mudd_interp.analysis.walk import Progress, walk
from mudd_interp.axes import Stream
from mudd_interp.data import TokenBatches
from mudd_interp.encoding import token_ids, token_text
from mudd_interp.ids import id_tensor
from mudd_interp.protocol import Front, Hook, HookedModel, Inputs, Trait

SINK_TEXTS = ("<bos>", "<|endoftext|>", ".", "\n")
"""What the default sink tokens read, exactly. The paper names ``<bos>``, ``.`` and ``\\n``;
``<|endoftext|>`` plays ``<bos>`` in Pythia. The paper does not say whether tokens that merely
contain a newline count: here they do not."""

HOLDS_NAN = "an attention pattern holds NaN: check the weights of the model."


@dataclass(frozen=True, eq=False, kw_only=True)
class HeadActivity(Result):
    """Share of tokens at which a head is active (Fig. 8): dimensionless, in 0..1.

    A head is active at a position if its largest attention weight, the first one on ties, falls
    neither on one of the first positions of the sequence nor on a sink token.

    Attributes:
        active_count: Number of tokens at which the head is active.
    """

    needed: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"sink_token_ids": list[int], "sink_texts": list[str] | None, "first_positions": int}
    )

    active_count: Int64[np.ndarray, "layer head"]

    @property
    def frame(self) -> pd.DataFrame:
        """Columns ``layer``, ``head`` and ``active``."""
        layer, head = np.indices(self.active_count.shape)
        active = self.active_count.ravel() / self.provenance.tokens
        return pd.DataFrame({"layer": layer.ravel(), "head": head.ravel(), "active": active})

    @property
    def layer_frame(self) -> pd.DataFrame:
        """Columns ``layer`` and ``active``, the mean over heads: the paper's activation ratio."""
        active = self.active_count.mean(axis=1) / self.provenance.tokens
        return pd.DataFrame({"layer": np.arange(len(active)), "active": active})

    def _merged(self, other: Any) -> dict[str, np.ndarray]:
        return {"active_count": self.active_count + other.active_count}


@dataclass(frozen=True)
class SinkTokens:
    """Which tokens are sinks; an option of every analysis that asks where attention goes.

    Attributes:
        sink_token_ids: The sink tokens; ``None`` means those that read one of ``SINK_TEXTS``.
    """

    sink_token_ids: Iterable[int] | Any = None

    def __post_init__(self) -> None:
        """Keep the sinks, as numbers: an iterator would be used up by the first model.

        Raises:
            ValueError: If they are not ids.
        """
        given = self.sink_token_ids
        if given is not None:
            ids = list(given) if isinstance(given, Iterator | Set) else given
            sinks = id_tensor(ids, "sink_token_ids").flatten().tolist()
            object.__setattr__(self, "sink_token_ids", tuple(sinks))

    def _required(self, positions: int) -> frozenset[Trait]:
        """What is required of a model, with so many first positions as sinks."""
        among: tuple[Trait, ...] = () if self.sink_token_ids == () else ("tokens",)
        first: tuple[Trait, ...] = ("causal",) if positions else ()
        return PATTERNS.union(among, first)

    def _sink_options(self, model: HookedModel) -> dict[str, Any]:
        """The sinks of one model: their ids, and their texts where known.

        Raises:
            ValueError: If a sink is outside the vocabulary, or there are none given and the model
                has no tokenizer to find them with.
        """
        tokenizer, d_vocab = model.tokenizer, model.cfg.d_vocab
        if self.sink_token_ids is None:
            ids = default_sinks(tokenizer, d_vocab)
        else:
            ids = sorted(set(self.sink_token_ids))
        outside = [token for token in ids if not 0 <= token < d_vocab]
        if outside:
            raise ValueError(
                f"sink token id {outside[0]} is outside the vocabulary of {d_vocab} "
                f"(ids 0 to {d_vocab - 1})."
            )
        known = tokenizer is not None and {*ids} <= {*token_ids(tokenizer, d_vocab)}
        texts = [token_text(tokenizer, token) for token in ids] if known else None
        return {"sink_token_ids": ids, "sink_texts": texts}


@dataclass(frozen=True)
class HeadActivityAnalysis(SinkTokens, Analysis[HeadActivity]):
    """Computes :class:`HeadActivity`.

    Attributes:
        first_positions: How many positions at the start of a sequence are sinks, whatever token is
            there: 2 in the paper.
    """

    name = "head_activity"
    result = HeadActivity

    first_positions: int = 2

    @property
    def required(self) -> frozenset[Trait]:
        """Tokens, for there to be sinks among them; first positions are sinks if all see them."""
        return self._required(self.first_positions)

    def start(self, model: HookedModel) -> "ActivitySums":
        """Empty sums for one model.

        Raises:
            ValueError: If a sink is outside the vocabulary, there are none given and the model
                has no tokenizer to find them with, or ``first_positions`` is negative.
        """
        if self.first_positions < 0:
            raise ValueError(f"first_positions must be 0 or more, got {self.first_positions}.")
        return ActivitySums(model, self._sink_options(model), self.first_positions)


class ActivitySums(Accumulator[HeadActivity]):
    """Counts of active tokens; each layer's pattern is counted when its hook fires."""

    def __init__(self, model: HookedModel, sinks: Mapping[str, Any], first_positions: int):
        self._streams: tuple[Stream, ...] = model.wiring.streams
        self._front = model.front
        self._counts = np.zeros((model.cfg.n_layers, model.cfg.n_heads), dtype=np.int64)
        self.options: Mapping[str, Any] = {**sinks, "first_positions": first_positions}
        self._sinks = torch.tensor(sinks["sink_token_ids"], dtype=torch.int64)
        self._first_positions = first_positions
        self._is_sink: Bool[Tensor, "batch pos"] = torch.zeros(0, 0, dtype=torch.bool)

    def hooks(self) -> list[Hook]:
        """A hook on each block's attention pattern: the slow path of attention."""
        return pattern_hooks(len(self._counts), self._see)

    def begin(self, tokens: Inputs) -> None:
        """Mark the keys that do not count as activity."""
        self._is_sink = sink_positions(self._front, tokens, self._sinks)
        self._is_sink[:, : self._first_positions] = True

    def _see(
        self,
        layer: int,
        pattern: Float[Tensor, "batch head query key"],
        hook: Any,  # noqa: ARG002 (a hook's signature)
    ) -> None:
        is_sink = self._is_sink.to(pattern.device)
        for heads, sinks in zip(pattern.detach(), is_sink, strict=True):
            self._counts[layer] += active_queries(heads, sinks).cpu().numpy()

    def finish(self, provenance: Provenance) -> HeadActivity:
        """The result of all batches so far."""
        return HeadActivity(
            provenance=provenance, streams=self._streams, active_count=self._counts.copy()
        )


def pattern_hooks(n_layers: int, see: Callable[[int, Tensor, Any], None]) -> list[Hook]:
    """A hook on the attention pattern of each block, called with the layer first."""
    return [(axes.pattern(layer), partial(see, layer)) for layer in range(n_layers)]


def sink_positions(
    front: Front, batch: Inputs, sinks: Int64[Tensor, " sink"]
) -> Bool[Tensor, "batch pos"]:
    """Where the sink tokens are; without sink tokens whatever is read has none."""
    if not len(sinks):
        shape = len(batch), front.positions(batch)
        return torch.zeros(shape, dtype=torch.bool, device=batch.device)
    return torch.isin(batch, sinks.to(batch.device))


def active_queries(
    pattern: Float[Tensor, "head query key"], is_sink: Bool[Tensor, " key"]
) -> Int64[Tensor, " head"]:
    """How many queries of each head have their largest weight on a key that is not a sink.

    The largest weights decide, and are found much faster than their keys; where a sink and another
    key tie, the first of them counts.

    Raises:
        ValueError: If a row holds NaN.
    """
    largest = pattern.amax(-1)
    if largest.isnan().any():
        raise ValueError(HOLDS_NAN)
    sinks = is_sink.nonzero().flatten()
    if not len(sinks):
        return torch.full_like(largest[:, 0], pattern.shape[1], dtype=torch.int64)
    active = largest > pattern[..., sinks].amax(-1)
    on_sink = (~active).nonzero(as_tuple=True)
    rows = pattern[on_sink]
    tied = rows.masked_fill(is_sink, -math.inf).amax(-1) == largest[on_sink]
    if tied.any():
        active[on_sink] = tied & ~is_sink[first_largest(rows)]
    return active.sum(-1)


def first_largest(pattern: Float[Tensor, "*row key"]) -> Int64[Tensor, "*row"]:
    """The key with the largest weight, the first one on ties, as ``torch.max`` promises.

    Raises:
        ValueError: If a row holds NaN.
    """
    largest, key = pattern.max(-1)
    if largest.isnan().any():
        raise ValueError(HOLDS_NAN)
    return key


def default_sinks(tokenizer: Any, d_vocab: int) -> list[int]:
    """The ids of the tokens that read exactly one of ``SINK_TEXTS``.

    Raises:
        ValueError: If there is no tokenizer.
    """
    if tokenizer is None:
        raise ValueError(
            "head activity needs to know the sink tokens, and this model has no tokenizer: pass "
            "sink_token_ids (an empty list for none)."
        )
    return [i for i in token_ids(tokenizer, d_vocab) if token_text(tokenizer, i) in SINK_TEXTS]


def head_activity(
    model: HookedModel,
    batches: TokenBatches,
    sink_token_ids: Iterable[int] | None = None,
    first_positions: int = HeadActivityAnalysis.first_positions,
    progress: Progress | None = None,
) -> HeadActivity:
    """Share of tokens at which each head attends to something other than a sink (paper, Fig. 8).

    Args:
        model: Any hooked model, in evaluation mode.
        batches: int64 token ids ``[batch pos]``, without padding: every position counts.
        sink_token_ids: The sink tokens; ``None`` means those that read ``<bos>``,
            ``<|endoftext|>``, ``.`` or a newline, exactly. An empty list is allowed.
        first_positions: How many positions at the start of a sequence are sinks.
        progress: See :data:`Progress`.

    Raises:
        ValueError: As :func:`layer_similarity`; also if a sink is outside the vocabulary, or none
            are given and the model has no tokenizer.
    """
    analysis = HeadActivityAnalysis(sink_token_ids, first_positions)
    return walk(model, batches, [analysis], progress)[0]
