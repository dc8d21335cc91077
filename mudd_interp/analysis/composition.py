"""How much of a head's query, key or value an earlier head wrote, and by which route."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mudd_interp import axes
from mudd_interp.analysis.predictions import as_float64
from mudd_interp.analysis.sequence import Pass, SequenceResult, run_pass, written_hooks
from mudd_interp.analysis.stream_decomposition import head_outputs
from mudd_interp.protocol import CachedModel

Head = tuple[int, int]
"""A layer, and a head of it."""

InputStream = Literal["q", "k", "v"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Composition(SequenceResult):
    """The share of one head's query, key or value that an earlier head wrote, token by token.

    With ``x`` the head's query, key or value (before QK-norm and rotary, norm scale frozen) and
    ``c`` the earlier head's part of it, the share is ``c·x / x·x``: dimensionless, signed; over all
    components, and the biases, shares sum to one. ``direct`` is what the stream reads from the
    earlier block's output by its own dense edge, ``chain`` what reaches it in later outputs. In a
    plain Transformer only the block just below has such an edge.

    Attributes:
        from_head: The earlier head.
        to_head: The later one; of streams k and v the index of a key-value head.
        stream: Which of its inputs.
        direct: See above.
        chain: See above.
        constant: The share of the norm's bias and the projection's; of stream v that of a value
            embedding too, where there is one.
    """

    from_head: Head
    to_head: Head
    stream: InputStream
    direct: Float64[np.ndarray, " pos"]
    chain: Float64[np.ndarray, " pos"]
    constant: Float64[np.ndarray, " pos"]

    @property
    def total(self) -> Float64[np.ndarray, " pos"]:
        """Both routes together."""
        return self.direct + self.chain

    @property
    def frame(self) -> pd.DataFrame:
        """Columns ``position token_id token direct chain total``; direct + chain = total."""
        return pd.DataFrame(
            {
                "position": np.arange(len(self.tokens)),
                "token_id": self.token_ids,
                "token": np.array(self.tokens, dtype=object),
                "direct": self.direct,
                "chain": self.chain,
                "total": self.total,
            }
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class CompositionTable(SequenceResult):
    """:class:`Composition` of all pairs of heads, as means over the tokens of a sequence.

    Attributes:
        stream: Which input of the later head.
        direct: Share by the dense edge; NaN where the first head is not the earlier one.
        total: Share by all routes.
    """

    absent: ClassVar[tuple[str, ...]] = ("direct", "total")

    stream: InputStream
    direct: Float64[np.ndarray, "from_layer from_head to_layer to_head"]
    total: Float64[np.ndarray, "from_layer from_head to_layer to_head"]

    @property
    def frame(self) -> pd.DataFrame:
        """Columns ``from_layer from_head to_layer to_head direct chain total``, largest first.

        In each row direct and chain sum to the total. The totals into one later head are those of
        heads alone: they sum to one only with the shares of embedding, FFNs and biases, which
        ``head_inputs`` gives.
        """
        index = np.nonzero(~np.isnan(self.total))
        names = ("from_layer", "from_head", "to_layer", "to_head")
        direct, total = self.direct[index], self.total[index]
        table = pd.DataFrame(
            {
                **dict(zip(names, index, strict=True)),
                "direct": direct,
                "chain": total - direct,
                "total": total,
            }
        )
        order = (-table["total"].abs()).to_numpy().argsort(kind="stable")
        return table.iloc[order].reset_index(drop=True)


@torch.no_grad()
def composition(
    model: CachedModel,
    tokens: Any,
    from_head: Head,
    to_head: Head,
    stream: InputStream = "v",
    data: str = "the prompt",
) -> Composition:
    """How much of a head's query, key or value an earlier head wrote, at every token.

    Args:
        model: Any hooked model, in evaluation mode.
        tokens: int64 token ids ``[pos]`` or ``[1 pos]``.
        from_head: Layer and head of the earlier one.
        to_head: Layer and head of the later one; of streams k and v a key-value head.
        stream: Which of its inputs.
        data: What the sequence is, in words; it goes into the provenance.

    Raises:
        ValueError: If there is not one sequence of valid ids, no such pair of heads, or the model
            is in training mode.
    """
    (below, head), (layer, reader) = from_head, to_head
    _check_pair(model, from_head, to_head, stream)
    names = {
        axes.attn(below, "hook_z"),
        *written_hooks(model.wiring, layer),
        *reader_hooks(model, layer, stream),
        axes.stream_input(layer, stream),
    }
    options = {"from_head": list(from_head), "to_head": list(to_head), "stream": stream}
    found = run_pass(model, tokens, names, data, options)
    cache = found.cache
    written = head_outputs(model, cache[axes.attn(below, "hook_z")], below)[:, head]
    reads = reading_directions(model, found, layer, stream)[reader]
    wrote = 1 + 2 * below
    source = model.wiring.source_of(wrote)
    total = _share(written * cache.delta_coefficients(layer, stream)[:, wrote], reads)
    direct = _share(written * found.weights(layer, stream)[:, source], reads)
    parts = _share(cache.decompose_resid(layer, stream=stream).sum(0), reads)
    whole = _share(cache[axes.stream_input(layer, stream)], reads)
    return Composition(
        **found.labels,
        completeness_error=float(np.abs(parts - whole).max() / (np.abs(whole).max() or 1.0)),
        from_head=from_head,
        to_head=to_head,
        stream=stream,
        direct=direct,
        chain=total - direct,
        constant=1.0 - whole,
    )


@torch.no_grad()
def composition_table(
    model: CachedModel, tokens: Any, stream: InputStream = "v", data: str = "the prompt"
) -> CompositionTable:
    """:func:`composition` of every pair of heads of one stream, as means over the tokens.

    Args:
        model: Any hooked model, in evaluation mode.
        tokens: int64 token ids ``[pos]`` or ``[1 pos]``.
        stream: Which input of the later heads.
        data: What the sequence is, in words; it goes into the provenance.

    Raises:
        ValueError: If there is not one sequence of valid ids, or the model is in training mode.
    """
    n_layers: int = model.cfg.n_layers
    layers, heads = range(n_layers), model.cfg.n_heads
    readers = _n_readers(model, stream)
    names = set(written_hooks(model.wiring, n_layers))
    for layer in layers:
        names |= {axes.attn(layer, "hook_z"), axes.stream_input(layer, stream)}
        names |= set(reader_hooks(model, layer, stream))
    found = run_pass(model, tokens, names, data, {"stream": stream})
    cache = found.cache
    direct = np.full((n_layers, heads, n_layers, readers), np.nan)
    total, errors = direct.copy(), [0.0]
    for layer in layers[1:]:
        reads = reading_directions(model, found, layer, stream)
        weights = found.weights(layer, stream)
        coefficients = cache.delta_coefficients(layer, stream)
        for below in range(layer):
            written = head_outputs(model, cache[axes.attn(below, "hook_z")], below)
            wrote = 1 + 2 * below
            source = model.wiring.source_of(wrote)
            for table, factor in ((direct, weights[:, source]), (total, coefficients[:, wrote])):
                scaled = written * factor[:, None]
                share = torch.einsum("phd,rpd->hr", scaled, reads) / len(written)
                table[below, :, layer] = as_float64(share)
        parts = _share(cache.decompose_resid(layer, stream=stream).sum(0), reads)
        whole = _share(cache[axes.stream_input(layer, stream)], reads)
        errors.append(float(np.abs(parts - whole).max() / (np.abs(whole).max() or 1.0)))
    return CompositionTable(
        **found.labels,
        completeness_error=max(errors),
        stream=stream,
        direct=direct,
        total=total,
    )


def reading_directions(
    model: CachedModel, found: Pass, layer: int, stream: InputStream
) -> Float[Tensor, "reader pos d_model"]:
    """For each head the direction whose product with a part of the stream is the part's share.

    ``x W^T``, with the norm's gain and frozen scale before it, over ``x·x``.
    """
    weight = getattr(model.blocks[layer].attn, f"W_{stream.upper()}")
    x = found.cache[axes.attn(layer, f"hook_{stream}")]
    reads = torch.einsum("pre,rde->rpd", x, weight.to(x.dtype))
    reads = reads * model.norm_gain(layer, stream).to(x.dtype)
    reads = found.cache.apply_ln_to_stack(reads, layer, has_batch_dim=False, stream=stream)
    return reads / x.square().sum(-1).T[..., None]


def reader_hooks(model: CachedModel, layer: int, stream: InputStream) -> tuple[str, ...]:
    """The hooks on what a head projects, and on the scale of the norm that serves the stream."""
    norms = ("ln1", f"ln1_{stream}")
    scales = [axes.norm_scale(layer, norm) for norm in norms]
    one = layer == 0 or len(model.wiring.streams) == 1
    return (axes.attn(layer, f"hook_{stream}"), scales[0] if one else scales[1])


def _n_readers(model: CachedModel, stream: InputStream) -> int:
    return getattr(model.blocks[0].attn, f"W_{stream.upper()}").shape[0]


def check_head(model: CachedModel, layer: int, head: int, stream: InputStream) -> None:
    """Refuse a head that a model does not have; for streams k and v it is a key-value head.

    Raises:
        ValueError: With the heads that it has.
    """
    heads = _n_readers(model, stream)
    if not (0 <= layer < model.cfg.n_layers and 0 <= head < heads):
        raise ValueError(
            f"there is no head {head} in layer {layer} (stream {stream}): layers are "
            f"0..{model.cfg.n_layers - 1}, heads 0..{heads - 1}."
        )


def _check_pair(model: CachedModel, from_head: Head, to_head: Head, stream: InputStream) -> None:
    check_head(model, *from_head, "q")
    check_head(model, *to_head, stream)
    if from_head[0] >= to_head[0]:
        raise ValueError(
            f"a head of layer {from_head[0]} writes nothing that one of layer {to_head[0]} reads: "
            "the first must be in an earlier layer."
        )


def _share(
    part: Float[Tensor, "pos d_model"], reads: Float[Tensor, "*reader pos d_model"]
) -> Float64[np.ndarray, "*reader pos"]:
    return as_float64((part * reads).sum(-1))
