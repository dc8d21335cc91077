"""A study keeps results under a key made of everything that changes them."""

import copy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from mudd_interp.analysis import (
    AblationAnalysis,
    DenseWeightsAnalysis,
    HeadActivityAnalysis,
    LayerSimilarityAnalysis,
    ablation_sweep,
    compare_losses,
    dense_weights,
    state_patch,
)
from mudd_interp.catalog import FIGURES, draw, draw_kind
from mudd_interp.catalog.weights import edge_place
from mudd_interp.data import bundled_batches
from mudd_interp.model.tokens import Tokens
from mudd_interp.request import HEAD_MEASURES, Mode, Request
from mudd_interp.study import Need, Study, attention_pattern
from mudd_interp.texts import corpus_of, corrupted_of, text_files
from tests.bundled import load
from tests.kinds import OF_ANY
from tests.parity.family import FAMILY, random_model

PROMPT, CORRUPTED = "def f(x):\n    return x", "def g(y):\n    return y"
SHORT = Request(sequences=1, context=16, edits="cut v 5<-2; cut head 7.2", corrupted=CORRUPTED)
KEPT: dict[str, Any] = {}  # what is the same in every figure is computed once


def study(request: Request, kept: dict[str, Any]) -> Study:
    return Study(request, load, kept)


@pytest.mark.parametrize(
    "change",
    [
        {"sequences": 2},
        {"context": 17},
        {"text": "TEXT"},
        {"scope": "prompt", "prompt": "x = 1"},
        {"scope": "prompt", "prompt_ids": (5, 6)},
        {"model": "tfm-tiny"},
        {"dtype": "float64"},
    ],
)
def test_what_changes_a_result_makes_a_new_one(change: dict[str, Any], tmp_path: Path):
    (tmp_path / "text.py").write_text("def f(x):\n    return x\n" * 8)
    change = {k: str(tmp_path / "text.py") if v == "TEXT" else v for k, v in change.items()}
    kept: dict[str, Any] = {}
    for request in (SHORT, Request.of_values(asdict(SHORT) | change)):
        study(request, kept).result("model", LayerSimilarityAnalysis())
    assert len(kept) == 2


def test_a_file_with_new_contents_is_a_new_text(tmp_path: Path):
    file, kept = tmp_path / "text.py", dict[str, Any]()
    for text in ("a = 1\n" * 20, "b = 2\n" * 20):
        file.write_text(text)
        request = replace(SHORT, text=str(file))
        study(request, kept).result("model", LayerSimilarityAnalysis())
    assert len(kept) == 2


def test_a_text_that_is_missing_gets_no_result_of_the_bundled_one(tmp_path: Path):
    kept: dict[str, Any] = {}
    study(SHORT, kept).result("model", LayerSimilarityAnalysis())
    gone = replace(SHORT, text=str(tmp_path / "gone.txt"))
    with pytest.raises(ValueError, match=r"no text file .*gone\.txt"):
        study(gone, kept).result("model", LayerSimilarityAnalysis())


@pytest.mark.parametrize("context", [64, 100])
def test_the_bundled_text_cut_anew_has_the_same_tokens(context: int):
    model: Any = load("mudd-tiny")
    batches = corpus_of(Request(context=context), model, [model])
    stream = torch.cat([tokens.flatten() for tokens in batches]).tolist()
    rows = [row for tokens in bundled_batches() for row in tokens.tolist()]
    assert stream == [token for row in rows for token in ([] if row[0] == 0 else [0]) + row]


def test_the_bundled_text_in_another_tokenizers_tokens_has_no_separators_as_text():
    model: Any = load("mudd-tiny")
    other = random_model(FAMILY["MUDDFormer"])
    backend = copy.deepcopy(model.tokenizer.backend_tokenizer)
    backend.add_tokens(["def "])
    other.tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    texts = [
        str(other.to_string(row)).removeprefix("<|endoftext|>")
        for tokens in bundled_batches()
        for row in tokens.tolist()
    ]
    batches = corpus_of(Request(context=24), other, [other])
    stream = torch.cat([tokens.flatten() for tokens in batches]).tolist()
    assert other.to_string(stream) == "".join(f"<|endoftext|>{text}" for text in texts)
    assert stream.count(0) == len(texts)


def test_the_texts_of_a_folder_are_those_that_are_read(tmp_path: Path):
    (tmp_path / "more").mkdir()
    texts = tmp_path / "texts"
    texts.mkdir()
    for path in (texts / "a.txt", texts / ".hidden", tmp_path / "more" / "b.txt"):
        path.write_text("a = 1")
    (texts / "more").symlink_to(tmp_path / "more")
    (texts / "up").symlink_to(tmp_path)
    request = replace(SHORT, text=str(texts))
    assert list(text_files(request)) == [str(texts / "a.txt"), str(texts / "more" / "b.txt")]


def test_a_prompt_may_be_ids_in_any_form():
    expected = draw("next_tokens", prompt_ids=[5, 6, 7], baseline=None).frame
    for ids in (torch.tensor([5, 6, 7]), torch.tensor([[5, 6, 7]]).int(), np.array([5, 6, 7])):
        found = draw("next_tokens", prompt_ids=ids, baseline=None).frame
        pd.testing.assert_frame_equal(found, expected)


def test_options_of_an_analysis_and_of_a_reading_are_in_the_key():
    kept: dict[str, Any] = {}
    this = study(SHORT, kept)
    for sinks in ((), (5,)):
        this.result("model", HeadActivityAnalysis(sinks))
    for layer in (0, 1):
        this.of_prompt("model", attention_pattern, layer=layer)
    assert len(kept) == 4


def test_the_same_request_computes_nothing_again():
    kept: dict[str, Any] = {}
    first = study(SHORT, kept).result("model", LayerSimilarityAnalysis())
    again = replace(SHORT, layer=2, stream="q", mode="overlay")
    assert study(again, kept).result("model", LayerSimilarityAnalysis()) is first


def test_several_figures_share_one_pass():
    calls: list[tuple[int, int]] = []
    this = Study(SHORT, load, progress=lambda *seen: calls.append(seen))
    analyses = (LayerSimilarityAnalysis(), HeadActivityAnalysis())
    this.prepare([Need(role, each) for role in this.roles for each in analyses])
    assert calls == [(1, 16), (2, 32)]  # one batch of each model


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_ANY)
def test_every_figure_can_be_of_a_prompt(name: str):
    kind = FIGURES[name]
    request = replace(SHORT, prompt=PROMPT, scope="prompt")
    drawn = draw_kind(kind, Study(request, load, KEPT))
    assert len(drawn.frame)
    assert drawn.figure.data


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_ANY)
def test_a_mode_that_cannot_be_is_refused_and_the_others_are_drawn(name: str):
    kind = FIGURES[name]
    for mode in ("overlay", "side_by_side", "difference"):
        values = asdict(SHORT) | {"prompt": PROMPT, "scope": "prompt", "mode": mode}
        request = Request.of_values(values)
        if mode in kind.modes:
            assert draw_kind(kind, Study(request, load, KEPT)).figure.data
        else:
            with pytest.raises(ValueError, match=f"cannot be drawn in mode {mode}"):
                kind.check(request)


@pytest.mark.parametrize("name", ["dense_weights", "token_weights", "edge", "edge_distribution"])
def test_the_numbers_of_both_models_are_in_the_table_where_both_are_in_the_picture(name: str):
    request = replace(SHORT, prompt=PROMPT, mode="overlay", stream="k", layer=3, source=4)
    this = Study(request, load, KEPT)
    frame: Any = draw_kind(FIGURES[name], this).frame
    rows = frame.groupby("model").mean(numeric_only=True)
    assert set(rows.index) == {this.name("model"), this.name("baseline")}
    column = "total" if "total" in frame else "mean"
    assert rows.loc[this.name("model"), column] != rows.loc[this.name("baseline"), column]
    if "edge" in name:  # the newest source, which a plain Transformer reads with weight one
        assert rows.loc[this.name("baseline"), column] == 1


def test_a_prompt_that_is_too_long_says_how_long():
    with pytest.raises(ValueError, match="context of 256"):
        study(Request(prompt_ids=(5,) * 257), {}).prompt("model")


def test_the_block_that_reads_is_one_of_its_own_or_the_layer():
    assert study(Request(layer=12), {}).block("model") == 12
    assert study(Request(layer=4, block=5), {}).block("model") == 5
    assert study(Request(), {}).block("model") == study(Request(), {}).layer("model")
    for name in ("layer", "block"):
        message = rf"{name} must lie in 0\.\.12 for mudd-tiny \(12 is the final norm\)"
        with pytest.raises(ValueError, match=message):
            study(replace(Request(), **{name: 13}), {}).block("model")


@pytest.mark.parametrize("figure", ["edge_patch", "state_patch"])
@pytest.mark.parametrize(
    ("corrupted", "message"),
    [(None, "no corrupted prompt"), ("x", "of one shape"), (PROMPT, "two different tokens")],
)
def test_a_corrupted_prompt_that_cannot_be_held_against_is_refused(figure, corrupted, message):
    request = replace(SHORT, prompt=PROMPT, corrupted=corrupted)
    with pytest.raises(ValueError, match=message):
        draw_kind(FIGURES[figure], study(request, {}))


def test_the_baseline_is_asked_for_the_tokens_that_the_model_expects():
    request = replace(SHORT, prompt=PROMPT, of="baseline")
    this = study(request, {})
    drawn = draw_kind(FIGURES["state_patch"], this)
    model, baseline = this.models["model"], this.models["baseline"]
    words = Tokens(model.tokenizer, model.cfg)
    clean, corrupted = words.to_tokens(PROMPT), words.to_tokens(CORRUPTED)
    with torch.no_grad():
        expected = [int(model(tokens)[0, -1].argmax()) for tokens in (clean, corrupted)]
        own = [int(baseline(tokens)[0, -1].argmax()) for tokens in (clean, corrupted)]
    assert own != expected
    found = state_patch(baseline, clean, corrupted, torch.tensor([expected]))
    pd.testing.assert_frame_equal(drawn.frame, found.frame)


def test_two_tokens_to_compare_that_are_one_are_named_by_their_text():
    request = replace(SHORT, prompt=PROMPT, corrupted=PROMPT, answer=")", against=")")
    with pytest.raises(ValueError, match=r"both are '\)'"):
        draw_kind(FIGURES["edge_patch"], study(request, {}))


def test_activity_by_depth_has_the_columns_and_rows_of_the_other_scores():
    frames = [
        draw_kind(FIGURES["head_scores_by_depth"], study(replace(SHORT, score=score), {})).frame
        for score in ("activity", "entropy")
    ]
    assert [list(frame)[-1] for frame in frames] == ["activity", "entropy"]
    first, second = (frame[["model", "layer", "head"]] for frame in frames)
    assert first.equals(second)


def test_a_corrupted_prompt_is_ids_where_there_is_no_tokenizer():
    model = random_model(FAMILY["MUDDFormer"])
    assert corrupted_of(Request(corrupted="5, 17"), model, [model]).tolist() == [[5, 17]]
    with pytest.raises(ValueError, match="give token ids, 5,17,9, not 'five'"):
        corrupted_of(Request(corrupted="five"), model, [model])


def test_a_place_outside_the_model_is_named():
    for change, message in (
        ({"layer": 12}, r"layer must lie in 0\.\.11"),
        ({"position": 32}, r"position must lie in 0\.\.31"),
        ({"head": 4}, r"head must lie in 0\.\.3"),
    ):
        this = study(Request.of_values(change), {})
        with pytest.raises(ValueError, match=message):
            getattr(this, next(iter(change)))("model")


@pytest.mark.slow
@pytest.mark.parametrize("score", HEAD_MEASURES)
def test_heads_are_in_the_order_of_any_score(score):
    drawn = draw_kind(FIGURES["head_scores"], study(replace(SHORT, score=score), {}))
    column = drawn.frame["active" if score == "activity" else score]
    assert column.is_monotonic_decreasing


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_says_why_it_cannot_be_drawn_in_a_mode(name):
    kind = FIGURES[name]
    assert set(kind.modes) | set(kind.why_not) == set(get_args(Mode))


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["corpus", "prompt"])
@pytest.mark.parametrize("name", OF_ANY)
def test_all_walks_of_a_figure_are_among_its_needs(name: str, scope: Any, monkeypatch: Any):
    kind, request = FIGURES[name], replace(SHORT, prompt=PROMPT, scope=scope)
    request = replace(request, edits="mean v 5<-2; cut head 7.2")
    for mode in kind.modes:
        this = Study(replace(request, mode=mode), load, KEPT)
        this.prepare(kind.needs(this))
        with monkeypatch.context() as patch:
            patch.setattr("mudd_interp.study.sweep_over_ranks", None)
            assert draw_kind(kind, this).figure.data


def test_a_study_by_another_request_has_a_prompt_and_a_text_of_its_own():
    this = study(replace(SHORT, prompt="x = 1"), {})
    first = this.prompt("model").tolist(), this.key(Need("model", LayerSimilarityAnalysis()))
    other = this.with_request(replace(SHORT, prompt="y = 2", sequences=2))
    second = other.prompt("model").tolist(), other.key(Need("model", LayerSimilarityAnalysis()))
    assert first[0] != second[0]
    assert first[1] != second[1]
    assert this.prompt("model").tolist() == first[0]


def test_means_are_computed_first_and_given_on():
    this = study(SHORT, {})
    means = Need("model", DenseWeightsAnalysis())
    need = Need("model", AblationAnalysis(("mean v 5<-2",)), after=means)
    assert [len(walk) for walk in this.walks([need])] == [1, 1]
    found = this.of(need)
    model, text = this.models["model"], this.batches("model")
    expected = ablation_sweep(model, text, ["mean v 5<-2"], means=dense_weights(model, text))
    np.testing.assert_array_equal(found.loss_change, expected.loss_change)
    assert found.provenance == expected.provenance
    assert this.walks([need]) == []


def test_the_losses_of_both_are_of_the_corpus_whatever_the_scope():
    this = study(replace(SHORT, prompt=PROMPT, scope="prompt"), {})
    found = this.of(this.comparison())
    assert found.provenance.tokens == 16
    model, baseline = this.models.values()
    expected = compare_losses(model, baseline, corpus_of(SHORT, model, [model, baseline]))
    np.testing.assert_array_equal(found.loss_sum, expected.loss_sum)


def test_a_row_that_does_not_read_the_usual_source_shows_one_that_it_reads():
    """With dilation 2, row 2 reads X_1 and X_3, row 1 X_0 and X_2."""
    cfg = replace(FAMILY["DenseFormer, dilation 2"], d_vocab=4096)
    model = random_model(cfg)
    model.tokenizer = load("tfm-tiny").tokenizer

    def place(**values: Any) -> tuple[int, int]:
        request = Request(baseline=None, context=16, **values)
        return edge_place(Study(request, lambda *_, **__: model))

    assert place(layer=2) == (2, 1)
    assert place(layer=1) == (1, 0)
    assert place(layer=1, source=1) == (1, 1)  # asked for: the figure says that it is not read
