"""Trivial rules: what a task gives to who does not read. They stand beside the models as controls.

A rule says how many of its best guesses there are and whether the right one is among them: with
``k`` guesses between which it cannot choose, a right one counts 1/k.
"""

from collections.abc import Callable
from itertools import pairwise

from mudd_interp.evaluation.items import Item
from mudd_interp.evaluation.names import FEATURES, credit, uses_of

Rule = Callable[[Item], float]
"""What a guess is worth on an item, 0 to 1."""

BRACKETS = {"(": ")", "[": "]", "{": "}"}


def _by(feature: Callable[[str, str], int]) -> Rule:
    def rule(item: Item) -> float:
        values = tuple(feature(item.context, choice.strip()) for choice in item.choices)
        return credit(values, item.answer)

    return rule


def _most_recent(item: Item) -> float:
    return float(uses_of(item.context).order[-1][1] == item.right.strip())


def _most_frequent(item: Item) -> float:
    counts = uses_of(item.context).counts
    (_, largest), *_ = counts.most_common(1)
    likely = [name for name, count in counts.items() if count == largest]
    return (item.right.strip() in likely) / len(likely)


def _copied(item: Item) -> float:
    """What followed when the last name, with what stands after it, was there before."""
    names = uses_of(item.context).order
    last_at, last = names[-1]
    tail = item.context[last_at:]
    for (at, name), (after, guess) in reversed(list(pairwise(names))):
        if name == last and item.context[at:after].rstrip(" ") == tail:
            return float(guess == item.right.strip())
    return 0.0


def innermost(context: str) -> str:
    """What closes the innermost bracket that is open at the end of a text; ``:`` if none is."""
    open_ones: list[str] = []
    for character in context:
        if character in BRACKETS:
            open_ones.append(BRACKETS[character])
        elif open_ones and character == open_ones[-1]:
            open_ones.pop()
    return open_ones[-1] if open_ones else ":"


def _always(answer: str) -> Rule:
    return lambda item: float(item.right == answer)


RULES: dict[str, dict[str, Rule]] = {
    "identifier_cloze": {name: _by(feature) for name, feature in FEATURES.items()},
    "lambada_code": {
        "most recent": _most_recent,
        "most frequent": _most_frequent,
        "copied from before": _copied,
    },
    "closing_bracket": {
        "always )": _always(")"),
        "innermost open one": lambda item: float(innermost(item.context) == item.right),
    },
}
"""The rules of each local task, by name."""
