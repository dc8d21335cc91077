"""A link restores its view, and names what it cannot read."""

import json
import tracemalloc
from dataclasses import asdict
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

import state
from mudd_interp.axes import STREAMS
from mudd_interp.encoding import LARGEST_ID
from mudd_interp.request import HEAD_MEASURES, MODES, ROLES, STATISTICS, Request

NAMES = st.text(st.characters(codec="utf-8", categories=("L", "N", "P")), min_size=1, max_size=30)
LONG = "".join(chr(33 + i * i * 7919 % 15000) for i in range(3000))
"""A text that hardly compresses."""
LONG_TEXTS = ("prompt", "corrupted", "edits")
POSITION = st.integers(0, 2**17)
PLACE = st.integers(0, 10_000)
IDS = st.integers(0, LARGEST_ID)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "model": NAMES,
    "baseline": st.none() | NAMES.filter(lambda name: name != "none"),
    "text": NAMES,
    "sequences": st.none() | st.integers(1, 100_000),
    "context": st.integers(2, 2**17),
    "batch_size": st.integers(1, 32),
    "dtype": NAMES,
    "scope": st.sampled_from(("corpus", "prompt")),
    "mode": st.sampled_from(MODES),
    "of": st.sampled_from(ROLES),
    "position": POSITION,
    "layer": PLACE,
    "head": PLACE,
    "stream": st.sampled_from(STREAMS),
    "source": PLACE,
    "statistic": st.sampled_from(STATISTICS),
    "raw": st.booleans(),
    "sinks": st.lists(IDS, max_size=64).map(tuple),
    "sink_positions": st.integers(0, 64),
    "score": st.sampled_from(HEAD_MEASURES),
    "answer": st.text(st.characters(codec="utf-8"), min_size=1, max_size=12),
    "against": st.text(st.characters(codec="utf-8"), min_size=1, max_size=12),
    "corrupted": st.text(st.characters(codec="utf-8"), min_size=1, max_size=60),
    "prompt": st.text(st.characters(codec="utf-8"), min_size=1),
}


def through_a_link(view: state.View) -> state.Opened:
    query = urlencode(state.encode(view))
    assert len(query) <= state.LONGEST_LINK
    return state.decode(dict(parse_qsl(query)))


@given(st.fixed_dictionaries({}, optional=VALUES))
def test_a_view_comes_back_from_its_link(values: dict[str, Any]):
    view = state.default_view() | values
    assert through_a_link(view) == state.Opened(view)
    Request.of_values({name: view[name] for name in asdict(Request())})


@given(st.lists(IDS, min_size=1, max_size=99).map(tuple))
def test_so_do_token_ids(ids: tuple[int, ...]):
    view = state.default_view() | {"prompt": None, "prompt_ids": ids}
    assert through_a_link(view) == state.Opened(view)


def test_every_value_of_a_request_has_one_short_key():
    keys = [field.key for field in state.FIELDS.values()] + list(state.DIGESTED)
    assert asdict(Request()).keys() <= state.FIELDS.keys()
    assert len(set(keys)) == len(keys)
    assert max(map(len, keys)) <= 2


def test_the_default_view_has_an_empty_link():
    assert state.encode(state.default_view()) == {}


def test_a_prompt_that_does_not_fit_is_a_digest_in_the_link():
    opened = through_a_link(state.default_view() | {"prompt": LONG, "layer": 3})
    assert opened.digests == {state.PROMPT: state.digest([LONG, None])}
    assert opened.view == state.default_view() | {"layer": 3}


@pytest.mark.parametrize(("name", "key"), [("corrupted", state.CORRUPTED), ("edits", state.EDITS)])
def test_another_long_text_is_a_digest_and_the_prompt_stays_whole(name: str, key: str):
    opened = through_a_link(state.default_view() | {"prompt": "x = 1", name: LONG})
    assert opened.digests == {key: state.digest([LONG])}
    assert opened.view == state.default_view() | {"prompt": "x = 1"}


def test_three_long_texts_are_three_digests():
    opened = through_a_link(state.default_view() | dict.fromkeys(LONG_TEXTS, LONG))
    assert opened.digests.keys() == state.DIGESTED.keys()
    assert opened.view == state.default_view()


@given(st.dictionaries(st.sampled_from([f.key for f in state.FIELDS.values()]), st.text()))
def test_no_link_is_too_bad_to_open(params: dict[str, str]):
    opened = state.decode(params)
    Request(**{name: opened.view[name] for name in asdict(Request())})
    for notice in opened.notices:
        assert notice.isascii()
    assert json.dumps(opened.view)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("l", "-1"),
        ("l", "three"),
        ("l", "٣"),
        ("l", ""),
        ("h", "99999999999"),
        ("l", "10001"),
        ("x", "131073"),
        ("n", "100001"),
        ("n", "9999999"),
        ("c", "1"),
        ("c", "9999999"),
        ("bs", "33"),
        ("bs", "9999999"),
        ("zp", "65"),
        ("z", ".".join(["1"] * 65)),
        ("z", "2147483648"),
        ("i", state.pack(".".join(["1"] * (2**15 + 1)))),
        ("a", state.pack("x" * 101)),
        ("ag", state.pack("x" * 101)),
        ("cp", state.pack("x" * 100_001)),
        ("p", "A" * 800_001),
        ("e", state.pack("cut v 7<-2 @0-1000000;" * 40)),
        ("e", state.pack("cut mlp 1;" * 4500)),
        ("e" * 1000, "1"),
        ("n", "0"),
        ("n", "none"),
        ("o", "beside"),
        ("st", "Q"),
        ("k", "median"),
        ("r", "yes"),
        ("z", "1,2"),
        ("m", " "),
        ("m", "a\x00b"),
        ("p", "%%%"),
        ("p", state.pack("x" * 200)[:-6]),
        ("p", state.pack("x" * 10**6)),
        ("p", state.pack("")),
        ("i", state.pack("1.x")),
        ("pd", "abc"),
        ("cd", "abc"),
        ("zz", "1"),
    ],
)
def test_a_bad_value_is_ignored_and_named(key: str, text: str):
    opened = state.decode({key: text, "j": "4"})
    assert opened.view == state.default_view() | {"source": 4}
    (notice,) = opened.notices
    assert notice.startswith(f"{key[:37]}")
    assert "ignored" in notice
    assert len(notice) < 500


def test_of_more_values_than_a_link_has_the_rest_is_not_looked_at():
    params = {f"a{i}": "1" for i in range(100_000)} | {"l": "3"}
    opened = state.decode(params)
    assert opened.view == state.default_view()
    assert len(opened.notices) == state.MOST_VALUES + 1
    assert "100,001 values" in opened.notices[0]


def test_an_edit_that_means_many_positions_takes_no_memory():
    tracemalloc.start()
    state.decode({"e": state.pack("cut v 7<-2 @0-1000000;" * 40)})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_a_prompt_and_token_ids_are_not_both_taken():
    opened = state.decode({"p": state.pack("x"), "i": state.pack("1.2")})
    assert (opened.view["prompt"], opened.view["prompt_ids"]) == (None, (1, 2))
    assert "p (prompt)" in opened.notices[0]


@pytest.mark.parametrize(
    "text", ["![x](http://a/b)", "$x$", ":red[x]", "<b>x</b>", "`x`", "a\n# b"]
)
def test_plain_text_has_no_markdown_left(text: str):
    escaped = state.plain(text)
    bare = [
        c for i, c in enumerate(escaped) if not c.isalnum() and (i == 0 or escaped[i - 1] != "\\")
    ]
    assert set(bare) <= {"\\", " "}


def test_a_name_that_a_link_cannot_carry_is_refused():
    longest = "é" * (state.LONGEST_LINKED_NAME // 6)
    opened = state.decode({"t": longest, "m": longest + "é"})
    assert opened.view["text"] == longest
    assert opened.view["model"] == "mudd-tiny"
    assert "m=" in opened.notices[0]
