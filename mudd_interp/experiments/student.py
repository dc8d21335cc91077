"""Student's t for whole degrees of freedom, in closed form (Abramowitz and Stegun 26.7.3-4)."""

import math


def t_two_sided(t: float, freedom: int) -> float:
    """The probability that |T| is at least ``|t|``, 0..1, with ``freedom`` degrees of freedom.

    Raises:
        ValueError: If ``freedom`` is below one.
    """
    if freedom < 1:
        raise ValueError(f"degrees of freedom must be 1 or more, got {freedom}.")
    angle = math.atan(abs(t) / math.sqrt(freedom))
    odd, cosine = freedom % 2, math.cos(angle)
    term, total = (cosine if odd else 1.0), 0.0
    for power in range(2 if odd else 1, freedom, 2):
        total += term
        term *= cosine**2 * power / (power + 1)
    inside = math.sin(angle) * total
    if odd:
        inside = 2 / math.pi * (angle + inside)
    return min(1.0, max(0.0, 1 - inside))


def t_quantile(probability: float, freedom: int) -> float:
    """The value below which T lies with a probability between one half and one.

    Raises:
        ValueError: If the probability is out of range, or ``freedom`` below one.
    """
    if not 0.5 <= probability < 1:
        raise ValueError(f"probability must lie in 0.5..1, got {probability}.")
    low, high = 0.0, 1.0
    while t_two_sided(high, freedom) > 2 * (1 - probability):
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        if t_two_sided(middle, freedom) > 2 * (1 - probability):
            low = middle
        else:
            high = middle
    return (low + high) / 2
