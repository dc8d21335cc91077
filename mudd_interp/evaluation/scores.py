"""Scores of several runs on the same items, and how sure their differences are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from mudd_interp.analysis.bootstrap import mean_and_interval


@dataclass(frozen=True)
class Score:
    """A ratio of two sums over items, such as right answers per question or bits per byte.

    Attributes:
        value: The ratio.
        stderr: Its standard error, items taken for independent: of an accuracy the harness's own.
            NaN for one item.
        low: Lower end of the 95% interval: files are drawn anew where items are of files, else
            items. NaN where there is one of them only.
        high: Its upper end.
    """

    value: float
    stderr: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(Score):
    """One run minus another on the same items; the items, or files, are drawn for both at once.

    Attributes:
        only_first: Items that the first run has right and the second has not; for accuracies.
        only_second: The reverse.
    """

    only_first: int | None = None
    only_second: int | None = None


@dataclass(frozen=True)
class Answers:
    """What a run made of the items of a task.

    Attributes:
        sums: Of each item: 1 for a right answer, or the bits of a text.
        counts: What they are divided by: 1, or the bytes of the text.
    """

    sums: Float64[np.ndarray, " item"]
    counts: Float64[np.ndarray, " item"]

    @property
    def are_right_or_wrong(self) -> bool:
        """Whether each item is right or wrong and nothing between."""
        return bool(np.isin(self.sums, (0.0, 1.0)).all() and (self.counts == 1.0).all())


def score(answers: Answers, groups: Sequence[str]) -> Score:
    """The score of a run.

    Args:
        answers: Of the run.
        groups: What each item is from, such as its file: items of one are drawn together.
    """
    return Score(*_estimate(answers.sums, answers.counts, groups))


def difference(first: Answers, second: Answers, groups: Sequence[str]) -> Difference:
    """One run minus another.

    Raises:
        ValueError: If they are not of the same items.
    """
    if not np.array_equal(first.counts, second.counts):
        raise ValueError(
            f"expected both runs on the same items, got {len(first.counts)} and "
            f"{len(second.counts)}, or items of other lengths: use one task for both."
        )
    found = _estimate(first.sums - second.sums, first.counts, groups)
    if not (first.are_right_or_wrong and second.are_right_or_wrong):
        return Difference(*found)
    more = first.sums - second.sums
    return Difference(*found, int((more > 0).sum()), int((more < 0).sum()))


def _estimate(
    sums: Float64[np.ndarray, " item"],
    counts: Float64[np.ndarray, " item"],
    groups: Sequence[str],
) -> tuple[float, float, float, float]:
    """The ratio of the sums, its standard error and its interval."""
    n, total = len(sums), counts.sum()
    value = sums.sum() / total
    # Of a ratio, to first order in what is left over; of a mean, the usual one.
    left = ((sums - value * counts) ** 2).sum()
    stderr = np.sqrt(left * n / (n - 1)) / total if n > 1 else np.nan
    names, index = np.unique(np.array(groups), return_inverse=True)
    of_group = np.bincount(index, sums, len(names))[None]
    counted = np.bincount(index, counts, len(names)).astype(np.int64)
    _, low, high = mean_and_interval(of_group, counted)[:, 0]
    return float(value), float(stderr), float(low), float(high)


def by_rule(credits: Mapping[str, Sequence[float]], groups: Sequence[str]) -> dict[str, Score]:
    """The score of each trivial rule, by what its guesses are worth on the items."""
    return {
        rule: score(Answers(np.array(worth, dtype=np.float64), np.ones(len(worth))), groups)
        for rule, worth in credits.items()
    }
