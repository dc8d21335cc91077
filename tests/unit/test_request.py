"""A request: values of a type and within bounds; a command and Python that say the same."""

import json
import re
import shlex
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mudd_interp as mi
from mudd_interp.catalog import find
from mudd_interp.request import Request, changed, command_line, python_lines
from mudd_interp.schema import shown, validated


def test_an_unknown_choice_is_refused_with_what_there_is():
    with pytest.raises(ValueError, match="stream must be one of q, k, v, r, got 'w'"):
        Request.of_values({"stream": "w"})


@pytest.mark.parametrize("prompt", [{"prompt": ""}, {"prompt_ids": ()}])
def test_an_empty_prompt_is_refused(prompt: dict[str, object]):
    with pytest.raises(ValueError, match="the prompt is empty"):
        Request.of_values(prompt)


@pytest.mark.parametrize("name", ["answer", "against", "corrupted"])
def test_an_empty_token_is_refused(name: str):
    with pytest.raises(ValueError, match=f"{name} is empty"):
        Request.of_values({name: ""})


def nested(depth: int) -> list[Any]:
    deep: list[Any] = []
    for _ in range(depth):
        deep = [deep]
    return deep


WRONG: list[tuple[str, Any, str]] = [
    *(
        (name, value, "a whole number from")
        for name in ("layer", "position", "head", "source", "sequences", "context", "batch_size")
        for value in (
            "x",
            "3",
            True,
            1.0,
            float("nan"),
            -1,
            10**20,
            10**5000,
            [3],
            np.array([3, 4]),
        )
    ),
    ("head", None, "a whole number from 0 to 10,000, got None"),
    ("sequences", 0, "from 1 to 1,000,000,000, got 0"),
    ("context", 1, "from 2 to 131,072, got 1"),
    *((name, 5, "a text of at most 4,096") for name in ("model", "text", "dataset", "device")),
    ("model", ["mudd-tiny"], "none of them NUL"),
    ("model", None, "none of them NUL"),
    ("text", "a\0b", "none of them NUL"),
    ("text", Path("a\0b"), "none of them NUL"),
    ("text", b"a", "a text of at most"),
    ("text", "x" * 5000, "a text of at most 4,096"),
    ("dtype", "\ud800", "not text, at character 0"),
    ("prompt", "a\udce9", "not text, at character 1"),
    ("prompt", "x" * 100_001, "a text of at most 100,000"),
    ("prompt", ["a"], "a text of at most 100,000"),
    ("answer", "x" * 1025, "the text of one token"),
    ("edits", ["cut v 5<-2"], "a text such as `cut v 5<-2`"),
    ("edits", "x" * (2**20 + 1), "a text such as `cut v 5<-2`"),
    ("raw", "yes", "True or False, got 'yes'"),
    ("raw", 1, "True or False, got 1"),
    ("mode", ["overlay"], "one of overlay, side_by_side, difference"),
    ("stream", {}, "one of q, k, v, r"),
    ("scope", None, "one of corpus, prompt"),
    ("sinks", -1, "at most 32,768 token ids, each from 0"),
    ("sinks", [2**40], "token ids are at most"),
    ("sinks", [10**5000], "holds a larger number"),
    ("sinks", range(10**12), "at most 32,768 token ids, got 1,000,000,000,000"),
    ("sinks", {1, 2}, "must be integers, got a set"),
    ("prompt_ids", np.zeros(40_000, int), "at most 32,768 token ids, got 40,000"),
    ("prompt_ids", [range(10**12)], "at most 32,768 token ids, got 1,000,000,000,001"),
    ("prompt_ids", [[range(10**7)] * 9], "at most 32,768 token ids, got"),
    ("prompt_ids", [[1]] * 40_000, "at most 32,768 token ids, got 40,000"),
    ("prompt_ids", [[[1]]], "at most 32,768 token ids, each"),
    ("prompt_ids", nested(100_000), "must be integers, got a list"),
    ("prompt_ids", [1, "a"], "must be integers, got a str"),
]
"""Values of a request that are of another type, or out of bounds; and what is said about them."""


@pytest.mark.parametrize(("name", "value", "expected"), WRONG, ids=lambda each: shown(each)[:30])
def test_a_value_of_another_type_or_out_of_bounds_is_refused(name, value, expected):
    with pytest.raises(ValueError, match=f"^{name}\\b.*{re.escape(expected)}") as refused:
        Request.of_values({name: value})
    assert len(str(refused.value)) < 300


def test_what_was_checked_for_one_door_is_checked_for_all():
    with pytest.raises(ValueError, match="layer must be a whole number from 0 to 10,000, got 'x'"):
        mi.draw("layer_similarity", layer="x")
    with pytest.raises(ValueError, match="layer must be a whole number"):
        replace(Request(), layer=10_001)
    with pytest.raises(ValueError, match=r"`request` of it.*layer: .*got True"):
        validated(Request, {"layer": True}, "`request` of it")


def test_numbers_of_other_libraries_and_paths_are_plain():
    request = Request.of_values(
        {"layer": np.int64(3), "head": torch.tensor(1), "raw": np.True_, "text": Path("a")}
    )
    assert request == Request(layer=3, head=1, raw=True, text="a")
    assert [type(each) for each in (request.layer, request.head, request.raw)] == [int, int, bool]


@pytest.mark.parametrize("name", ["lyer", "x" * 10**6, "\0", ""])
def test_an_unknown_name_is_refused(name: str):
    begun = time.process_time()
    for call in (Request.of_values, lambda values: mi.draw("layer_similarity", **values)):
        with pytest.raises(ValueError, match=r"^no value of a request `") as refused:
            call({name: 1})
        assert len(str(refused.value)) < 300
    assert time.process_time() - begun < 1
    with pytest.raises(ValueError, match="`lyer`; did you mean `layer`"):
        Request.of_values({"lyer": 1})


def test_an_unknown_figure_of_any_length_is_refused():
    with pytest.raises(ValueError, match=r"^no figure `x{197}\.\.\.`\.$"):
        find("x" * 10**6)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from([*asdict(Request()), "x"]), ANYTHING, max_size=3))
def test_any_values_are_a_request_that_a_manifest_gives_back_or_are_refused(values):
    try:
        request = Request.of_values(values)
    except ValueError:
        return
    assert validated(Request, json.loads(json.dumps(asdict(request))), "it") == request


def test_a_command_says_what_is_not_default_and_used():
    request = Request(prompt="a b", layer=3, raw=True, baseline=None, sinks=())
    words = shlex.split(command_line("f", request, ("prompt", "raw", "baseline", "sinks")))
    expected = ["--baseline", "none", "--prompt", "a b", "--raw", "--sinks", "none"]
    assert words == ["mudd-interp", "figures", "--only", "f", *expected, "--out", "figures"]


@pytest.mark.parametrize("prompt", ["-x", "--model", "it's; rm", "a\nb", '"'])
def test_a_prompt_survives_the_shell(prompt: str):
    words = shlex.split(command_line("f", Request(prompt=prompt), ("prompt",)))
    assert prompt in (words[4].removeprefix("--prompt="), words[5])


def test_python_lines_give_the_same_request():
    request = Request(prompt='say "hi"\n', layer=3, sinks=(1, 2), mode="difference")
    names = ("prompt", "layer", "sinks", "mode")
    found: list[Request] = []
    code = python_lines("f", request, names).replace("import mudd_interp as mi", "")

    class Recorder:
        def draw(self, _: str, **values: object) -> "Recorder":
            found.append(Request.of_values(values))
            return self

        figure = property(lambda self: self)
        frame = None

        def show(self) -> None: ...

    exec(code, {"mi": Recorder()})
    assert found == [request]
    assert set(changed(request, names)) == set(names)
