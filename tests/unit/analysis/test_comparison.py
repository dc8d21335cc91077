"""Losses of two models side by side: by hand, against all losses at once, merged and stopped."""

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from mudd_interp.analysis import (
    LossComparison,
    Result,
    check_same_vocabulary,
    compare_losses,
    ranked_texts,
)
from mudd_interp.analysis.finite import arrays_of
from mudd_interp.analysis.ranking import BEYOND
from mudd_interp.protocol import ModelInfo
from tests.parity.family import FAMILY, random_model, random_tokens
from tests.unit.analysis.fakes import LogitModel, Vocabulary, markov

LN2 = math.log(2)
UNIFORM = [1 / 4] * 4
TEXTS = Vocabulary("a", " b", "c", "d")
# Losses in units of ln 2: 0 after 3 is 2, 1 after 0 is 2, 0 after 1 is 3, 0 after 0 is 1 and
# 2 after 2 is 1.
MODEL = markov(
    [
        [1 / 2, 1 / 4, 1 / 8, 1 / 8],
        [1 / 8, 1 / 2, 1 / 4, 1 / 8],
        [1 / 4, 1 / 8, 1 / 2, 1 / 8],
        UNIFORM,
    ],
    name="mudd",
    tokenizer=TEXTS,
)
# In the same order: 2, 1, 1, 2 and 4.
BASELINE = markov(
    [
        [1 / 4, 1 / 2, 1 / 8, 1 / 8],
        [1 / 2, 1 / 4, 1 / 8, 1 / 8],
        [1 / 2, 1 / 4, 1 / 16, 3 / 16],
        UNIFORM,
    ],
    name="plain",
    tokenizer=TEXTS,
)
BATCHES = [torch.tensor([[3, 0, 1], [1, 0, 0]]), torch.tensor([[2, 2]])]


def test_the_summary_by_hand():
    summary = compare_losses(MODEL, BASELINE, BATCHES).summary
    assert summary.loss == pytest.approx(9 / 5 * LN2)
    assert summary.baseline_loss == pytest.approx(10 / 5 * LN2)
    assert summary.difference == pytest.approx(-1 / 5 * LN2)
    assert summary.model_better == summary.baseline_better == 2 / 5
    assert (summary.tokens, summary.sequences) == (5, 3)
    # Summed differences 1, 1, -3 on 2, 2, 1 tokens leave 7/5, 7/5, -14/5 beside the mean.
    expected = math.sqrt(3 / 2 * (49 + 49 + 196) / 25) / 5
    assert expected == pytest.approx(0.84)
    assert summary.standard_error == pytest.approx(0.84 * LN2)
    low, high = summary.interval
    assert low == pytest.approx((-0.2 - 1.96 * 0.84) * LN2)
    assert high == pytest.approx((-0.2 + 1.96 * 0.84) * LN2)


def test_sequences_of_one_length_give_the_textbook_standard_error():
    batches = [torch.tensor([[3, 0, 1], [1, 0, 0], [2, 2, 2]])]
    means = np.array([1 / 2, 1 / 2, -3]) * LN2
    found = compare_losses(MODEL, BASELINE, batches).summary.standard_error
    assert found == pytest.approx(means.std(ddof=1) / math.sqrt(3))


def test_one_sequence_has_no_standard_error():
    assert math.isnan(compare_losses(MODEL, BASELINE, BATCHES[1:]).summary.standard_error)


def test_the_ranked_tokens_by_hand():
    frame = compare_losses(MODEL, BASELINE, BATCHES).frame
    assert frame.columns.tolist() == [
        "better",
        "rank",
        "sequence",
        "position",
        "token_id",
        "loss",
        "baseline_loss",
        "difference",
        "context_ids",
    ]
    # The token that both find equally likely is in neither list.
    assert frame["better"].tolist() == ["model", "model", "baseline", "baseline"]
    assert frame["rank"].tolist() == [1, 2, 1, 2]
    assert frame["sequence"].tolist() == [2, 1, 1, 0]
    assert frame["position"].tolist() == [1, 2, 1, 2]
    assert frame["token_id"].tolist() == [2, 0, 0, 1]
    assert frame["difference"].tolist() == pytest.approx([-3 * LN2, -LN2, 2 * LN2, LN2])
    assert frame["loss"].tolist() == pytest.approx([LN2, LN2, 3 * LN2, 2 * LN2])
    assert frame["context_ids"].tolist() == [(2, 2), (1, 0, 0), (1, 0, 0), (3, 0, 1)]


def test_only_the_first_of_a_ranking_are_kept_and_earlier_ones_win_ties():
    frame = compare_losses(MODEL, BASELINE, [*BATCHES, *BATCHES], top=1).frame
    assert frame["sequence"].tolist() == [2, 1]
    assert frame["rank"].tolist() == [1, 1]


def test_the_context_goes_a_little_beyond_the_token():
    tokens = torch.full((1, 30), 3)
    tokens[0, 9:11] = 2
    context = compare_losses(MODEL, BASELINE, [tokens], top=1).frame["context_ids"].tolist()[0]
    assert list(context) == tokens[0, : 10 + 1 + BEYOND].tolist()


def test_ranked_tokens_can_be_read():
    comparison = compare_losses(MODEL, BASELINE, BATCHES, top=1)
    frame = ranked_texts(comparison, MODEL)
    assert "context_ids" not in frame
    assert frame[["before", "token", "after"]].to_numpy().tolist() == [
        ["c", "c", ""],
        [" b", "a", "a"],
    ]
    assert ranked_texts(comparison, MODEL, before=0)["before"].tolist() == ["", ""]
    nameless = markov([UNIFORM] * 4)
    assert ranked_texts(comparison, nameless)["after"].tolist() == ["", "0"]


def test_the_histogram_by_hand():
    frame = compare_losses(MODEL, BASELINE, BATCHES).histogram_frame
    assert frame.columns.tolist() == ["low", "high", "count"]
    filled = frame[frame["count"] > 0]
    assert filled["count"].tolist() == [1] * 5
    assert filled["low"].tolist() == pytest.approx([-2.1, -0.7, 0.0, 0.65, 1.35])
    assert filled["high"].tolist() == pytest.approx([-2.05, -0.65, 0.05, 0.7, 1.4])
    assert (frame["low"].iloc[0], frame["high"].iloc[-1]) == (-math.inf, math.inf)
    assert 0 in frame["low"].tolist()


def test_differences_outside_the_histogram_are_counted_at_its_ends():
    def rows(p):
        return [[p, 1 - p], [0.5, 0.5]]

    sure, unsure = markov(rows(1 - 1e-9)), markov(rows(1e-9))
    tokens = [torch.tensor([[0, 0, 1]])]
    counts = compare_losses(sure, unsure, tokens).histogram_frame["count"].tolist()
    assert (counts[0], counts[-1], sum(counts)) == (1, 1, 2)


def test_equal_models_differ_by_nothing():
    comparison = compare_losses(MODEL, MODEL, BATCHES)
    assert comparison.summary.difference == comparison.summary.standard_error == 0
    assert comparison.summary.model_better == comparison.summary.baseline_better == 0
    assert comparison.frame.empty


def real(batches, top=5):
    pair = [random_model(FAMILY[name]) for name in ("MUDDFormer", "Transformer++")]
    for each in pair:
        each.info = ModelInfo(name="tiny", digest="0" * 64)
    return pair, compare_losses(pair[0], pair[1], batches(pair[0].config), top=top)


def first(cfg):
    return [random_tokens(cfg, 2, 9), random_tokens(cfg, 3, 5, seed=2)]


def second(cfg):
    return [random_tokens(cfg, 1, 1, seed=3), random_tokens(cfg, 1, 4, seed=4)]


def test_everything_is_that_of_all_losses_at_once():
    models, found = real(first)
    rows = []
    for tokens in first(models[0].config):
        pair = [model.loss_per_token(tokens).detach() for model in models]
        rows += list(zip(*pair, strict=True))
    mine, theirs = (torch.cat([row[i] for row in rows]).numpy() for i in (0, 1))
    difference = mine - theirs
    assert found.summary.loss == pytest.approx(mine.mean(), rel=1e-12)
    assert found.summary.difference == pytest.approx(difference.mean(), rel=1e-12)
    assert found.summary.model_better == (difference < 0).mean()
    places = [(s, t + 1) for s, row in enumerate(rows) for t in range(len(row[0]))]
    order = difference.argsort()
    expected = [places[i] for i in [*order[:5], *order[::-1][:5]]]
    frame = found.frame
    assert list(zip(frame["sequence"], frame["position"], strict=True)) == expected
    expected = difference[[*order[:5], *order[::-1][:5]]]
    np.testing.assert_array_equal(frame["difference"], expected)


def test_merged_comparisons_are_that_of_one_run():
    whole = real(lambda cfg: [*first(cfg), *second(cfg)])[1]
    merged = real(first)[1].merge(real(second)[1])
    assert merged.provenance == whole.provenance
    assert merged.frame.equals(whole.frame)
    assert merged.histogram_frame.equals(whole.histogram_frame)
    np.testing.assert_allclose(merged.products, whole.products, rtol=1e-13)
    np.testing.assert_allclose(merged.loss_sum, whole.loss_sum, rtol=1e-13)
    assert merged.counts.tolist() == whole.counts.tolist()
    assert merged.counts.tolist()[:2] == [2 * 8 + 3 * 4 + 3, 6]
    assert merged.counts[2:].sum() == merged.counts[0]


def test_a_saved_comparison_is_the_same(tmp_path):
    found = real(first)[1]
    found.save(tmp_path / "c")
    loaded = LossComparison.load(tmp_path / "c")
    assert type(Result.load(tmp_path / "c")) is LossComparison
    assert loaded.provenance == found.provenance
    assert loaded.baseline_provenance == found.baseline_provenance
    assert loaded.summary == found.summary
    assert loaded.frame.equals(found.frame)
    assert loaded.frame.dtypes.equals(found.frame.dtypes)


def test_both_models_are_in_the_provenance_and_must_agree():
    found = compare_losses(MODEL, BASELINE, BATCHES)
    assert found.provenance.model == "mudd"
    assert found.baseline_provenance.model == "plain"
    assert found.baseline_provenance.tokens == 8
    other = markov([UNIFORM] * 4, name="other")
    with pytest.raises(ValueError, match="options differs"):
        found.merge(compare_losses(MODEL, other, BATCHES))
    with pytest.raises(ValueError, match="options differs"):
        found.merge(compare_losses(MODEL, BASELINE, BATCHES, top=3))


def test_memory_does_not_grow_with_the_corpus():
    def size(repeats):
        found = compare_losses(MODEL, BASELINE, BATCHES * repeats, top=2)
        return {name: array.nbytes for name, array in arrays_of(found).items()}

    assert size(2) == size(9)


def test_progress_counts_and_can_stop_the_comparison():
    seen = []
    compare_losses(MODEL, BASELINE, BATCHES, progress=lambda *counts: seen.append(counts))
    assert seen == [(2, 6), (3, 8)]

    def stop(sequences, tokens):
        raise KeyboardInterrupt

    models = [random_model(FAMILY[name]) for name in ("MUDDFormer", "Transformer++")]
    with pytest.raises(KeyboardInterrupt):
        compare_losses(models[0], models[1], first(models[0].config), progress=stop)
    hooks = [hook for model in models for hook in model.hook_dict.values()]
    assert not any(hook.fwd_hooks for hook in hooks)
    assert torch.is_grad_enabled()


def test_a_lock_is_held_while_both_models_see_a_batch_and_free_in_between():
    log = []

    class Lock(nullcontext[None]):
        def __enter__(self):
            log.append("held")

        def __exit__(self, *_):
            log.append("free")

    def watched(model):
        return LogitModel(lambda tokens: log.append("pass") or model.logits(tokens), d_vocab=4)

    compare_losses(
        watched(MODEL),
        watched(BASELINE),
        BATCHES,
        progress=lambda *_: log.append("progress"),
        lock=Lock(),
    )
    assert log == ["held", "pass", "pass", "free", "progress"] * 2


def test_hooks_of_the_user_stay_and_count():
    clean, plain = (random_model(FAMILY[name]) for name in ("MUDDFormer", "Transformer++"))
    batches = first(clean.config)
    before = compare_losses(clean, plain, batches).summary
    with clean.hooks(fwd_hooks=[("dense.0.hook_weights_v", lambda w, hook: w * 0)]):
        after = compare_losses(clean, plain, batches).summary
    assert after.baseline_loss == before.baseline_loss
    assert after.loss != before.loss


@pytest.mark.parametrize(
    ("batches", "options", "message"),
    [
        ([], {}, "there are no batches"),
        ([torch.tensor([[1], [2]])], {}, "sequences of at least two tokens"),
        (torch.zeros(2, 3, dtype=torch.int64), {}, r"wrap a tensor as \[tokens\]"),
        ([torch.zeros(2, 3)], {}, r"got float32 of shape \[2, 3\]"),
        (BATCHES, {"top": 0}, "top must be at least 1, got 0"),
    ],
)
def test_bad_input_is_named(batches, options, message):
    with pytest.raises(ValueError, match=message):
        compare_losses(MODEL, BASELINE, batches, **options)


def test_a_model_in_training_mode_is_refused():
    model, training = (random_model(FAMILY["MUDDFormer"]) for _ in range(2))
    training.train()
    with pytest.raises(ValueError, match=r"call model\.eval\(\)"):
        compare_losses(model, training, first(model.config))


def test_vocabularies_must_agree_id_by_id():
    rows = [UNIFORM] * 4
    other = markov(rows, name="plain", tokenizer=Vocabulary("a", "c", " b", "d"))
    with pytest.raises(ValueError, match=r"mudd and plain .* ' b' has id 1 and 2"):
        compare_losses(MODEL, other, BATCHES)
    with pytest.raises(ValueError, match="'d' has id 3 and None"):
        check_same_vocabulary(MODEL, markov(rows, tokenizer=Vocabulary("a", " b", "c", "e")))
    check_same_vocabulary(MODEL, markov(rows, tokenizer=Vocabulary("a", " b", "c", "d", "new")))
    check_same_vocabulary(markov(rows, tokenizer=Vocabulary("a")), MODEL)


def test_without_tokenizers_vocabularies_must_be_of_one_size():
    with pytest.raises(ValueError, match="mudd and fake have vocabularies of 4 and 2"):
        check_same_vocabulary(MODEL, markov([[0.5, 0.5]] * 2))
    check_same_vocabulary(MODEL, markov([UNIFORM] * 4))
