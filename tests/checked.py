"""The checks of types and shapes under which all tests run, made once for each call.

jaxtyping, told to check a package, checks what a function is given before the call, and again with
what it returns. Here beartype checks both, and jaxtyping holds the sizes of the axes for the call:
the same annotations, at two thirds of the cost. A function without arrays has no sizes to hold.
"""

import inspect
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, ForwardRef, get_args

import jaxtyping

_jaxtyped: Callable[..., Any] = jaxtyping.jaxtyped


def _parts(annotation: Any) -> Generator[Any]:
    """An annotation and all its parts."""
    yield annotation
    for part in annotation if isinstance(annotation, list | tuple) else get_args(annotation):
        yield from _parts(part)


def _is_array(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, jaxtyping.AbstractArray)


def _needs_jaxtyping(function: Any, parts: list[Any]) -> bool:
    """Whether to leave the checks to jaxtyping.

    It looks up types that are given by name, and only it checks what a generator yields.
    """
    named = any(isinstance(part, str | ForwardRef) for part in parts)
    return named or not inspect.isfunction(function) or inspect.isgeneratorfunction(function)


def _checked(typechecker: Any, function: Any) -> Any:
    parts = [*_parts([*getattr(function, "__annotations__", {}).values()])]
    if _needs_jaxtyping(function, parts):
        return _jaxtyped(function, typechecker=typechecker)
    checked = typechecker(function)
    return _jaxtyped(checked, typechecker=None) if any(map(_is_array, parts)) else checked


def jaxtyped(*function: Any, **options: Any) -> Any:
    """Stands in for ``jaxtyping.jaxtyped`` where jaxtyping's import hook calls it."""
    if function or not options.get("typechecker"):
        return _jaxtyped(*function, **options)
    return partial(_checked, options["typechecker"])
