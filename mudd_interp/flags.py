"""The command's flags, made from the table of options."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from mudd_interp.options import Row
from mudd_interp.request import OPTIONS


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command with a flag for each option in place of its ``**values``."""
    signature = inspect.signature(command)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    known: Any = command  # Typer asks for its signature
    known.__signature__ = signature.replace(parameters=[*own, *map(_flag, OPTIONS.values())])
    return command


def _flag(row: Row) -> inspect.Parameter:
    kind: Any = str | None
    names, says, (low, high) = (), row.option.help, (None, None)
    if row.plain is bool:
        kind, names = bool, (f"--{row.name}",)
    elif row.plain is int:
        kind, (low, high) = int | None, row.bounds
    elif row.choices:
        says = f"{says} One of {', '.join(row.choices)}."
    return inspect.Parameter(
        row.name,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        default=row.default,
        annotation=Annotated[kind, typer.Option(*names, help=says, min=low, max=high)],
    )


def of_flag(row: Row, given: Any) -> Any:
    """The value of a flag; choices and bounds are the request's to check.

    Raises:
        ValueError: If it is not written like such a value, with what was expected.
    """
    if not isinstance(given, str) or row.choices:
        return given
    try:
        return row.of_text(given)
    except ValueError as error:
        raise ValueError(f"--{row.name.replace('_', '-')}: {error}.") from error
