"""The tokens with the largest loss differences of a corpus, kept while walking over it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

BEYOND = 8
"""How many tokens the context of a ranked token extends beyond it."""


@dataclass(frozen=True)
class RankedToken:
    """A token, what it cost two models, and where it was.

    Attributes:
        sequence: Number of its sequence in the corpus, from 0.
        position: Its position in the sequence, and in the context.
        loss: Of the model, in nats.
        baseline_loss: Of the baseline, in nats.
        context: The ids of the sequence, from its start to a little beyond the token.
    """

    sequence: int
    position: int
    loss: float
    baseline_loss: float
    context: tuple[int, ...]

    @property
    def difference(self) -> float:
        """Model minus baseline, in nats."""
        return self.loss - self.baseline_loss

    @property
    def token_id(self) -> int:
        """The token itself."""
        return self.context[self.position]


class Ranking:
    """The ``top`` tokens on which one of two models is better than the other by most.

    Args:
        sign: 1 ranks where the model is better (negative differences), -1 where the baseline is.
        top: How many to keep. Of equal differences the earlier token comes first.
        ranked: Tokens to begin with.
    """

    def __init__(self, sign: int, top: int, ranked: Iterable[RankedToken] = ()):
        self._sign, self._top = sign, top
        self.ranked: list[RankedToken] = []
        self.extend(token for token in ranked if sign * token.difference < 0)

    def extend(self, ranked: Iterable[RankedToken]) -> None:
        """Take in more tokens."""
        order = sorted([*self.ranked, *ranked], key=self._order)
        self.ranked = order[: self._top]

    def _order(self, token: RankedToken) -> tuple[float, int, int]:
        return self._sign * token.difference, token.sequence, token.position

    def add(
        self,
        losses: Float64[np.ndarray, "model batch predicted"],
        tokens: Int64[np.ndarray, "batch pos"],
        first: int,
    ) -> None:
        """Take in a batch.

        Args:
            losses: Of the model and of the baseline.
            tokens: The batch.
            first: Number of its first sequence.
        """
        signed = self._sign * (losses[0] - losses[1])
        worst = self._order(self.ranked[-1])[0] if len(self.ranked) == self._top else 0.0
        best = np.argsort(signed, axis=None, kind="stable")[: self._top]
        row, column = np.unravel_index(best[signed.flat[best] < worst], signed.shape)
        self.extend(
            RankedToken(
                sequence=first + int(i),
                position=int(j) + 1,
                loss=float(losses[0, i, j]),
                baseline_loss=float(losses[1, i, j]),
                context=tuple(tokens[i, : j + 2 + BEYOND].tolist()),
            )
            for i, j in zip(row, column, strict=True)
        )


def both_ways(top: int, ranked: Sequence[RankedToken] = ()) -> tuple[Ranking, Ranking]:
    """Where the model is better, and where the baseline is."""
    return Ranking(1, top, ranked), Ranking(-1, top, ranked)


def to_arrays(rankings: Iterable[Ranking]) -> dict[str, np.ndarray]:
    """Rankings as the arrays of a result; :func:`from_arrays` reads them back."""
    tokens = [token for ranking in rankings for token in ranking.ranked]
    places = [(token.sequence, token.position, len(token.context)) for token in tokens]
    losses = [(token.loss, token.baseline_loss) for token in tokens]
    context = [index for token in tokens for index in token.context]
    return {
        "ranked": np.array(places, dtype=np.int64).reshape(-1, 3),
        "ranked_loss": np.array(losses, dtype=np.float64).reshape(-1, 2),
        "context_ids": np.array(context, dtype=np.int64),
    }


def check_places(
    ranked: Int64[np.ndarray, "ranked place"], context_ids: Int64[np.ndarray, " context"]
) -> None:
    """Refuse arrays that :func:`to_arrays` would not have written.

    Raises:
        ValueError: If a token is not in its context, or the contexts are not as long as they say.
    """
    _, position, length = ranked.T
    if (position >= length).any() or sum(length.tolist()) != len(context_ids):
        raise ValueError("the ranked tokens and their contexts do not belong together.")


def from_arrays(
    ranked: Int64[np.ndarray, "ranked place"],
    ranked_loss: Float64[np.ndarray, "ranked model"],
    context_ids: Int64[np.ndarray, " context"],
) -> list[RankedToken]:
    """What :func:`to_arrays` wrote."""
    contexts = np.split(context_ids, ranked[:, 2].cumsum())[:-1]
    return [
        RankedToken(sequence, position, loss, baseline_loss, tuple(context.tolist()))
        for (sequence, position, _), (loss, baseline_loss), context in zip(
            ranked.tolist(), ranked_loss.tolist(), contexts, strict=True
        )
    ]
