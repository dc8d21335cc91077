"""What wrote the query, the key and the value of one head: every component, and by which route."""

from collections.abc import Callable, Iterable, Iterator, Mapping
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

from mudd_interp import axes
from mudd_interp.analysis.base import Accumulator, Analysis, Tape
from mudd_interp.analysis.bootstrap import mean_and_interval
from mudd_interp.analysis.composition import (
    InputStream,
    check_head,
    reader_hooks,
    reading_directions,
)
from mudd_interp.analysis.finite import arrays_of
from mudd_interp.analysis.predictions import as_float64
from mudd_interp.analysis.provenance import Provenance
from mudd_interp.analysis.result import Result
from mudd_interp.analysis.sequence import Pass, run_pass, written_hooks
from mudd_interp.analysis.stream_decomposition import head_outputs
from mudd_interp.analysis.walk import NO_LOCK, Progress, walk
from mudd_interp.data import TokenBatches
from mudd_interp.protocol import CachedModel, HookedModel
from mudd_interp.schema import validated

INPUTS: tuple[InputStream, ...] = ("q", "k", "v")
VALUE_EMBED = "value_embed"


@dataclass(frozen=True, eq=False, kw_only=True)
class HeadInputs(Result):
    """Shares of all components in a head's query, key and value, by sequence.

    The share of a component is that of :class:`Composition`: ``c·x / x·x`` with ``x`` the query,
    key or value (before QK-norm and rotary, norm scale frozen), dimensionless, signed;
    all of them sum to one. Components are the embedding and, of each block below, its heads, the
    output bias of its attention, and its FFN; then, where the block has one, its value embedding,
    which adds to values; last comes what no component wrote, the biases of the head's norm and
    projection.

    Attributes:
        direct: Sum over tokens of the share that comes by the stream's own edge on the output of
            the component's block (of the embedding: on X_0).
        total: The same by all routes.
        tokens: Tokens of each sequence.
        error: How far the shares of a token are from one, at most, for each sequence.
    """

    needed: ClassVar[Mapping[str, Any]] = MappingProxyType({"layer": int, "head": int})

    lengths: ClassVar[Mapping[str, int]] = MappingProxyType({"input": len(INPUTS)})

    direct: Float64[np.ndarray, "input component sequence"]
    total: Float64[np.ndarray, "input component sequence"]
    tokens: Int64[np.ndarray, " sequence"]
    error: Float64[np.ndarray, " sequence"]

    def __post_init__(self) -> None:
        super().__post_init__()
        names: Any = self.provenance.options["components"]
        validated(list[str], names, "`components` of the options")
        per_block(self.layer, self.total.shape[1] - names.count(VALUE_EMBED))
        if len(names) != self.total.shape[1]:
            raise ValueError(f"{len(names)} names for {self.total.shape[1]} components.")

    @property
    def layer(self) -> int:
        """The layer of the head."""
        return self.provenance.options["layer"]

    @property
    def head(self) -> int:
        """The head."""
        return self.provenance.options["head"]

    @property
    def frame(self) -> pd.DataFrame:
        """A row for each input and component, in the order of depth; means over tokens.

        Columns ``stream``, ``component`` (``embed``, ``head 3.1``, ``attn_bias 3``, ``mlp 3``,
        ``value_embed``, ``constant``), ``direct``, ``chain`` (by later outputs), ``total``, and the
        ends of its 95% interval, ``total_low`` and ``total_high`` (bootstrap over sequences). In
        each row direct and chain sum to the total; the totals of one stream sum to one.
        """
        n_inputs, n_components, _ = self.total.shape
        rows = (n_inputs * n_components, len(self.tokens))
        direct = self.direct.reshape(rows).sum(1) / self.tokens.sum()
        total, low, high = mean_and_interval(self.total.reshape(rows), self.tokens)
        names = np.array(self.provenance.options["components"], dtype=object)
        return pd.DataFrame(
            {
                "stream": np.repeat(np.array(INPUTS, dtype=object), n_components),
                "component": np.tile(names, n_inputs),
                "direct": direct,
                "chain": total - direct,
                "total": total,
                "total_low": low,
                "total_high": high,
            }
        )

    @classmethod
    def completed(
        cls, options: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> Mapping[str, Any]:
        """Files of version 0.1 do not name the components: there are as many of each block."""
        if "components" in options:
            return options
        layer: int = options["layer"]
        n_heads = per_block(layer, arrays["total"].shape[1]) - 2  # attention's bias, and the FFN
        return {**options, "components": component_names(layer, n_heads)}

    def _check_shapes(self, other: Result) -> None:
        """Nothing: results of one model and head have sequences of their own."""

    def _merged(self, other: Any) -> dict[str, np.ndarray]:
        names = arrays_of(self)
        return {n: np.concatenate([getattr(self, n), getattr(other, n)], axis=-1) for n in names}


def per_block(layer: int, n_components: int) -> int:
    """How many components each block below a layer has, given how many there are in all.

    Raises:
        ValueError: If a head of that layer cannot read that many.
    """
    below = n_components - 2  # besides embedding and constant
    if layer < 0 or below < 0 or (below % layer if layer else below):
        raise ValueError(f"no head of layer {layer} reads {n_components} components.")
    return below // layer if layer else 0


def component_names(layer: int, n_heads: int, value_embed: bool = False) -> list[str]:
    """What can write the inputs of a head of a layer, in the order of depth."""
    names = ["embed"]
    for below in range(layer):
        names += [f"head {below}.{head}" for head in range(n_heads)]
        names += [f"attn_bias {below}", f"mlp {below}"]
    return [*names, *([VALUE_EMBED] if value_embed else []), "constant"]


@dataclass(frozen=True)
class HeadInputsAnalysis(Analysis[HeadInputs]):
    """Computes :class:`HeadInputs`.

    Attributes:
        layer: The layer of the head.
        head: The head; where several share keys and values, these are those that it uses.
    """

    name = "head_inputs"
    result = HeadInputs

    layer: int
    head: int

    def start(self, model: HookedModel) -> "HeadInputSums":
        """Empty sums for one model.

        Raises:
            ValueError: If there is no such head, or the model cannot be divided.
        """
        if not isinstance(model, CachedModel):
            raise ValueError(
                f"{model.info.name} cannot be divided among its components: give a "
                "HookedMUDDTransformer or a bridged model of load_model."
            )
        check_head(model, self.layer, self.head, "q")
        return HeadInputSums(model, self.layer, self.head)


class HeadInputSums(Accumulator[HeadInputs]):
    """The shares of each sequence, from a pass of its own."""

    shared = False

    def __init__(self, model: CachedModel, layer: int, head: int):
        self._model, self._layer, self._head = model, layer, head
        embeds = axes.value_embed(layer) in model.hook_dict
        names = component_names(layer, model.cfg.n_heads, embeds)
        self.options: Mapping[str, Any] = {"layer": layer, "head": head, "components": names}
        self._found: list[tuple[Float64[np.ndarray, "2 input component"], float]] = []
        self._lengths: list[int] = []

    def steps(self, tape: Tape) -> Iterable[Callable[[], object]]:
        """A pass for each sequence."""
        for row in tape.tokens:
            yield partial(self._add, row)

    def _add(self, row: Int64[Tensor, " pos"]) -> None:
        self._found.append(_shares_of(self._model, row, self._layer, self._head))
        self._lengths.append(len(row))

    def finish(self, provenance: Provenance) -> HeadInputs:
        """The result of all batches so far."""
        direct, total = np.stack([shares for shares, _ in self._found], axis=-1)
        return HeadInputs(
            provenance=provenance,
            streams=self._model.wiring.streams,
            direct=direct,
            total=total,
            tokens=np.array(self._lengths),
            error=np.array([error for _, error in self._found]),
        )


def head_inputs(
    model: CachedModel,
    batches: TokenBatches,
    layer: int,
    head: int,
    progress: Progress | None = None,
    lock: AbstractContextManager[Any] = NO_LOCK,
) -> HeadInputs:
    """Divide the query, key and value of a head among everything that wrote them, on a corpus.

    Args:
        model: Any hooked model, in evaluation mode.
        batches: int64 token ids ``[batch pos]``, without padding.
        layer: The layer of the head.
        head: The head; where several share keys and values, these are those that it uses.
        progress: See :data:`Progress`.
        lock: Held during each forward pass, as for :func:`sweep`.

    Raises:
        ValueError: As for :func:`layer_similarity`; also if there is no such head.
    """
    return walk(model, batches, [HeadInputsAnalysis(layer, head)], progress, lock)[0]


def _shares_of(
    model: CachedModel, row: Int64[Tensor, " pos"], layer: int, head: int
) -> tuple[Float64[np.ndarray, "2 input component"], float]:
    """The direct and the total shares of one sequence, summed over its tokens; and the error."""
    z = (axes.attn(below, "hook_z") for below in range(layer))
    names = {*written_hooks(model.wiring, layer), *z}
    for stream in INPUTS:
        names |= {axes.stream_input(layer, stream), *reader_hooks(model, layer, stream)}
    names.add(axes.value_embed(layer))
    found = run_pass(model, row, names, "", {})
    parts, wiring = list(_written(model, found, layer)), model.wiring
    sources = [wiring.source_of(write) for write in range(len(parts))]
    sums: list[Float64[np.ndarray, "2 component"]] = []
    errors: list[float] = []
    for stream in INPUTS:
        every = reading_directions(model, found, layer, stream)
        reader = head * len(every) // model.cfg.n_heads
        reads = every[reader]
        direct = found.weights(layer, stream)[:, sources]
        coefficients = found.cache.delta_coefficients(layer, stream)
        shares = [
            torch.cat(
                [
                    torch.einsum("pcd,pd->pc", part, factor[:, write] * reads)
                    for write, part in enumerate(parts)
                ],
                dim=1,
            )
            for factor in (direct, coefficients)
        ]
        whole = (found.cache[axes.stream_input(layer, stream)] * reads).sum(-1)
        errors.append(float((shares[1].sum(1) - whole).abs().max()))
        others = _others(found, layer, stream, reader, 1 - whole)
        both = [torch.cat([share, others], dim=1).double().sum(0) for share in shares]
        sums.append(as_float64(torch.stack(both)))
    return np.stack(sums, axis=1), max(errors)


def _others(
    found: Pass, layer: int, stream: InputStream, reader: int, left: Float[Tensor, " pos"]
) -> Float[Tensor, "pos component"]:
    """The share of a value embedding, if the block has one, and what is then left: of biases."""
    hook = axes.value_embed(layer)
    if hook not in found.cache:
        return left[:, None]
    share = torch.zeros_like(left)
    if stream == "v":
        value = found.cache[axes.attn(layer, "hook_v")][:, reader]
        share = (found.cache[hook][:, reader] * value).sum(-1) / value.square().sum(-1)
    return torch.stack([share, left - share], dim=1)


def _written(
    model: CachedModel, found: Pass, layer: int
) -> Iterator[Float[Tensor, "pos component d_model"]]:
    """The embedding; then of each block below the heads and the attention's bias, and the FFN."""
    yield found.cache[axes.EMBED][:, None]
    for block in range(layer):
        heads = head_outputs(model, found.cache[axes.attn(block, "hook_z")], block)
        bias = found.cache[axes.attn_out(block)] - heads.sum(1)
        yield torch.cat([heads, bias[:, None]], dim=1)
        yield found.cache[axes.mlp_out(block)][:, None]
