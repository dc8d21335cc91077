"""Values from outside as dataclasses: every field present, of its type, and nothing else."""

import json
from collections.abc import Iterator
from functools import cache
from reprlib import Repr
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import DocInfo


def validated(kind: Any, values: Any, what: str) -> Any:
    """JSON values as a dataclass, or as another type.

    Types are taken literally: ``true`` is not a number, ``1.0`` not an integer, ``"1"`` neither.

    Args:
        kind: The dataclass, whose annotations are the schema; or a type such as ``list[str]``.
        values: What was read.
        what: What it is or where it is from, for the message.

    Raises:
        ValueError: With the first field that is missing, unknown or of another type.
    """
    from pydantic import ValidationError  # 0.1 s, and needed only where something is read

    try:
        text = json.dumps(values)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{what} cannot be JSON: {error}.") from error
    try:
        return _adapter(kind).validate_json(text, strict=True, extra="forbid")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "it"
        came = f", got {shown(first['input'])}" if first["loc"] and _is_of_type(first) else ""
        raise ValueError(
            f"{what} is not as it was written: {field}: {first['msg']}{came}."
        ) from error


def _is_of_type(error: Any) -> bool:
    """Whether the value itself is wrong, rather than a field missing or unknown."""
    return error["type"] not in ("missing", "missing_keyword_only_argument", "value_error")


def checked(kind: Any, value: Any, name: str) -> Any:
    """A Python value, if it is of a type and within its bounds; taken just as literally.

    Args:
        kind: The type; one of :mod:`mudd_interp.values` says in words what is meant.
        value: What was given.
        name: What it is called, for the message.

    Raises:
        ValueError: If it is not, with what was expected.
    """
    try:
        return _adapter(kind).validate_python(value, strict=True)
    except ValueError as error:
        expected = " or ".join(_expected(kind))
        raise ValueError(f"{name} must be {expected}, got {shown(value)}.") from error


def _expected(kind: Any) -> Iterator[str]:
    """What a type means, in words; ``None``, which is for leaving a value out, goes unsaid."""
    origin = get_origin(kind)
    if origin in (UnionType, Union):
        for each in get_args(kind):
            yield from _expected(each)
    elif origin is Literal:
        yield f"one of {', '.join(get_args(kind))}"
    elif origin is Annotated:
        said = [each.documentation for each in get_args(kind) if isinstance(each, DocInfo)]
        yield from said or _expected(get_args(kind)[0])
    elif kind is not NoneType:
        yield "True or False" if kind is bool else f"a {kind.__name__}"


def shown(value: Any) -> str:
    """A value in a message; only the beginning of a long one."""
    return _REPR.repr(value)


class _Short(Repr):
    def repr_str(self, x: str, level: int) -> str:  # noqa: ARG002 (an argument of the base)
        """The beginning, which says more than the middle."""
        return repr(x if len(x) <= self.maxstring else x[: self.maxstring - 3] + "...")

    def repr_int(self, x: int, level: int) -> str:  # noqa: ARG002 (an argument of the base)
        """Python refuses to write out the longest integers."""
        if x.bit_length() <= 100:
            return str(x)
        return "a larger one" if x > 0 else "a negative one"


_REPR = _Short()
_REPR.maxstring = _REPR.maxother = 60
_REPR.maxlevel, _REPR.maxlist, _REPR.maxtuple, _REPR.maxdict = 3, 6, 6, 4


@cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
