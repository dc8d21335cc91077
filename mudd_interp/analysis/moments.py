"""Mean and variance in one pass, without cancellation."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean, and sum of squared differences from the mean, element by element, in float64.

    Two of them merge by Chan's rule, which loses no digits where the mean is large compared with
    the spread (sums of squares do).

    Attributes:
        count: Number of observations.
        mean: Their mean.
        m2: Sum of squared differences from the mean.
    """

    count: int
    mean: Float64[np.ndarray, "*shape"]
    m2: Float64[np.ndarray, "*shape"]

    @classmethod
    def empty(cls, size: int) -> "Moments":
        """No observation yet."""
        return cls(0, np.zeros(size), np.zeros(size))

    @classmethod
    def of(cls, values: Float64[np.ndarray, "observation size"]) -> "Moments":
        """The moments of at least one observation."""
        with np.errstate(invalid="ignore"):  # infinity is reported with the block's output
            mean = values.mean(axis=0)
            return cls(len(values), mean, np.square(values - mean).sum(axis=0))

    def merge(self, other: "Moments") -> "Moments":
        """The moments of both sets of observations; at least one of them is not empty."""
        count = self.count + other.count
        with np.errstate(invalid="ignore"):  # as above
            delta = other.mean - self.mean
            mean = self.mean + delta * (other.count / count)
            spread = np.square(delta) * (self.count * other.count / count)
            return Moments(count, mean, self.m2 + other.m2 + spread)


def merged_moments(result: Any, other: Any) -> dict[str, np.ndarray]:
    """``mean`` and ``m2`` of two results together, which have these over the tokens of each."""
    mine, theirs = (Moments(r.provenance.tokens, r.mean, r.m2) for r in (result, other))
    both = mine.merge(theirs)
    return {"mean": both.mean, "m2": both.m2}
