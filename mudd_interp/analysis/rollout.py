"""Attention rollout, for what it is worth: it assumes a plain residual."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64

from mudd_interp import axes
from mudd_interp.analysis.predictions import as_float64
from mudd_interp.analysis.result import OneSequence
from mudd_interp.analysis.sequence import run_pass
from mudd_interp.protocol import CachedModel


@dataclass(frozen=True, eq=False, kw_only=True)
class AttentionRollout(OneSequence):
    """Attention followed through all layers (Abnar and Zuidema 2020), at one sequence or image.

    ``R = Π_l (½ Ā_l + ½ I)``, later layers on the left, with ``Ā_l`` the mean of a layer's patterns
    over heads: rows sum to one, numbers lie in 0..1. Half of what each layer passes on is taken for
    its own input, once: that is a plain residual. With dense connections a layer passes on whatever
    the weights say of all earlier outputs, so rollout is not about such a model; path coefficients
    are exact.

    Attributes:
        rollout: How much each position at the end is taken to be of each position at the start.
    """

    rollout: Float64[np.ndarray, "query key"]

    @property
    def mean_row(self) -> Float64[np.ndarray, " key"]:
        """The mean over queries, which is what a model with mean pooling reads; it sums to one."""
        return self.rollout.mean(0)

    @property
    def frame(self) -> pd.DataFrame:
        """Columns ``position`` and ``rollout``, the mean row."""
        return pd.DataFrame({"position": np.arange(len(self.tokens)), "rollout": self.mean_row})


@torch.no_grad()
def attention_rollout(
    model: CachedModel, tokens: Any, data: str = "the prompt"
) -> AttentionRollout:
    """Multiply the mean patterns of all layers, each with half an identity.

    Args:
        model: Any hooked model, in evaluation mode.
        tokens: One image, or token ids ``[pos]`` or ``[1 pos]``.
        data: What it is, in words; it goes into the provenance.

    Raises:
        ValueError: If there is not one input, or the model is in training mode.
    """
    patterns = [axes.pattern(layer) for layer in range(model.cfg.n_layers)]
    found = run_pass(model, tokens, patterns, data, {})
    rollout = np.eye(len(found.labels["tokens"]))
    for name in patterns:
        mean = as_float64(found.cache[name].double().mean(0))
        rollout = (mean @ rollout + rollout) / 2
    return AttentionRollout(**found.labels, rollout=rollout)
