"""How the loss falls along a sequence: what a model gains from more context."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import reduce
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64

from mudd_interp.analysis.base import Accumulator, Analysis, Tape
from mudd_interp.analysis.bootstrap import mean_and_interval
from mudd_interp.analysis.inputs import NEXT_TOKEN
from mudd_interp.analysis.provenance import Provenance
from mudd_interp.analysis.result import Places, Result
from mudd_interp.analysis.walk import NO_LOCK, Progress, walk
from mudd_interp.data import TokenBatches
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

    needed: ClassVar[Mapping[str, Any]] = MappingProxyType({"late": int, "reach": int})

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

    @classmethod
    def joined(cls, shares: Sequence[Any], places: Sequence[Places]) -> "InContextLoss":
        """See :meth:`Result.joined`; each long sequence has a gain."""
        whole = reduce(lambda a, b: a.merge(b), shares)
        options = whole.provenance.options
        is_long = np.concatenate([each.length for each in places]) > (
            options["late"] + options["reach"]
        )
        order = np.concatenate([each.number for each in places])[is_long].argsort()
        return replace(whole, gain=whole.gain[order])

    def _check_shapes(self, other: Result) -> None:
        """Nothing: there are as many gains as there were long sequences."""

    def _merged(self, other: Any) -> dict[str, np.ndarray]:
        return {
            "loss_sum": self.loss_sum + other.loss_sum,
            "count": self.count + other.count,
            "gain": np.concatenate([self.gain, other.gain]),
        }


@dataclass(frozen=True)
class InContextLossAnalysis(Analysis[InContextLoss]):
    """Computes :class:`InContextLoss`.

    Attributes:
        early: The early position.
        late: The late position.
        reach: How many positions to either side are averaged over.

    Raises:
        ValueError: If the two stretches overlap, or the early one begins before the second token.
    """

    name = "in_context_loss"
    result = InContextLoss
    requires = NEXT_TOKEN

    early: int = 50
    late: int = 200
    reach: int = 10

    def __post_init__(self) -> None:
        early, late, reach = self.early, self.late, self.reach
        if reach < 0 or early - reach < 1 or early + reach >= late - reach:
            raise ValueError(
                "expected 1 <= early - reach and early + reach < late - reach, got early "
                f"{early}, late {late}, reach {reach}."
            )

    def start(self, model: HookedModel) -> "InContextSums":
        """Empty sums for one model."""
        return InContextSums(model, self)


class InContextSums(Accumulator[InContextLoss]):
    """Sums of losses by position, and the gain of each long sequence."""

    logits = True

    def __init__(self, model: HookedModel, how: InContextLossAnalysis):
        self.options: Mapping[str, Any] = asdict(how)
        self._how, self._streams = how, model.wiring.streams
        self._loss_sum = np.zeros(model.cfg.n_ctx)
        self._count = np.zeros(model.cfg.n_ctx, dtype=np.int64)
        self._gains = [np.zeros(0)]

    def see(self, tape: Tape) -> None:
        """Add the losses of a batch."""
        losses, length, how = tape.losses, tape.tokens.shape[1], self._how
        self._loss_sum[1:length] += losses.sum(0)
        self._count[1:length] += len(losses)
        if length > how.late + how.reach:
            around = [
                losses[:, at - how.reach - 1 : at + how.reach].mean(1)
                for at in (how.early, how.late)
            ]  # the first loss is that of position 1
            self._gains.append(around[0] - around[1])

    def finish(self, provenance: Provenance) -> InContextLoss:
        """The result of all batches so far."""
        return InContextLoss(
            provenance=provenance,
            streams=self._streams,
            loss_sum=self._loss_sum.copy(),
            count=self._count.copy(),
            gain=np.concatenate(self._gains),
        )


def in_context_loss(
    model: HookedModel,
    batches: TokenBatches,
    early: int = InContextLossAnalysis.early,
    late: int = InContextLossAnalysis.late,
    reach: int = InContextLossAnalysis.reach,
    progress: Progress | None = None,
    lock: AbstractContextManager[Any] = NO_LOCK,
) -> InContextLoss:
    """Loss by position, and early loss minus late loss.

    (Olsson et al. 2022, arXiv 2209.11895, subtract the loss of token 50 from that of token 500;
    here the sign is reversed, so that more is better, and each is a mean over the positions around
    it.)

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
    analysis = InContextLossAnalysis(early, late, reach)
    return walk(model, batches, [analysis], progress, lock)[0]
