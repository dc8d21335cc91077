"""Token ids in whatever form they come: the same int64 tensor, or a refusal in words."""

import numpy as np
import pytest
import torch

from mudd_interp.ids import id_tensor
from mudd_interp.request import Request

FORMS = {
    "list": [5, 7, 9],
    "tuple": (5, 7, 9),
    "range": range(5, 10, 2),
    "list of NumPy numbers": [np.int64(5), np.uint8(7), np.int32(9)],
    "list of tensors": [torch.tensor(5), torch.tensor(7), torch.tensor(9)],
    **{f"NumPy {name}": np.array([5, 7, 9], name) for name in ("i1", "u2", "i4", "u4", "i8", "u8")},
    "reversed NumPy": np.array([9, 7, 5])[::-1],
    **{
        str(dtype): torch.tensor([5, 7, 9]).to(dtype)
        for dtype in (torch.uint8, torch.int16, torch.int32, torch.int64, torch.uint64)
    },
}

NONE = {
    "floats": ([5.0], "must be integers, got a float"),
    "a float tensor": (torch.tensor([5.0]), r"got float32 of shape \[1\]: convert them with .long"),
    "a bool tensor": (torch.tensor([True]), r"got bool of shape \[1\]"),
    "a bool among numbers": ([5, True], "must be integers, got a bool"),
    "NumPy bools": (np.array([True]), "must be integers, got a bool"),
    "NumPy floats": (np.array([5.0]), "must be integers, got a float"),
    "texts": (["a"], "must be integers, got a str"),
    "nothing": (None, "must be integers, got a NoneType"),
    "rows of two lengths": ([[5, 7], [9]], "differ in length or depth. Batches are never padded"),
    "a number and a row": ([5, [7]], "differ in length or depth"),
    "a number beyond int64": ([2**63], r"holds 9223372036854775808: token ids are at most"),
    "a tensor beyond int64": (torch.tensor([2**63], dtype=torch.uint64), "token ids are at most"),
}


@pytest.mark.parametrize("form", FORMS)
def test_ids_in_any_form(form: str):
    found = id_tensor(FORMS[form])
    assert found.dtype == torch.int64
    assert found.tolist() == [5, 7, 9]


def test_shapes_stay():
    assert id_tensor(5).shape == ()
    assert id_tensor([]).shape == (0,)
    assert id_tensor([[5, 7], [9, 1]]).tolist() == [[5, 7], [9, 1]]
    assert id_tensor([torch.tensor([5, 7]), torch.tensor([9, 1])]).shape == (2, 2)


def test_int64_is_not_copied():
    tokens = torch.tensor([5, 7])
    assert id_tensor(tokens) is tokens


@pytest.mark.parametrize("case", NONE)
def test_what_is_no_id_is_refused(case: str):
    given, message = NONE[case]
    with pytest.raises(ValueError, match=message):
        id_tensor(given)


@pytest.mark.parametrize("form", FORMS)
def test_a_request_keeps_ids_as_numbers(form: str):
    request = Request.of_values({"prompt_ids": FORMS[form], "sinks": FORMS[form]})
    assert request == Request(prompt_ids=(5, 7, 9), sinks=(5, 7, 9))
    assert {type(token) for token in request.prompt_ids or ()} == {int}


def test_a_request_takes_one_sequence_of_ids():
    assert Request.of_values({"prompt_ids": torch.tensor([[5, 7]])}).prompt_ids == (5, 7)
    assert Request.of_values({"prompt_ids": np.int64(5)}).prompt_ids == (5,)
    with pytest.raises(ValueError, match="prompt_ids must be one sequence of ids, got 2"):
        Request.of_values({"prompt_ids": [[5, 7], [9, 1]]})
    with pytest.raises(ValueError, match="prompt_ids must be integers, got a float"):
        Request.of_values({"prompt_ids": np.array([5.0])})
