"""Names in a piece of Python text: how often each was used, how long ago, and how long it is."""

import re
from collections import Counter
from functools import lru_cache
from typing import NamedTuple

_NAME = re.compile(r"[^\W\d]\w*")


class Uses(NamedTuple):
    """The names of a text.

    Attributes:
        counts: How often each is there.
        last: Where the last use of each begins.
        order: All uses, in order: where each begins, and the name.
    """

    counts: Counter[str]
    last: dict[str, int]
    order: tuple[tuple[int, str], ...]


@lru_cache(maxsize=64)
def uses_of(text: str) -> Uses:
    """The names of a text; words of comments and strings, and Python's own, count as names."""
    order = tuple((found.start(), found.group()) for found in _NAME.finditer(text))
    return Uses(Counter(name for _, name in order), {name: at for at, name in order}, order)


def shortness(context: str, name: str) -> int:
    """Larger for a shorter name."""
    del context
    return -len(name)


def frequency(context: str, name: str) -> int:
    """How often a name is in the context."""
    return uses_of(context).counts[name]


def recency(context: str, name: str) -> int:
    """Where the name is for the last time; −1 if it is not there."""
    return uses_of(context).last.get(name, -1)


FEATURES = {"shortest name": shortness, "most frequent": frequency, "most recent": recency}
"""What a guess may go by instead of reading: the name of which this is largest."""


def credit(values: tuple[int, ...], of: int) -> float:
    """What taking the largest value is worth if ``of`` is right: 1 over the number of the largest.

    Args:
        values: One for each choice.
        of: Which choice is right.
    """
    largest = max(values)
    return (values[of] == largest) / values.count(largest)
