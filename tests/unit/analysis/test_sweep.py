"""One loop for all analyses: the same numbers, no hook left behind, bad input named."""

from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from mudd_interp import analysis, data
from mudd_interp.analysis import DenseWeightsAnalysis, HeadActivityAnalysis, LayerSimilarityAnalysis
from tests.parity.family import FAMILY, random_model, random_tokens
from tests.unit.analysis.fakes import FakeModel


@pytest.fixture
def model():
    return random_model(FAMILY["MUDDFormer"])


@pytest.fixture
def batches(model):
    return [random_tokens(model.config, 2, 7), random_tokens(model.config, 1, 3, seed=2)]


def test_two_analyses_together_are_the_two_alone_bit_for_bit(model, batches):
    together = analysis.sweep(model, batches, ["dense_weights", "layer_similarity"])
    alone = analysis.dense_weights(model, batches), analysis.layer_similarity(model, batches)
    for a, b in zip(together, alone, strict=True):
        assert type(a) is type(b)
        assert a.provenance == b.provenance
        assert a.frame.equals(b.frame)


def test_with_patterns_only_the_attention_kernel_differs(model, batches):
    heads = HeadActivityAnalysis([1])
    similarity, weights, activity = analysis.sweep(
        model, batches, [analysis.layer_similarity, DenseWeightsAnalysis(), heads]
    )
    assert activity.frame.equals(analysis.head_activity(model, batches, [1]).frame)
    pairs = [
        (similarity, analysis.layer_similarity(model, batches), ["cosine"]),
        (weights, analysis.dense_weights(model, batches), ["mean", "std", "source_norm"]),
    ]
    for found, alone, columns in pairs:
        # float64 through two ways of computing softmax(q k) v
        np.testing.assert_allclose(found.frame[columns], alone.frame[columns], atol=1e-12)


def test_patterns_are_computed_only_when_asked_for():
    class NoPatterns(FakeModel):
        def hooks(self, fwd_hooks=(), bwd_hooks=()):
            asked.extend(name for name, _ in fwd_hooks)
            return super().hooks(fwd_hooks, bwd_hooks)

    asked, model = [], NoPatterns(lambda _: {}, n_layers=1)
    tokens = torch.zeros(1, 2, dtype=torch.int64)
    analysis.sweep(model, [tokens], ["layer_similarity", "dense_weights"])
    assert asked
    assert not any("pattern" in name or "scores" in name for name in asked)


def test_one_forward_pass_for_each_batch(batches):
    calls = []
    model = FakeModel(lambda tokens: calls.append(tokens) or {}, n_layers=1)
    analysis.sweep(model, batches, ["layer_similarity", "dense_weights", HeadActivityAnalysis([])])
    assert len(calls) == len(batches)


def test_progress_counts_and_can_stop_the_sweep(model, batches):
    seen = []
    analysis.layer_similarity(model, batches, progress=lambda *counts: seen.append(counts))
    assert seen == [(2, 14), (3, 17)]

    def stop(sequences, tokens):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        analysis.layer_similarity(model, batches, progress=stop)
    assert not any(hook.fwd_hooks for hook in model.hook_dict.values())


def test_provenance_says_what_was_seen(model, batches):
    provenance = analysis.layer_similarity(model, batches).provenance
    assert (provenance.sequences, provenance.tokens, provenance.dtype) == (3, 17, "float64")
    assert provenance.model == "random weights"
    assert provenance.data == ("token ids",)
    described = data.Batches(lambda: iter(batches), "my text")
    assert analysis.layer_similarity(model, described).provenance.data == ("my text",)


def test_the_token_digest_depends_on_sequences_not_on_batches(model):
    tokens = random_tokens(model.config, 4, 5)
    split = analysis.layer_similarity(model, [tokens[2:], tokens[:2]]).provenance.token_digest
    whole = analysis.layer_similarity(model, [tokens]).provenance.token_digest
    other = analysis.layer_similarity(model, [tokens[:, :4]]).provenance.token_digest
    assert split == whole != other


def test_hooks_of_the_user_stay_and_count(model, batches):
    clean = analysis.dense_weights(model, batches).frame
    with model.hooks(fwd_hooks=[("dense.0.hook_weights_v", lambda w, hook: w * 0)]):
        cut = analysis.dense_weights(model, batches).frame
        assert len(model.hook_dict["dense.0.hook_weights_v"].fwd_hooks) == 1
    rows = (cut["stream"] == "v") & (cut["layer"] == 0)
    assert (cut.loc[rows, ["mean", "std"]] == 0).all(axis=None)
    assert not cut.equals(clean)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([], "there are no batches"),
        (torch.zeros(2, 3, dtype=torch.int64), r"wrap a tensor as \[tokens\]"),
        ("def f():", "turn text into batches"),
        ([[1, 2, 3]], r"int64 tensors \[batch pos\], got a list"),
        ([torch.zeros(2, 3)], r"got float32 of shape \[2, 3\]"),
        ([torch.zeros(2, 3, dtype=torch.bool)], r"got bool of shape \[2, 3\]"),
        (np.zeros((2, 3), dtype=np.int64), r"wrap a tensor as \[tokens\]"),
        ([torch.zeros(3, dtype=torch.int64)], r"got int64 of shape \[3\]"),
        ([torch.zeros(0, 3, dtype=torch.int64)], r"got int64 of shape \[0, 3\]"),
    ],
)
def test_bad_batches_are_named(model, bad, message):
    with pytest.raises(ValueError, match=message):
        analysis.layer_similarity(model, bad)


def test_batches_may_be_ids_in_any_form(model, batches):
    expected = analysis.layer_similarity(model, batches).frame
    for form in (Tensor.int, Tensor.numpy, Tensor.tolist):
        found = analysis.layer_similarity(model, [form(tokens) for tokens in batches])
        pd.testing.assert_frame_equal(found.frame, expected)


def test_bad_analyses_are_named(model, batches):
    with pytest.raises(ValueError, match="did you mean `layer_similarity`"):
        analysis.sweep(model, batches, ["layer_similarty"])
    with pytest.raises(ValueError, match=r"at least one analysis of .*layer_similarity"):
        analysis.sweep(model, batches, [])


def test_a_model_in_training_mode_is_refused(model, batches):
    model.train()
    with pytest.raises(ValueError, match=r"call model\.eval\(\)"):
        analysis.layer_similarity(model, batches)


class Padding:
    """The special tokens of a tokenizer."""

    pad_token, bos_token_id = "<pad>", None

    def __init__(self, pad, eos):
        self.pad_token_id, self.eos_token_id = pad, eos


@pytest.mark.parametrize(
    ("tokenizer", "row", "padded"),
    [
        (Padding(9, 0), [1, 2, 9, 9], True),
        (Padding(9, 0), [9, 1, 2, 3], True),
        (Padding(9, 0), [0, 1, 2, 0], False),
        (Padding(0, 0), [1, 2, 0, 0], True),
        (Padding(0, 0), [0, 0, 1, 2], True),
        (Padding(0, 0), [0, 1, 2, 0], False),
        (Padding(0, 0), [1, 0, 0, 2], False),
        (Padding(None, 0), [1, 2, 0, 0], False),
    ],
)
def test_padding_is_refused(tokenizer, row, padded):
    model = FakeModel(lambda _: {}, n_layers=1, tokenizer=tokenizer)
    batches = [torch.tensor([[1, 2, 3, 4], row])]
    if padded:
        with pytest.raises(ValueError, match="a batch is padded"):
            analysis.sweep(model, batches, [LayerSimilarityAnalysis()])
    else:
        analysis.sweep(model, batches, [LayerSimilarityAnalysis()])


def test_a_lock_is_held_during_each_pass_and_the_hooks_are_gone_before_it_is_free(model, batches):
    log = []

    class Lock(nullcontext[None]):
        def __enter__(self):
            log.append("held")

        def __exit__(self, *_):
            log.append(any(hook.fwd_hooks for hook in model.hook_dict.values()))

    analysis.sweep(model, batches, ["layer_similarity"], lambda *_: log.append("progress"), Lock())
    assert log == ["held", False, "progress"] * len(batches)
