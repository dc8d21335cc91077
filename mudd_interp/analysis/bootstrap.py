"""Intervals of means over a corpus, by resampling its sequences."""

import numpy as np
from jaxtyping import Float64, Int64

DRAWS = 1000
"""How many times the corpus is resampled."""


def mean_and_interval(
    sums: Float64[np.ndarray, "row sequence"], counts: Int64[np.ndarray, " sequence"]
) -> Float64[np.ndarray, "3 row"]:
    """The mean of each row per counted thing, and the ends of its 95% bootstrap interval.

    Whole sequences are drawn, with replacement, the same ones for every row: so the interval of a
    difference of two models on the same sequences is that of paired observations. It assumes that
    sequences are independent, which pieces of one document are not. The draws are always the same.

    Args:
        sums: Of each sequence.
        counts: How many things (tokens) each sum is over.

    Returns:
        Mean, lower end and upper end; the ends are NaN where there is one sequence only,
        or nothing was counted.
    """
    n = len(counts)
    total = max(int(counts.sum()), 1)
    mean = sums.sum(1) / total
    if n < 2 or not counts.any():
        return np.stack([mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)])
    times = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=DRAWS)
    drawn = times @ counts
    means = (times[drawn > 0] @ sums.T) / drawn[drawn > 0, None]
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return np.stack([mean, low, high])
