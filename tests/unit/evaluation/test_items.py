"""The shipped items: from the files that they name, readable as meant, and balanced."""

from collections import Counter

import pytest

from mudd_interp.evaluation import build
from mudd_interp.evaluation.items import Item, path_of, read_items
from mudd_interp.evaluation.names import FEATURES, credit
from mudd_interp.evaluation.rules import RULES, innermost
from mudd_interp.training.corpus import read_manifest
from mudd_interp.training.tokenizer import load_packing_tokenizer

TASKS = tuple(build.BUILDERS)


def item(context: str, *choices: str, answer: int = 0) -> Item:
    return Item("p", "1", "a.py", "0" * 64, len(context), context, choices, answer)


@pytest.mark.parametrize("task", TASKS)
def test_every_item_is_of_a_held_out_file(task: str):
    held_out = {
        (each.package, each.version, each.path, each.sha256)
        for each in read_manifest()
        if each.split == "validation"
    }
    for each in read_items(task):
        assert (each.package, each.version, each.path, each.sha256) in held_out


@pytest.mark.parametrize("task", TASKS)
def test_the_tokenizer_cuts_where_the_item_does_and_all_of_it_fits(task: str):
    """Trap 1: across a merge the harness would score other tokens, or none. Ours have no merge."""
    tokenizer = load_packing_tokenizer()
    asked = [(each.context, choice) for each in read_items(task) for choice in each.choices]

    def ids(texts: list[str]) -> list[list[int]]:
        found = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [each.ids for each in found]

    before, after = ids([c for c, _ in asked]), ids([answer for _, answer in asked])
    for whole, one, other in zip(ids([c + a for c, a in asked]), before, after, strict=True):
        assert other
        assert whole == one + other
        assert len(whole) <= build.MOST_TOKENS


@pytest.mark.parametrize("task", TASKS)
def test_a_context_ends_with_no_space_and_a_choice_brings_one_at_most(task: str):
    """Trap 2: the harness takes white space at the end of a context for the continuation's."""
    for each in read_items(task):
        assert not each.context[-1].isspace()
        assert all(choice.removeprefix(" ").strip() == choice.strip() for choice in each.choices)
        assert all(not choice[1:].startswith(" ") for choice in each.choices)


def test_cloze_distractors_match_the_right_name():
    items = read_items("identifier_cloze")
    cutter = build.Cutter(load_packing_tokenizer())
    assert len(items) == 1_700
    for each in items:
        assert len(set(each.choices)) == 4
        assert len({len(cutter.ids(choice)) for choice in each.choices}) == 1
        assert all(choice.strip() in each.context for choice in each.choices)


def test_no_feature_of_a_name_gives_the_cloze_away():
    """Neither the largest nor the smallest of any; and the same of every beginning of the file."""
    items = read_items("identifier_cloze")
    for some in (items, items[:400]):
        for feature in FEATURES.values():
            for sign in (1, -1):
                values = [
                    tuple(sign * feature(each.context, c.strip()) for c in each.choices)
                    for each in some
                ]
                worth = [credit(v, e.answer) for v, e in zip(values, some, strict=True)]
                assert sum(worth) / len(worth) == pytest.approx(0.25, abs=0.01)


def test_the_name_of_lambada_was_used_but_not_just_now():
    for each in read_items("lambada_code"):
        (name,) = (choice.strip() for choice in each.choices)
        assert name in each.context
        assert name not in each.context[-build.UNUSED_FOR :].replace(".", " ").split()


def test_brackets_have_four_choices_and_as_many_of_each_as_there_are():
    counts = Counter(each.right for each in read_items("closing_bracket"))
    assert counts[")"] == counts[":"] == 250
    assert set(counts) == set(build.CLOSING)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_the_shipped_items_are_what_the_builder_makes(task: str):
    assert tuple(build.build(build.held_out_documents(), task)) == read_items(task)


def test_a_damaged_file_of_items_is_named(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mudd_interp.evaluation.items.FOLDER", tmp_path)
    path_of("a").write_text('{"package": "p"}\n')
    for task, says in (("a", "version"), ("b", "No such file")):
        with pytest.raises(ValueError, match=rf"{task}\.jsonl is missing.*{says}"):
            read_items(task)


def test_rules_by_hand():
    cloze = RULES["identifier_cloze"]
    one = item("long = ab = long = cd + ab", " ab", " cd", " long", " x", answer=0)
    assert cloze["shortest name"](one) == 0.0  # x is shorter
    assert cloze["most frequent"](one) == 0.5  # as long
    assert cloze["most recent"](one) == 1.0
    write = RULES["lambada_code"]
    copied = item("f(alpha, beta)\nf(alpha,", " beta")
    assert write["copied from before"](copied) == 1.0
    assert write["most recent"](copied) == 0.0
    assert write["most frequent"](item("a b a b c,", " b")) == 0.5
    assert write["copied from before"](item("f(alpha)\ng(beta,", " alpha")) == 0.0


@pytest.mark.parametrize(
    ("context", "closes"),
    [("f(a[1", "]"), ("f(a[1]", ")"), ("{1", "}"), ("if x", ":"), ("f(a)", ":")],
)
def test_the_innermost_open_bracket(context: str, closes: str):
    assert innermost(context) == closes
