"""Values from outside as dataclasses: every field there, of its type, and nothing else."""

import json
from functools import cache
from typing import Any


def validated(kind: Any, values: Any, what: str) -> Any:
    """JSON values as a dataclass, or as another type.

    Types are taken literally: ``true`` is no number, ``1.0`` no integer, ``"1"`` neither.

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
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"])) or "it"
        raise ValueError(f"{what} is not as it was written: {field}: {first['msg']}.") from error


@cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
