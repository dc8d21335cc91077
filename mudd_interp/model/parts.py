"""A method that a model has by way of one of its parts."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def forwarded(
    part: str, method: Callable[Concatenate[Any, P], R]
) -> Callable[Concatenate[Any, P], R]:
    """A method that calls a part's method of the same name: ``model.name`` is ``model.part.name``.

    Arguments, types and documentation are those of the part's method.

    Args:
        part: The model's attribute that holds the part.
        method: The method, of the part's class or of a class above it.
    """
    name: str = method.__name__

    @wraps(method)
    def call(model: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return getattr(getattr(model, part), name)(*args, **kwargs)

    return call
