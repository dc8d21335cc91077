"""One table of options: the command's flags and the keys of a link are made from it."""

import inspect
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mudd_interp import cli
from mudd_interp.encoding import LARGEST_ID
from mudd_interp.flags import of_flag
from mudd_interp.options import Option, table
from mudd_interp.request import OPTIONS, Request
from mudd_interp.values import Ids, Index, Name

KEYS = "m b t d dg ds dc n c bs ty dv p i s o of x l h st j k r z zp q a ag cp e"  # links of 0.1


def test_the_keys_of_links_never_change():
    keys = [row.option.key for row in OPTIONS.values()]
    assert keys[: len(KEYS.split())] == KEYS.split()
    assert len(set(keys)) == len(keys)


def test_the_command_has_a_flag_for_each_with_its_bounds_and_default():
    flags = inspect.signature(cli.figures).parameters
    assert list(flags)[-len(OPTIONS) :] == list(OPTIONS)
    for name, row in OPTIONS.items():
        assert flags[name].default == row.default == getattr(Request(), name)
        assert flags[name].annotation.__metadata__[0].help.startswith(row.option.help)
    head = flags["head"].annotation.__metadata__[0]
    assert (head.min, head.max) == OPTIONS["head"].bounds == (0, 10_000)


@pytest.mark.parametrize("row", OPTIONS.values(), ids=list(OPTIONS))
def test_each_says_what_it_is(row: Any):
    assert row.option.help.endswith(".")
    assert row.option.help[0].isupper()
    assert 1 <= len(row.option.key) <= 2


def test_a_new_option_is_one_field():
    @dataclass(frozen=True)
    class Two:
        depth: Annotated[Index | None, Option("dp", "How deep.", most=7)] = None
        names: Annotated[Name, Option("nm", "A name.")] = "x"

    depth, names = table(Two).values()
    assert (depth.plain, depth.bounds, depth.most, depth.default) == (int, (0, 10_000), 7, None)
    assert (names.plain, names.longest, names.choices) == (str, 4096, ())
    assert depth.asked(depth.of_text("7")) == 7
    with pytest.raises(ValueError, match="from 0 to 7"):
        depth.asked(depth.of_text("8"))


@given(st.lists(st.integers(0, LARGEST_ID), max_size=64).map(tuple), st.sampled_from((",", ".")))
def test_ids_come_back_from_their_text(ids: tuple[int, ...], separator: str):
    row = OPTIONS["sinks"]
    assert row.kind == Ids
    assert row.asked(row.of_text(row.to_text(ids, separator), separator)) == ids


@pytest.mark.parametrize("text", ["1 2", " 1, 2 ", "1,2", "1 ,\n2,"])
def test_a_person_may_put_spaces_between_ids(text: str):
    assert of_flag(OPTIONS["prompt_ids"], text) == (1, 2)


@pytest.mark.parametrize("text", ["", ",", "1,x", "-1", "1.5", "٣"])
def test_what_is_no_id_is_refused_by_the_name_of_its_flag(text: str):
    with pytest.raises(ValueError, match=r"^--prompt-ids: expected token ids such as 5,17,9"):
        of_flag(OPTIONS["prompt_ids"], text)


def test_a_word_stands_for_what_has_no_text():
    assert of_flag(OPTIONS["baseline"], "none") is None
    assert of_flag(OPTIONS["sinks"], "none") == ()
    assert OPTIONS["sequences"].to_text(None) == "all"
    assert of_flag(OPTIONS["prompt"], "none") == "none"
