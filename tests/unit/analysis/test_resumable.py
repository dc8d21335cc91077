"""A sweep that was interrupted resumes, and gives the same numbers to the bit."""

from pathlib import Path

import numpy as np
import pytest

from mudd_interp.analysis import Analysis, HeadActivityAnalysis, resumable_sweep, sweep
from tests.parity.family import FAMILY, random_model, random_tokens

ANALYSES = ["layer_similarity", HeadActivityAnalysis([1, 2]), "dense_weights"]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Analysis, "chunk", 2)


def work(n_batches: int = 7, family: str = "MUDDFormer"):
    model = random_model(FAMILY[family])
    return model, [random_tokens(model.config, 2, 5, seed=i) for i in range(n_batches)]


def stop_after(batches: int):
    def progress(sequences: int, tokens: int) -> None:
        if sequences == 2 * batches:
            raise KeyboardInterrupt

    return progress


def assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert a.provenance == b.provenance
        assert a.frame.equals(b.frame)


@pytest.mark.parametrize("after", [1, 2, 3, 5, 7])
def test_an_interrupted_sweep_goes_on(after: int, tmp_path: Path):
    model, batches = work()
    whole = resumable_sweep(model, batches, ANALYSES, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        resumable_sweep(model, batches, ANALYSES, tmp_path / "part", stop_after(after))
    kept = 7 if after == 7 else after // 2 * 2  # what was reported last is kept
    assert (tmp_path / "part").exists() == (kept > 0)
    counted: list[int] = []
    found = resumable_sweep(
        model, batches, ANALYSES, tmp_path / "part", lambda sequences, _: counted.append(sequences)
    )
    assert_same(found, whole)
    assert counted == [2 * n for n in range(kept + 1, len(batches) + 1)]


def test_the_numbers_are_those_of_a_sweep(tmp_path: Path):
    model, batches = work()
    for a, b in zip(
        resumable_sweep(model, batches, ANALYSES, tmp_path / "state"),
        sweep(model, batches, ANALYSES),
        strict=True,
    ):
        numbers = a.frame.select_dtypes(float).columns
        # float64 sums, added in another order
        np.testing.assert_allclose(a.frame[numbers], b.frame[numbers], rtol=1e-12, atol=1e-14)
        assert a.provenance == b.provenance


def test_a_complete_one_runs_nothing(tmp_path: Path):
    model, batches = work()
    whole = resumable_sweep(model, batches, ANALYSES, tmp_path / "state")
    again = resumable_sweep(model, batches, ANALYSES, tmp_path / "state", stop_after(1))
    assert_same(again, whole)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("model", "another model|another digest|another dtype|shape"),
        ("text", "another token_digest"),
        ("shorter", "a longer text"),
        ("options", "other options: sink_token_ids"),
        ("fewer analyses", "other analyses"),
        ("order", "a LayerSimilarity where another is wanted"),
        ("file", "something else"),
    ],
)
def test_a_state_of_something_else_is_refused(change: str, words: str, tmp_path: Path):
    model, batches = work()
    state = tmp_path / "state"
    resumable_sweep(model, batches, ANALYSES, state)
    analyses = list(ANALYSES)
    if change == "model":
        model, _ = work()
        model.info = type(model.info)("another")
    if change == "text":
        batches[0] = batches[0].flip(1)
    if change == "shorter":
        batches = batches[:4]
    if change == "options":
        analyses[1] = HeadActivityAnalysis([3])
    if change == "fewer analyses":
        analyses = analyses[:2]
    if change == "order":
        analyses = [analyses[2], analyses[1], analyses[0]]
    if change == "file":
        (state / "thesis.txt").touch()
    with pytest.raises(ValueError, match=words):
        resumable_sweep(model, batches, analyses, state)


def test_no_batches_is_an_error(tmp_path: Path):
    model, _ = work()
    with pytest.raises(ValueError, match="there are no batches"):
        resumable_sweep(model, [], ANALYSES, tmp_path / "state")
    assert not (tmp_path / "state").exists()
