"""What a stream is made of: the share and size of every component, at each token."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mudd_interp import axes
from mudd_interp.analysis.inputs import check_position
from mudd_interp.analysis.norms import l2_norms
from mudd_interp.analysis.predictions import as_float64
from mudd_interp.analysis.sequence import (
    SequenceResult,
    relative_error,
    run_pass,
    stacked_divisions,
    written_hooks,
)
from mudd_interp.axes import Stream
from mudd_interp.protocol import CachedModel


@dataclass(frozen=True, eq=False, kw_only=True)
class StreamDecomposition(SequenceResult):
    """A stream as it enters a block, before norms, divided among what wrote it.

    A component's ``share`` is how much of the stream, along the stream's own direction, it
    contributes, ``c·S / S·S``: dimensionless, signed, and the shares of embedding, attention and
    FFN layers sum to one at each token (heads and ``attn_bias`` to those of attention). ``norm`` is
    ‖c‖₂, in units of the stream; norms do not add up.

    Attributes:
        layer: The block that reads the stream; n_layers is the final norm.
        stream: Which of its inputs.
        components: ``embed``, ``attn 0``, ``mlp 0``, ... in the order of depth.
        share: See above.
        norm: See above.
        head_share: The same of each head.
        head_norm: The same of each head.
        stream_norm: ‖S‖₂.
    """

    layer: int
    stream: Stream
    components: tuple[str, ...]
    share: Float64[np.ndarray, "component pos"]
    norm: Float64[np.ndarray, "component pos"]
    head_share: Float64[np.ndarray, "layer head pos"]
    head_norm: Float64[np.ndarray, "layer head pos"]
    stream_norm: Float64[np.ndarray, " pos"]

    def frame_at(self, position: int) -> pd.DataFrame:
        """The components at one token; their shares sum to one.

        Columns ``kind`` (embed, attn, mlp), ``layer``, ``head`` (missing), ``share`` and ``norm``.

        Raises:
            ValueError: If the sequence has no such position.
        """
        check_position(position, len(self.tokens))
        kinds = [name.split() for name in self.components]
        return pd.DataFrame(
            {
                "kind": [each[0] for each in kinds],
                "layer": pd.array([int(each[1]) if each[1:] else pd.NA for each in kinds], "Int64"),
                "head": pd.array([pd.NA] * len(kinds), "Int64"),
                "share": self.share[:, position],
                "norm": self.norm[:, position],
            }
        )

    def heads_at(self, position: int) -> pd.DataFrame:
        """The same with ``head`` and ``attn_bias`` for ``attn``; shares sum to one here too.

        The bias has no norm of its own here: it is missing.

        Raises:
            ValueError: If the sequence has no such position.
        """
        whole: Any = self.frame_at(position)
        layer, head = (index.ravel() for index in np.indices(self.head_share.shape[:2]))
        heads = _rows(
            "head",
            layer,
            head,
            self.head_share[..., position].ravel(),
            self.head_norm[..., position].ravel(),
        )
        attn = whole[whole["kind"] == "attn"]
        bias = attn["share"].to_numpy() - self.head_share[..., position].sum(1)
        nothing = [pd.NA] * len(bias)
        biases = _rows("attn_bias", attn["layer"].array, nothing, bias, np.full(len(bias), np.nan))
        # Without layers there are no heads, and an empty table would have no column types.
        parts = [heads, biases] if len(heads) else []
        rest = whole["kind"] == "mlp"
        return pd.concat([whole[whole["kind"] == "embed"], *parts, whole[rest]], ignore_index=True)

    def divisions_at(self, position: int) -> pd.DataFrame:
        """Both divisions stacked, named by a first column ``division``.

        They are ``components`` (:meth:`frame_at`) and ``heads`` (:meth:`heads_at`); the shares of
        each sum to one.

        Raises:
            ValueError: If the sequence has no such position.
        """
        return stacked_divisions(
            {"components": self.frame_at(position), "heads": self.heads_at(position)}
        )


def _rows(kind: str, layer: Any, head: Any, share: Any, norm: Any) -> pd.DataFrame:
    columns = {"kind": kind, "layer": pd.array(layer, "Int64"), "head": pd.array(head, "Int64")}
    return pd.DataFrame({**columns, "share": share, "norm": norm})


@torch.no_grad()
def stream_decomposition(
    model: CachedModel,
    tokens: Any,
    layer: int | None = None,
    stream: Stream = "r",
    data: str = "the prompt",
) -> StreamDecomposition:
    """Divide one stream among what wrote it, at every token of one sequence.

    Args:
        model: Any hooked model, in evaluation mode.
        tokens: int64 token ids ``[pos]`` or ``[1 pos]``.
        layer: The block that reads the stream; ``None`` or n_layers is the final norm.
        stream: Which of its inputs; the final norm reads r only.
        data: What the sequence is, in words; it goes into the provenance.

    Raises:
        ValueError: If there is not one sequence of valid ids, no such stream, the model is in
            training mode, its blocks are not the sum of attention and FFN, or it is the final
            stream of a head that norms several.
    """
    n_layers: int = model.cfg.n_layers
    layer = n_layers if layer is None else layer
    if not 0 <= layer <= n_layers:
        raise ValueError(f"layer must lie in 0..{n_layers} (the final norm), got {layer}.")
    z = [axes.attn(below, "hook_z") for below in range(layer)]
    hook = model.wiring.read(layer, stream).hook
    names = {*written_hooks(model.wiring, layer), *z, hook}
    found = run_pass(model, tokens, names, data, {"layer": layer, "stream": stream})
    total, whole = found.cache.delta_coefficients(layer, stream), found.cache[hook]
    coefficients = total.unbind(-2)
    parts, labels = [found.cache[axes.EMBED] * coefficients[0]], ["embed"]
    for below in range(layer):
        for kind, name in (("attn", axes.attn_out(below)), ("mlp", axes.mlp_out(below))):
            parts.append(found.cache[name] * coefficients[len(parts)])
            labels.append(f"{kind} {below}")
    shape = (layer, model.cfg.n_heads, len(whole))
    head_share, head_norm = np.zeros(shape), np.zeros(shape)
    for below in range(layer):  # one layer's heads at a time: all at once would be many vectors
        heads = head_outputs(model, found.cache[z[below]], below)
        weighted = (heads * coefficients[1 + 2 * below][:, None]).transpose(0, 1)
        head_share[below], head_norm[below] = (
            _shares(weighted, whole),
            as_float64(l2_norms(weighted)),
        )
    return StreamDecomposition(
        **found.labels,
        completeness_error=relative_error(torch.stack(parts).sum(0), whole),
        layer=layer,
        stream=stream,
        components=tuple(labels),
        share=np.stack([_shares(part, whole) for part in parts]),
        norm=np.stack([as_float64(l2_norms(part)) for part in parts]),
        head_share=head_share,
        head_norm=head_norm,
        stream_norm=as_float64(l2_norms(whole)),
    )


def head_outputs(
    model: CachedModel, z: Float[Tensor, "pos head d_head"], layer: int
) -> Float[Tensor, "pos head d_model"]:
    """What each head of a layer wrote."""
    return torch.einsum("phe,hed->phd", z, model.blocks[layer].attn.W_O.to(z.dtype))


def _shares(
    part: Float[Tensor, "*heads pos d_model"], whole: Float[Tensor, "pos d_model"]
) -> Float64[np.ndarray, "*heads pos"]:
    return as_float64((part * whole).sum(-1) / whole.square().sum(-1))
