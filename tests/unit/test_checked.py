"""The tests' checks of types and shapes find what is wrong, wherever it stands."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from beartype import beartype
from beartype.roar import BeartypeCallHintParamViolation, BeartypeCallHintReturnViolation
from jaxtyping import Float, Int, TypeCheckError
from torch import Tensor

from mudd_interp.model.layers import rms_scale
from tests.checked import jaxtyped

checks = jaxtyped(typechecker=beartype)


@checks
def product(a: Float[Tensor, "rows inner"], b: Float[Tensor, "inner columns"]) -> list[int]:
    return [*(a @ b).shape]


@checks
def row(a: Float[Tensor, "rows columns"], flat: bool) -> Float[Tensor, " columns"]:
    return a.flatten() if flat else a[0]


@checks
def nested(a: Float[Tensor, " n"], parts: dict[str, list[Float[Tensor, " n"]]]) -> int:
    return row(torch.ones(3, 7), flat=False).numel() + len(parts) + len(a)


@checks
def plain(n: int) -> str:
    return "a" * n if n else n  # pyright: ignore[reportReturnType]


@checks
@dataclass
class Pair:
    a: Float[Tensor, " n"]
    b: Int[Tensor, " n"]


def test_the_package_runs_under_them():
    assert rms_scale(torch.ones(2, 3), 0.0).shape == (2, 1)
    with pytest.raises(BeartypeCallHintParamViolation):
        rms_scale(torch.ones(2, 3).long(), 0.0)


def test_sizes_hold_over_the_arguments_of_a_call_and_for_no_other_call():
    assert product(torch.ones(2, 3), torch.ones(3, 4)) == [2, 4]
    assert product(torch.ones(5, 6), torch.ones(6, 7)) == [5, 7]
    with pytest.raises(BeartypeCallHintParamViolation):
        product(torch.ones(2, 3), torch.ones(4, 3))
    with pytest.raises(BeartypeCallHintParamViolation):
        product(torch.ones(2, 3).long(), torch.ones(3, 4))


def test_sizes_hold_for_what_is_returned():
    assert row(torch.ones(2, 3), flat=False).shape == (3,)
    with pytest.raises(BeartypeCallHintReturnViolation):
        row(torch.ones(2, 3), flat=True)


def test_sizes_hold_inside_other_types_and_calls():
    assert nested(torch.ones(2), {"a": [torch.ones(2)]}) == 10
    with pytest.raises(BeartypeCallHintParamViolation):
        nested(torch.ones(2), {"a": [torch.ones(3)]})


def test_a_function_without_arrays_is_checked():
    assert plain(2) == "aa"
    with pytest.raises(BeartypeCallHintParamViolation):
        plain("2")  # pyright: ignore[reportArgumentType]
    with pytest.raises(BeartypeCallHintReturnViolation):
        plain(0)


def test_fields_are_checked_together():
    Pair(torch.ones(2), torch.ones(2).long())
    with pytest.raises(TypeCheckError):
        Pair(torch.ones(2), torch.ones(3).long())


def test_sizes_hold_in_a_context():
    vector: Any = Float[Tensor, " n"]
    with jaxtyped("context"):
        assert isinstance(torch.ones(2), vector)
        assert not isinstance(torch.ones(3), vector)
