"""The values of a request: the type and the bound of each, and how it becomes plain.

A command, a link, a manifest and a caller in Python all pass through this one table. A link has
bounds of its own only where a number means work that nobody at the page asked for.
"""

import os
from typing import Annotated, Any

from annotated_types import Interval, Len, Predicate, doc

from mudd_interp.encoding import LARGEST_ID, check_text

LAST_INDEX = 10_000
"""The last layer, head or source that may be named: more than any model has."""

MOST_TOKENS = 2**17
"""Tokens of a context, and so the last position."""

MOST_IDS = 2**15
"""Token ids of a prompt."""

MOST_ROWS = 2**16
"""Sequences in a forward pass."""

LARGEST_COUNT = 10**9
"""Sequences of a text."""

LONGEST_PROMPT = 100_000
"""Characters of a prompt."""

LONGEST_NAME = 4096
"""Characters of a name or a path."""

LONGEST_TOKEN = 1024
"""Characters of one token."""

LONGEST_EDITS = 2**20
"""Characters of a text of edits."""


def _is_name(text: str) -> bool:
    return "\0" not in text


Index = Annotated[
    int, Interval(ge=0, le=LAST_INDEX), doc(f"a whole number from 0 to {LAST_INDEX:,}")
]
Position = Annotated[
    int, Interval(ge=0, le=MOST_TOKENS), doc(f"a whole number from 0 to {MOST_TOKENS:,}")
]
Context = Annotated[
    int, Interval(ge=2, le=MOST_TOKENS), doc(f"a whole number from 2 to {MOST_TOKENS:,}")
]
Rows = Annotated[int, Interval(ge=1, le=MOST_ROWS), doc(f"a whole number from 1 to {MOST_ROWS:,}")]
Count = Annotated[
    int, Interval(ge=1, le=LARGEST_COUNT), doc(f"a whole number from 1 to {LARGEST_COUNT:,}")
]
Ids = Annotated[
    tuple[Annotated[int, Interval(ge=0, le=LARGEST_ID)], ...],
    Len(0, MOST_IDS),
    doc(f"at most {MOST_IDS:,} token ids, each from 0 to {LARGEST_ID}"),
]
Name = Annotated[
    str,
    Len(1, LONGEST_NAME),
    Predicate(_is_name),
    doc(f"a text of at most {LONGEST_NAME:,} characters, none of them NUL"),
]
Prompt = Annotated[
    str, Len(1, LONGEST_PROMPT), doc(f"a text of at most {LONGEST_PROMPT:,} characters")
]
Token = Annotated[
    str,
    Len(1, LONGEST_TOKEN),
    doc(f"the text of one token, of at most {LONGEST_TOKEN:,} characters"),
]
EditsText = Annotated[
    str,
    Len(0, LONGEST_EDITS),
    doc(f"a text such as `cut v 5<-2`, of at most {LONGEST_EDITS:,} characters"),
]

_DEEPEST = 8  # lists within each other; a tensor of ids has two dimensions


def plain(name: str, value: Any, is_ids: bool = False) -> Any:
    """A value as a request keeps it: ids as a tuple, paths as text, numbers as Python's.

    Raises:
        ValueError: If a text is not valid, or ids are not one sequence of whole numbers.
    """
    if is_ids and value is not None:
        return _one_sequence(name, value)
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        try:
            check_text(value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    number: Any = value if getattr(value, "ndim", None) == 0 else None
    return value if number is None else number.item()


def _one_sequence(name: str, value: Any) -> tuple[Any, ...]:
    _check_count(name, value)
    ids = plain_ids(value, name)
    ids = ids if isinstance(ids, list) else [ids]
    rows = [row for row in ids if isinstance(row, list)]
    if rows and len(ids) != 1:
        raise ValueError(f"{name} must be one sequence of ids, got {len(ids)}.")
    return tuple(rows[0] if rows else ids)


def _check_count(name: str, value: Any) -> None:
    """Refuse more ids than a prompt may have, before a walk over them: ``range`` makes many."""
    most = MOST_IDS + _DEEPEST  # each list counts too, since it may be the only item of another
    left, count = [(value, 0)], 0
    while left:
        each, depth = left.pop()
        if hasattr(each, "__len__") and getattr(each, "ndim", 1):
            count += len(each)
        if count > most:
            raise ValueError(f"{name} must be at most {MOST_IDS:,} token ids, got {count:,}.")
        if isinstance(each, list | tuple) and depth < _DEEPEST:
            left += [(inner, depth + 1) for inner in each]


def plain_ids(given: Any, what: str = "token ids", depth: int = 0) -> Any:
    """Ids as Python's integers: a number, or (nested) lists of them. Needs no torch.

    Args:
        given: Something with ``tolist`` (a tensor, a NumPy array or number), an integer, or lists,
            tuples and ranges of these.
        what: What they are, for the message.
        depth: How many lists they are already nested in.

    Raises:
        ValueError: If one is not an integer (booleans are not), or larger than any vocabulary.
    """
    given = given.tolist() if hasattr(given, "tolist") else given
    if isinstance(given, list | tuple | range) and depth < _DEEPEST:
        return [plain_ids(each, what, depth + 1) for each in given]
    if isinstance(given, bool) or not isinstance(given, int):
        raise ValueError(
            f"{what} must be integers, got a {type(given).__name__}: give a list, a NumPy array or "
            "a tensor of them."
        )
    if abs(given) > LARGEST_ID:
        size = given if given.bit_length() < 1000 else "a larger number"
        raise ValueError(f"{what} holds {size}: token ids are at most {LARGEST_ID}.")
    return given
