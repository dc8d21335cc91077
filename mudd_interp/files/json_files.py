"""JSON from outside: bounded, strict, and refused in one way."""

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

MOST_BYTES = 2**26
"""The largest JSON that is read."""

DEEPEST = 64
"""How deep lists and objects may be nested."""

LARGEST = 2**63
"""Integers must be smaller than this, in magnitude: what int64 holds."""


def read_object(path: Path, largest: int | None = LARGEST) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        path: The file.
        largest: As for :func:`parse_json`.

    Raises:
        ValueError: If it cannot be read, is not JSON as :func:`parse_json` takes it, or holds
            something else.
    """
    found = read_json(path, largest)
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}: expected a JSON object.")
    return found


def read_json(path: Path, largest: int | None = LARGEST) -> Any:
    """What a JSON file holds.

    Args:
        path: The file.
        largest: As for :func:`parse_json`.

    Raises:
        ValueError: If it cannot be read, or is not JSON as :func:`parse_json` takes it.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not JSON ({error}): download or copy it again.") from error
    try:
        return parse_json(data, str(path), largest)
    except ValueError as error:
        raise ValueError(f"{str(error)[:-1]}: download or copy it again.") from error


def parse_json(text: str | bytes, what: str, largest: int | None = LARGEST) -> Any:
    """The value of a JSON text.

    A byte order mark in front is accepted. What JSON leaves to the reader is refused (NaN,
    infinity, numbers beyond float64, and a key twice in one object), and so is what only an attack
    would contain: more than 64 MiB, or more than 64 levels.

    Args:
        text: The text, or its UTF-8.
        what: What it is or where it is from, for the message.
        largest: Integers of this magnitude or more are refused; ``None`` for any.

    Raises:
        ValueError: If it cannot be read, with what it is and why.
    """
    try:
        if len(text) > MOST_BYTES:
            raise ValueError(f"it is larger than {MOST_BYTES:,} bytes")
        text = text.decode("utf-8-sig") if isinstance(text, bytes) else text.removeprefix("\ufeff")
        found = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=lambda digits: _integer(digits, largest),
        )
        _check_depth(found)
    except (ValueError, RecursionError) as error:
        reason = _too_deep() if isinstance(error, RecursionError) else error
        raise ValueError(f"{what} is not JSON ({reason}).") from error
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"an object has the key {_short(twice)} twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{_short(digits)} is beyond float64")
    return number


def _integer(digits: str, largest: int | None) -> int:
    number = int(digits)
    if largest is not None and abs(number) >= largest:
        raise ValueError(f"{_short(digits)} is beyond int64")
    return number


def _check_depth(found: Any) -> None:
    level = list(_containers([found]))
    for _ in range(DEEPEST):
        if not level:
            return
        level = [each for outer in level for each in _containers(outer)]
    if level:
        raise ValueError(_too_deep())


def _containers(outer: dict[str, Any] | list[Any]) -> Iterator[dict[str, Any] | list[Any]]:
    inner = outer.values() if isinstance(outer, dict) else outer
    yield from (value for value in inner if isinstance(value, dict | list))


def _too_deep() -> str:
    return f"it is nested deeper than {DEEPEST} levels"


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
