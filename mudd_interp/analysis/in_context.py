"""How the loss falls along a sequence: what a model gains from more context."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64, Int64

from mudd_interp.analysis.bootstrap import mean_and_interval
from mudd_interp.analysis.finite import finite_hooks
from mudd_interp.analysis.inputs import checked, require_evaluation
from mudd_interp.analysis.predictions import as_float64, token_losses
from mudd_interp.analysis.provenance import TokensSeen, provenance
from mudd_interp.analysis.result import Result
from mudd_interp.analysis.sweep import NO_BATCHES, NO_LOCK, Progress
from mudd_interp.data import TokenBatches, describe
from mudd_interp.protocol import HookedModel


@dataclass(frozen=True, eq=False, kw_only=True)
class InContextLoss(Result):
    """The loss of each position, and how much lower it is late in a sequence than early.

    Attributes:
        loss_sum: Sum of −log p over sequences, in nats, by the position of the predicted token.
        count: How many sequences predict a token there; 0 at position 0.
        gain: Of each sequence that is long enough: mean loss around the early position minus mean
            loss around the late one, in nats; positive where more context helped.
    """

    loss_sum: Float64[np.ndarray, " pos"]
    count: Int64[np.ndarray, " pos"]
    gain: Float64[np.ndarray, " long"]

    @property
    def frame(self) -> pd.DataFrame:
        """Columns ``position``, ``loss`` (mean, nats) and ``sequences``.

        The mean of the losses, weighted by the sequences, is the model's loss.
        """
        position = np.flatnonzero(self.count)
        return pd.DataFrame(
            {
                "position": position,
                "loss": self.loss_sum[position] / self.count[position],
                "sequences": self.count[position],
            }
        )

    @property
    def score(self) -> tuple[float, float, float]:
        """Mean gain, in nats, and the ends of its 95% bootstrap interval; NaN without a gain."""
        if not self.gain.size:
            return np.nan, np.nan, np.nan
        found = mean_and_interval(self.gain[None], np.ones(self.gain.size, dtype=np.int64))
        mean, low, high = found[:, 0].tolist()
        return mean, low, high

    def _check_shapes(self, other: Result) -> None:
        """Nothing: there are as many gains as there were long sequences."""

    def _merged(self, other: Any) -> dict[str, np.ndarray]:
        return {
            "loss_sum": self.loss_sum + other.loss_sum,
            "count": self.count + other.count,
            "gain": np.concatenate([self.gain, other.gain]),
        }


def in_context_loss(
    model: HookedModel,
    batches: TokenBatches,
    early: int = 50,
    late: int = 200,
    reach: int = 10,
    progress: Progress | None = None,
    lock: AbstractContextManager[Any] = NO_LOCK,
) -> InContextLoss:
    """Loss by position, and early loss minus late loss.

    (Olsson et al. 2022, arXiv 2209.11895, subtract the loss of token 50 from that of token 500;
    here the sign is the other way about, so that more is better, and each is a mean over the
    positions around it.)

    Args:
        model: Any hooked model, in evaluation mode.
        batches: int64 token ids ``[batch pos]``, without padding.
        early: The early position.
        late: The late position.
        reach: How many positions to either side are averaged over.
        progress: See :data:`Progress`.
        lock: Held during each forward pass, as for :func:`sweep`.

    Raises:
        ValueError: As for :func:`layer_similarity`; also if the two stretches overlap, or the early
            one begins before the second token.
    """
    require_evaluation(model)
    if reach < 0 or early - reach < 1 or early + reach >= late - reach:
        raise ValueError(
            f"expected 1 <= early - reach and early + reach < late - reach, got early {early}, "
            f"late {late}, reach {reach}."
        )
    loss_sum, count = np.zeros(model.cfg.n_ctx), np.zeros(model.cfg.n_ctx, dtype=np.int64)
    gains, seen = [np.zeros(0)], TokensSeen()
    for tokens in checked(batches, model):
        with lock, torch.no_grad(), model.hooks(finite_hooks(model)):
            losses = as_float64(token_losses(model(tokens, return_type="logits"), tokens))
        length = tokens.shape[1]
        loss_sum[1:length] += losses.sum(0)
        count[1:length] += len(losses)
        if length > late + reach:
            around = [
                losses[:, at - reach - 1 : at + reach].mean(1) for at in (early, late)
            ]  # the first loss is that of position 1
            gains.append(around[0] - around[1])
        seen.add(tokens)
        if progress is not None:
            progress(seen.sequences, seen.tokens)
    if not seen.tokens:
        raise ValueError(NO_BATCHES)
    options = {"early": early, "late": late, "reach": reach}
    return InContextLoss(
        provenance=provenance(model, describe(batches), seen, options),
        streams=model.streams,
        loss_sum=loss_sum,
        count=count,
        gain=np.concatenate(gains),
    )
