"""One walk for every analysis: one set of options, and what a walk promises holds for all."""

import threading
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from mudd_interp import analysis
from mudd_interp.analysis import Analysis, Result, resumable_sweep, sweep
from mudd_interp.analysis.finite import arrays_of
from mudd_interp.analysis.result import Places
from mudd_interp.data import bundled_batches, repeated_batches
from mudd_interp.protocol import ModelInfo
from tests.bundled import load
from tests.parity.family import HYPER, random_model
from tests.unit import seeing

WITHOUT_DEFAULT: dict[str, dict[str, Any]] = {
    "compare_losses": {"baseline": "tfm-tiny"},
    "head_inputs": {"layer": 1, "head": 0},
}
"""The options that an analysis requires."""
FEW = {"ablation_sweep": {"edits": ("cut v 5<-2", "cut head 7.2; cut mlp 3")}}
"""Options that make it quick."""


def reads_images(name: str) -> bool:
    return "images" in Analysis.named[name].requires


def model_of(name: str) -> Any:
    """A model that an analysis is for."""
    if "mixing" in Analysis.named[name].requires:
        return hyper_model()
    return seeing.vision_model() if reads_images(name) else load("mudd-tiny")


@cache
def hyper_model() -> Any:
    model = random_model(replace(HYPER["mHC"], d_vocab=4096, n_ctx=64))
    model.info = ModelInfo(name="mHC", digest="1" * 64)
    return model


def given(name: str) -> dict[str, Any]:
    options = WITHOUT_DEFAULT.get(name, {})
    return {k: load(v) if k == "baseline" else v for k, v in options.items()}


def text(name: str, lengths: tuple[int, ...] = (12, 12, 7)) -> list[torch.Tensor]:
    """Three batches of different lengths; for head scores of tokens that repeat; or images."""
    if name and reads_images(name):
        return seeing.batches(2, 2, 1)
    if name == "head_scores":
        return list(repeated_batches(load("mudd-tiny"), n_sequences=5, batch_size=2))
    rows = torch.cat(list(bundled_batches(5)))
    starts = (0, 2, 4)
    return [
        rows[start : start + 2, 40 : 40 + length]
        for start, length in zip(starts, lengths, strict=True)
    ]


def quick(name: str) -> Analysis[Any]:
    return Analysis.named[name](**given(name), **FEW.get(name, {}))


def assert_same(found: Result, expected: Result) -> None:
    assert type(found) is type(expected)
    assert found.provenance == expected.provenance
    for array, values in arrays_of(expected).items():
        np.testing.assert_array_equal(getattr(found, array), values)


def test_every_result_of_a_corpus_has_an_analysis_of_a_function_s_name():
    kinds = {each.result for each in Analysis.named.values()}
    assert len(kinds) == len(Analysis.named)
    for name, kind in Analysis.named.items():
        function = getattr(analysis, name)
        assert function.__name__ == kind.name == name
    of_prompts = {"EdgePatch", "StatePatch"}
    ours = {n for n, each in Result.kinds.items() if each.__module__.startswith("mudd_interp")}
    assert ours - {kind.__name__ for kind in kinds} == of_prompts


@pytest.mark.parametrize("name", Analysis.named)
def test_a_function_and_its_name_have_one_set_of_defaults(name: str):
    # Of a plain model there are few edges to cut.
    model = load("tfm-tiny") if name == "ablation_sweep" else model_of(name)
    options = given(name)
    batches = text(name)[:1] if reads_images(name) else [text("")[0][:, :6]]
    if name == "head_scores":
        (found,) = sweep(model, repeated_batches(model), [name])
        assert_same(found, analysis.head_scores(model))
        return
    expected = getattr(analysis, name)(model, batches=batches, **options)
    if options:
        with pytest.raises(ValueError, match=f"{name} has no default for {next(iter(options))}"):
            sweep(model, batches, [name])
    else:
        assert_same(sweep(model, batches, [name])[0], expected)
        assert_same(sweep(model, batches, [getattr(analysis, name)])[0], expected)
    assert_same(sweep(model, batches, [Analysis.named[name](**options)])[0], expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", Analysis.named)
def test_every_walk_is_stopped_goes_on_and_is_saved(name: str, tmp_path: Any):
    model, batches = model_of(name), text(name)
    (whole,) = sweep(model, batches, [quick(name)])
    seen: list[int] = []

    def stop(sequences: int, tokens: int) -> None:
        seen.append(sequences)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Analysis, "chunk", 1)
        with pytest.raises(KeyboardInterrupt):
            resumable_sweep(model, batches, [quick(name)], tmp_path / "state", stop)
        assert not any(hook.fwd_hooks for hook in model.hook_dict.values())
        (found,) = resumable_sweep(
            model, batches, [quick(name)], tmp_path / "state", lambda n, _: seen.append(n)
        )
    assert seen == [2, 4, 5]
    assert found.provenance == whole.provenance
    found.save(tmp_path / "result")
    assert_same(Result.load(tmp_path / "result"), found)
    for array, values in arrays_of(whole).items():  # float64 sums, added in another order
        np.testing.assert_allclose(getattr(found, array), values, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", Analysis.named)
def test_every_walk_holds_the_lock_while_a_model_runs_and_frees_it_between(name: str):
    class Lock:
        def __init__(self):
            self.lock, self.turns = threading.Lock(), 0

        def __enter__(self):
            assert self.lock.acquire(blocking=False), "a lock is taken once"
            self.turns += 1

        def __exit__(self, *_: object):
            assert not torch.is_grad_enabled()
            self.lock.release()

    model, lock = model_of(name), Lock()

    def watch(x: Any, hook: Any) -> None:
        assert lock.lock.locked()

    with torch.no_grad(), model.hooks([("hook_embed", watch)]):
        sweep(model, text(name), [quick(name)], lambda *_: watch_free(lock), lock)
    assert lock.turns >= 3


def watch_free(lock: Any) -> None:
    assert not lock.lock.locked()


@pytest.mark.slow
@pytest.mark.parametrize("name", Analysis.named)
def test_shares_of_a_corpus_are_joined_in_its_order(name: str):
    """Every second batch each, as two processes have them."""
    model, batches = model_of(name), text(name)
    (whole,) = sweep(model, batches, [quick(name)])
    shares = [sweep(model, batches[at::2], [quick(name)])[0] for at in (0, 1)]
    numbers = [torch.arange(5).split(2)[at::2] for at in (0, 1)]
    places = [
        Places(
            torch.cat(each).numpy(),
            np.concatenate([[model.front.positions(b)] * len(b) for b in batches[at::2]]),
        )
        for at, each in enumerate(numbers)
    ]
    found = type(whole).joined(shares, places)
    assert found.provenance == whole.provenance
    for array, values in arrays_of(whole).items():
        np.testing.assert_allclose(getattr(found, array), values, rtol=1e-12, atol=1e-13)


def test_gains_of_long_sequences_are_joined_in_order():
    model, batches = load("mudd-tiny"), text("", (12, 30, 30))
    how = analysis.InContextLossAnalysis(early=5, late=20, reach=1)
    (whole,) = sweep(model, batches, [how])
    shares = [sweep(model, batches[at::2], [how])[0] for at in (0, 1)]
    places = [
        Places(np.array([0, 1, 4]), np.array([12, 12, 30])),
        Places(np.array([2, 3]), np.array([30, 30])),
    ]
    found = type(whole).joined(shares, places)
    np.testing.assert_array_equal(found.gain, whole.gain)
    assert found.score == whole.score


def test_a_pass_that_nobody_reads_is_not_made():
    model, calls = load("mudd-tiny"), list[int]()
    (tokens,) = text("")[:1]
    with model.hooks([("hook_embed", lambda x, hook: calls.append(len(x)))]):
        sweep(model, [tokens], [quick("edge_attribution")])
        assert len(calls) == 1
        sweep(model, [tokens], [quick("in_context_loss"), quick("layer_similarity")])
        assert len(calls) == 2
