"""Edits as values: their text, their JSON, and what is not an edit."""

import tracemalloc

import pytest

from mudd_interp.axes import STREAMS
from mudd_interp.edits import (
    Edit,
    as_edits,
    edits_from_json,
    edits_text,
    edits_to_json,
    every_edge,
)
from tests.parity.family import FAMILY, random_model

TEXTS = [
    "cut v 5<-2",
    "mean q *<-*",
    "static * 3<-* @0",
    "plain r *<-0 @0,4-7",
    "shuffle k 2<-1",
    "cut head 3.1 @2-3",
    "cut mlp 2",
]


@pytest.mark.parametrize("text", TEXTS)
def test_text_and_json_read_back(text):
    edit = Edit.parse(text)
    assert str(edit) == text
    assert Edit.from_dict(edit.to_dict()) == edit
    assert edits_from_json(edits_to_json([edit, "cut mlp 1"])) == (edit, Edit.parse("cut mlp 1"))


def test_a_set_is_one_line():
    line = "; ".join(TEXTS)
    assert edits_text(line) == line
    assert as_edits([Edit.parse(TEXTS[0]), *TEXTS[1:]]) == as_edits(line)
    assert as_edits(" ; ") == ()


def test_spaces_and_the_order_of_positions_do_not_matter():
    assert Edit.parse(" cut  mlp 2 @5,1-2,1") == Edit.parse("cut mlp 2 @1-2,5")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cut", "expected an edit such as"),
        ("cut v 5<2", "expected an edit such as"),
        ("cut x 5<-2", "stream must be one of q, k, v, r"),
        ("cutt v 5<-2", "no action `cutt`; did you mean `cut`"),
        ("mean head 1.2", "a head can be cut only"),
    ],
)
def test_what_is_no_edit_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        Edit.parse(text)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stream": "v"}, "needs an action"),
        ({"action": "cut", "sources": 1}, "did you mean `source`"),
        ({"action": "cut", "layer": "5"}, "layer must be a whole number from 0, got '5'"),
        ({"action": "cut", "part": "head", "layer": 5}, "needs its head"),
        ({"action": "cut", "part": "mlp", "layer": 5, "stream": "v"}, "has no stream"),
        ({"action": "cut", "positions": [2, 1]}, "ascending"),
        ({"action": "cut", "positions": []}, "at least one"),
    ],
)
def test_fields_that_are_no_edit_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Edit.from_dict(values)


def test_json_that_is_no_list_of_edits_is_refused():
    for text in ("{", '{"action": "cut"}', "[1]"):
        with pytest.raises(ValueError, match="expected a JSON list of edits"):
            edits_from_json(text)


def test_every_edge_of_a_model_once():
    edits = every_edge(random_model(FAMILY["MUDDFormer - V dense"]))
    assert len(set(edits)) == len(edits)
    # Three layers: aggregations with 2, 3 and 4 sources; the last feeds r only.
    counts = {stream: sum(edit.stream == stream for edit in edits) for stream in STREAMS}
    assert counts == {"q": 5, "k": 5, "v": 2, "r": 9}
    assert [str(edit) for edit in edits if edit.stream == "v"] == ["cut v 0<-1", "cut v 1<-2"]


def test_how_many_outputs_come_before_a_change():
    texts = ["cut v 3<-1", "cut * *<-*", "cut r *<-3", "cut head 3.1", "cut mlp 0"]
    assert [Edit.parse(text).kept_outputs for text in texts] == [5, 2, 4, 4, 1]


def test_a_range_of_positions_that_no_sequence_has_is_refused():
    with pytest.raises(ValueError, match="end at 1048576, got 20000000"):
        Edit.parse("cut v 1<-2 @0-20000000")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cut v 1<-2 @0-65536", "65,536 positions together"),
        ("cut v 1<-2 @" + ",".join(["0-65535"] * 2), "65,536 positions together"),
        ("; ".join(["cut v 1<-2 @0-1000000"] * 40), "65,536 positions together"),
        ("; ".join(["cut v 1<-2 @0-40000"] * 2), "65,536 positions together"),
        ("cut mlp 1;" * 4097, "may hold 4,096 edits, got 4,097"),
        ("cut v 1<-" + "9" * 5000, "expected an edit such as"),
        ("cut v ٣<-1", "expected an edit such as"),
        ("x" * 10**6, r"\.\.\.'\.$"),
    ],
)
def test_the_size_of_a_text_of_edits_is_bounded_before_anything_is_written_out(text, message):
    tracemalloc.start()
    with pytest.raises(ValueError, match=message) as refused:
        as_edits(text)
    # The text itself, split into pieces, and what comes before the first edit too many.
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
    assert len(str(refused.value)) < 400


def test_as_many_as_may_be_are_read():
    assert len(as_edits("cut mlp 1;" * 4096)) == 4096
    edit = Edit.parse("cut mlp 1 @0-65535")
    assert len(edit.positions or ()) == 65_536
    assert str(edit) == "cut mlp 1 @0-65535"
    values = [Edit.parse("cut mlp 1")] * 5000
    assert len(as_edits(values)) == 5000
