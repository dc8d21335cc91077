"""The page of edits: written or chosen, made in both models, and in the link."""

import pytest

import state
from mudd_interp import catalog
from mudd_interp.analysis import ablation_sweep, predictions
from mudd_interp.data import bundled_batches
from mudd_interp.edits import edited
from tests.app.test_pages import opened, settled, texts
from tests.bundled import load

EDITS = "cut v 7<-2; cut head 7.2"
PROMPT = "for i in range(3):\n    print(i)\n"


def test_an_edit_is_added_by_the_form_and_is_in_the_link():
    at = opened("interventions")
    assert "There are no edits yet" in texts(at.info)
    at.selectbox(key="new_stream").set_value("v")
    at.number_input(key="new_layer").set_value(7)
    at.number_input(key="new_source").set_value(2)
    settled(button(at, "Add").click().run())
    assert at.text_area(key="edits_text").value == "cut v 7<-2"
    settled(at.selectbox(key="new_part").set_value("head").run())
    at.number_input(key="new_head").set_value(2)
    settled(button(at, "Add").click().run())
    assert at.query_params["e"] == state.pack(EDITS)
    assert not at.error
    settled(button(at, "Remove all").click().run())
    assert "e" not in at.query_params


def test_what_is_no_edit_is_said_and_the_others_stay():
    at = opened("interventions", e=state.pack(EDITS))
    settled(at.text_area(key="edits_text").set_value("cut everything").run())
    assert len(at.warning) == 1
    assert "expected an edit" in texts(at.warning).replace("\\", "")
    assert at.text_area(key="edits_text").value == "cut everything"
    assert at.query_params["e"] == state.pack(EDITS)


def test_a_link_with_what_is_no_edit_is_ignored_with_a_notice():
    at = settled(opened("interventions", e=state.pack("cut everything")))
    assert "There are no edits yet" in texts(at.info)
    assert "expected an edit" in texts(at.warning).replace("\\", "")


@pytest.mark.slow
def test_a_corrupted_prompt_is_held_against_the_prompt_and_is_in_the_link():
    at = opened("interventions", p=state.pack("def f(x):\n    return x"))
    corrupted = "def g(y):\n    return y"
    settled(at.text_area(key="corrupted_text").set_value(corrupted).run())
    assert at.query_params["cp"] == state.pack(corrupted)
    assert "carries of a difference between prompts" in texts(at.subheader)
    assert not at.error
    settled(at.text_area(key="corrupted_text").set_value("def g").run())
    assert "of one shape" in texts(at.error).replace("\\", "")
    settled(at.text_area(key="corrupted_text").set_value("").run())
    assert "cp" not in at.query_params


def test_a_long_corrupted_prompt_and_long_edits_are_asked_for():
    at = settled(opened("interventions", cd=state.digest(["x"]), ed=state.digest(["y"])))
    said = texts(at.warning)
    assert "a list of edits too long to carry" in said
    assert "a corrupted prompt too long to carry" in said
    assert at.query_params["cd"] == state.digest(["x"])
    settled(at.text_area(key="corrupted_text").set_value("x").run())
    assert "a corrupted prompt too long" not in texts(at.warning)
    assert "a list of edits too long" in texts(at.warning)
    assert "cd" not in at.query_params


@pytest.mark.slow
def test_tokens_to_compare_can_be_chosen_where_both_runs_have_one_likeliest():
    prompt = "def f(x):\n    return x"
    at = settled(opened("interventions", p=state.pack(prompt), cp=state.pack(prompt)))
    assert "two different tokens" in texts(at.error)
    at.text_input(key="token_answer").set_value(")")
    settled(at.text_input(key="token_against").set_value("(").run())
    assert not at.error
    assert (at.query_params["a"], at.query_params["ag"]) == (state.pack(")"), state.pack("("))


def button(at, label):
    return next(each for each in at.button if each.label == label)


@pytest.mark.slow
def test_the_numbers_are_the_librarys():
    model, baseline = load("mudd-tiny"), load("tfm-tiny")
    pair = {"model": model, "baseline": baseline, "edits": EDITS}
    drawn = catalog.draw("edited_losses", **pair, prompt=PROMPT)
    tokens = model.to_tokens(PROMPT)
    with edited(model, EDITS):
        expected = predictions(model, tokens).loss
    assert drawn.frame["loss"].tolist()[1:] == pytest.approx(expected.tolist()[1:], abs=0)

    drawn = catalog.draw("edit_effects", **pair, sequences=2)
    sweep = ablation_sweep(model, bundled_batches(2), ["cut v 7<-2", "cut head 7.2", EDITS])
    mine = drawn.frame[drawn.frame["model"] == "mudd-tiny"]
    assert mine["loss"].tolist() == sweep.frame["loss"].tolist()
    # A Transformer has no such edge: the page says so, and the head is cut.
    assert drawn.frame[drawn.frame["model"] == "tfm-tiny"]["edits"].tolist() == ["cut head 7.2"]
    assert "not done in tfm-tiny" in drawn.figure.layout.meta["definition"]


@pytest.mark.parametrize("edits", [None, "cut v 99<-2", "cut sideways"])
def test_edits_that_cannot_be_done_are_refused(edits: str | None):
    with pytest.raises(ValueError, match=r"edit|layer"):
        catalog.draw("edit_effects", edits=edits, baseline=None, sequences=1)


@pytest.mark.slow
def test_every_edge_is_cut_when_it_is_asked_for_and_is_there_for_the_next_session():
    at = opened("interventions", n="1")
    assert "contribution and cause" not in texts(at.subheader)
    settled(button(at, "Cut every edge").click().run())
    for page in (at, opened("interventions", n="1")):
        assert not page.error
        assert "contribution and cause" in texts(page.subheader)
        assert not [each for each in page.button if each.label in ("Cut every edge", "Stop")]
