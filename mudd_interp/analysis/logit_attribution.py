"""What wrote a prediction: the direct contributions of components, heads and sources to a logit."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mudd_interp import axes
from mudd_interp.analysis.inputs import NEXT_TOKEN
from mudd_interp.analysis.predictions import as_float64
from mudd_interp.analysis.sequence import (
    Pass,
    SequenceResult,
    last_position,
    run_pass,
    stacked_divisions,
)
from mudd_interp.analysis.vocabulary import token_texts
from mudd_interp.axes import unknown_name
from mudd_interp.ids import id_tensor
from mudd_interp.protocol import DecomposableModel, require_traits

DIVISIONS = {
    "components": ("embed", "attn", "mlp", "constant"),
    "heads": ("embed", "head", "attn_bias", "mlp", "constant"),
    "sources": ("source", "constant"),
}
"""The ways in which a logit is divided, each with the kinds of its parts."""


@dataclass(frozen=True, eq=False, kw_only=True)
class LogitAttribution(SequenceResult):
    """Direct contributions to the logit of a token, or to a difference of two, at one position.

    In logits, signed. Each is a component's output times its total coefficient, through the final
    norm with its scale frozen. ``constant`` is what no component wrote: the biases of final norm
    and unembedding. Where logits have a softcap, all this is of the logit before it. What a value
    embedding brings is in the attention that moves it, and in its heads. Three divisions are exact,
    each with the constant: ``embed + attn + mlp``; the same with ``head + attn_bias`` for ``attn``;
    and ``source``, the X_j that the last aggregation reads, which contain one another. (Where
    sublayers read one by one, sources are what they wrote, and say the same as the first division.)

    Attributes:
        position: Whose prediction it is.
        answer_id: The token.
        answer: Its text.
        against: The token whose logit is subtracted, or ``None``.
        logit: The model's own, or its difference; before the softcap where there is one.
        constant: See above.
        embed: Of the embedding.
        attn: Of the attention of each layer.
        mlp: Of the FFN of each layer.
        heads: Of each head.
        attn_bias: Of the output bias of each layer's attention.
        sources: Of each X_j, by its weight in the last aggregation.
    """

    position: int
    answer_id: int
    answer: str
    against: str | None
    logit: float
    constant: float
    embed: float
    attn: Float64[np.ndarray, " layer"]
    mlp: Float64[np.ndarray, " layer"]
    heads: Float64[np.ndarray, "layer head"]
    attn_bias: Float64[np.ndarray, " layer"]
    sources: Float64[np.ndarray, " source"]

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self.attn)

    @property
    def components(self) -> pd.Series:
        """Embedding, attention and FFN of each layer in the order of depth, then the constant."""
        values = {"embed": self.embed}
        for layer in range(self.n_layers):
            values[f"attn {layer}"] = float(self.attn[layer])
            values[f"mlp {layer}"] = float(self.mlp[layer])
        return pd.Series({**values, "constant": self.constant})

    @property
    def frame(self) -> pd.DataFrame:
        """The finest division: columns ``kind``, ``layer``, ``head`` and ``contribution`` (logits).

        Kinds are ``embed head attn_bias mlp constant``; contributions sum to the logit. What a row
        does not have is missing.
        """
        return self.division("heads")

    @property
    def divisions(self) -> pd.DataFrame:
        """All :data:`DIVISIONS` stacked, named by a first column ``division``.

        The contributions of each division sum to the logit; the sum over the whole table means
        nothing.
        """
        return stacked_divisions({name: self.division(name) for name in DIVISIONS})

    def division(self, name: str) -> pd.DataFrame:
        """One division, with the columns of :attr:`frame`; its contributions sum to the logit.

        Args:
            name: ``components`` (kinds ``embed attn mlp constant``), ``heads`` or ``sources``
                (``source constant``; the layer of a source is its index j).

        Raises:
            ValueError: If there is no such division.
        """
        if name not in DIVISIONS:
            raise ValueError(unknown_name("division", name, DIVISIONS))
        return pd.concat([self._kind(kind) for kind in DIVISIONS[name]], ignore_index=True)

    def _kind(self, kind: str) -> pd.DataFrame:
        parts = {
            "embed": [self.embed],
            "attn": self.attn,
            "mlp": self.mlp,
            "head": self.heads.ravel(),
            "attn_bias": self.attn_bias,
            "source": self.sources,
            "constant": [self.constant],
        }
        layer, head = (index.ravel() for index in np.indices(self.heads.shape))
        whole, values = kind in ("embed", "constant"), parts[kind]
        layers = [pd.NA] if whole else layer if kind == "head" else np.arange(len(values))
        heads = head if kind == "head" else [pd.NA] * len(values)
        columns = {"kind": kind, "layer": layers, "head": heads, "contribution": values}
        return pd.DataFrame(columns).astype({"layer": "Int64", "head": "Int64"})


@torch.no_grad()
def direct_logit_attribution(
    model: DecomposableModel,
    tokens: Any,
    answer: Any = None,
    against: Any = None,
    position: int | None = None,
    data: str = "the prompt",
) -> LogitAttribution:
    """Divide a logit, or a difference of two, among what wrote it.

    Args:
        model: Any hooked model, in evaluation mode.
        tokens: Token ids ``[pos]`` or ``[1 pos]``.
        answer: The token in question, as text or id; ``None`` is the likeliest next one.
        against: A token whose logit is subtracted, as text or id.
        position: Whose prediction to look at; ``None`` is the last one.
        data: What the sequence is, in words; it goes into the provenance.

    Raises:
        ValueError: If there is not one sequence of valid ids, no such position or token, the model
            is in training mode, or its blocks are not the sum of attention and FFN.
        NotImplementedError: If a bridged model's logits are not linear in its normed final stream.
    """
    require_traits(model, "direct_logit_attribution", NEXT_TOKEN)
    n_layers, position = model.cfg.n_layers, last_position(model, tokens, position)
    answer, against = (
        token if token is None or isinstance(token, str) else token_id(model, token)
        for token in (answer, against)
    )
    options = {"answer": answer, "against": against, "position": position}
    if axes.PRE_SOFTCAP in model.hook_dict:
        options["softcap"] = True
    found = run_pass(model, tokens, _names(model), data, options, position, logits=True)
    cache, logits = found.cache, _at(found, position)
    target = int(logits.argmax()) if answer is None else token_id(model, answer)
    other = None if against is None else token_id(model, against)
    direction, constant = model.tokens_to_residual_directions(target), model.logit_constant(target)
    logit = logits[target]
    if other is not None:
        direction = direction - model.tokens_to_residual_directions(other)
        constant = constant - model.logit_constant(other)
        logit = logit - logits[other]

    def shares(normed: Float[Tensor, "..."]) -> Float64[np.ndarray, "..."]:
        """Behind the frozen norm; the result has no axis for the one position."""
        return as_float64((normed @ direction.to(normed.dtype))[:, 0])

    whole = shares(cache.decompose_resid(apply_ln=True))
    heads = shares(cache.stack_head_results(apply_ln=True)).reshape(n_layers, -1)
    sources = whole
    if "states" in model.traits:
        outputs = [cache[source.hook] for source in model.wiring.sources]
        weights = found.weights(n_layers).unbind(-2)
        reads = [x * weight for x, weight in zip(outputs, weights, strict=True)]
        sources = shares(cache.apply_ln_to_stack(torch.stack(reads), has_batch_dim=False))
    attn = whole[1::2]
    total = whole.sum() + float(constant)
    return LogitAttribution(
        **found.labels,
        completeness_error=abs(total - float(logit)) / (abs(float(logit)) or 1.0),
        position=position,
        answer_id=target,
        answer=_text(model, target),
        against=None if other is None else _text(model, other),
        logit=float(logit),
        constant=float(constant),
        embed=float(whole[0]),
        attn=attn.copy(),
        mlp=whole[2::2].copy(),
        heads=heads,
        attn_bias=attn - heads.sum(1),
        sources=sources.copy(),
    )


def _names(model: DecomposableModel) -> set[str]:
    wiring, layers = model.wiring, range(model.cfg.n_layers)
    return {
        *(write.hook for write in (*wiring.deltas, *wiring.sources)),
        *(axes.attn(layer, "hook_z") for layer in layers),
        *(str(read.norm_hook) for read in wiring.finals),
        axes.PRE_SOFTCAP,
    }


def _at(found: Pass, position: int) -> Float[Tensor, " d_vocab"]:
    """The logits at the one position that a pass has kept, before a softcap."""
    if axes.PRE_SOFTCAP in found.cache:
        return found.cache[axes.PRE_SOFTCAP][0]
    assert found.logits is not None
    return found.logits[position]


def token_id(model: DecomposableModel, token: Any) -> int:
    """The id of one token, given as text or id; an id may also be a NumPy number or a tensor.

    Raises:
        ValueError: If it is not.
    """
    if isinstance(token, str) and model.tokenizer is None:
        if not token.isdecimal():
            raise ValueError(f"the model has no tokenizer: give a token id, not {token!r}.")
        token = int(token)
    ids = id_tensor(model.to_single_token(token) if isinstance(token, str) else token)
    if ids.numel() != 1:
        raise ValueError(f"expected one token, got {ids.numel()} ids.")
    found = int(ids)
    if not 0 <= found < model.cfg.d_vocab:
        raise ValueError(f"token ids must lie in 0..{model.cfg.d_vocab - 1}, got {found}.")
    return found


def _text(model: DecomposableModel, token: int) -> str:
    return token_texts(model, torch.tensor([token]))[0]
