"""W in the delta basis over a corpus: against W of one batch, and as a difference."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import mudd_interp as mi
from mudd_interp.analysis import (
    DeltaWeights,
    Result,
    delta_difference,
    delta_weights,
    read_weights,
)
from tests.identities.errors import BRIDGED, TOKENS, model_of
from tests.parity.family import APART, ATTNRES, FAMILY, HYPER, NORMED_HEADS, random_model

EVERY = FAMILY | HYPER | NORMED_HEADS | ATTNRES | APART
NUMBERS = [name for name, cfg in EVERY.items() if cfg.wiring.kind != "prepost"]


def made(name: str) -> Any:
    return random_model(EVERY[name]) if name in EVERY else model_of(name)


@pytest.mark.parametrize("name", [*NUMBERS, *BRIDGED])
def test_moments_are_those_of_read_weights(name: str) -> None:
    model = made(name)
    found = delta_weights(model, [TOKENS[:1], TOKENS[1:, :5]])
    batches = [read_weights(model, tokens) for tokens in (TOKENS[:1], TOKENS[1:, :5])]
    assert tuple(found.reads) == batches[0].reads
    assert tuple(found.writes) == batches[0].writes
    rows = [each.weights.reshape(len(each.reads), -1, len(each.writes)) for each in batches]
    tokens = np.concatenate(rows, axis=1)
    there = ~np.isnan(found.mean)
    np.testing.assert_allclose(found.mean[there], tokens.mean(1)[there], atol=1e-12)
    np.testing.assert_allclose(np.sqrt(found.m2 / 12)[there], tokens.std(1)[there], atol=1e-7)
    assert (tokens[~there[:, None].repeat(12, 1)] == 0).all()
    frame: Any = found.frame
    assert list(frame) == ["part", "layer", "stream", "write", "mean", "std"]
    assert not frame.duplicated(["part", "layer", "stream", "write"]).any()


def test_a_plain_transformer_takes_one_of_everything() -> None:
    found = delta_weights(made("Transformer++"), [TOKENS])
    assert set(found.frame["mean"]) == {1.0}
    assert found.attention_streams == ("r",)
    assert made("MUDDFormer").wiring.streams == ("q", "k", "v", "r")


def test_a_difference_lays_one_stream_under_three() -> None:
    dense, plain = (delta_weights(made(n), [TOKENS]) for n in ("MUDDFormer", "Transformer++"))
    difference = delta_difference(dense, plain)
    assert len(difference) == len(dense.frame)
    np.testing.assert_allclose(difference["mean"], dense.frame["mean"] - 1, atol=1e-12)
    turned = delta_difference(plain, dense).set_index(["part", "layer", "stream", "write"])
    back = difference.set_index(["part", "layer", "stream", "write"])
    np.testing.assert_array_equal(turned["mean"], -back["mean"].reindex(turned.index))
    hyper = delta_weights(made("mHC"), [TOKENS])
    assert np.isfinite(delta_difference(hyper, plain)["mean"].to_numpy()).all()


def test_it_merges_is_saved_and_read_back(tmp_path: Any) -> None:
    model = made("mHC")
    whole, *parts = (delta_weights(model, b) for b in ([TOKENS], [TOKENS[:1]], [TOKENS[1:]]))
    merged = parts[0].merge(parts[1])
    np.testing.assert_allclose(merged.mean, whole.mean, atol=1e-12)
    np.testing.assert_allclose(merged.m2, whole.m2, atol=1e-10)
    whole.save(tmp_path / "found.safetensors")
    loaded = Result.load(tmp_path / "found.safetensors")
    assert isinstance(loaded, DeltaWeights)
    assert loaded.frame.equals(whole.frame)


def test_what_has_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="each weight is a vector over d_model"):
        delta_weights(made("PrePostDANorm, Eq. 10"), [TOKENS])
    deep = random_model(replace(EVERY["Transformer++"], n_layers=4, d_mlp=(24,) * 4))
    found = [delta_weights(each, [TOKENS]) for each in (made("Transformer++"), deep)]
    with pytest.raises(ValueError, match="has 7 and random weights has 9"):
        delta_difference(*found)


def test_heads_that_norm_streams_are_behind_the_blocks_and_left_out_of_differences() -> None:
    name = "mHC, each stream normed"
    several, plain = (delta_weights(made(n), [TOKENS]) for n in (name, "Transformer++"))
    frame: Any = several.frame
    assert sorted(set(frame[frame["part"] == "final"]["layer"])) == [3, 4, 5]
    difference = delta_difference(several, plain)
    assert set(difference["part"]) == {"attn", "mlp"}
    assert np.isfinite(difference["mean"].to_numpy()).all()


def test_an_edit_of_composed_weights_is_refused_and_one_of_hooked_weights_counts() -> None:
    model, told = made("mHC"), "an edit changed what a read takes"
    with mi.edited(model, "cut r 1<-0"), pytest.raises(ValueError, match=told):
        delta_weights(model, [TOKENS])
    model = made("MUDDFormer")
    with mi.edited(model, "cut v 1<-0"):
        found, exact = delta_weights(model, [TOKENS]), read_weights(model, TOKENS)
    mean = exact.weights.mean((1, 2))
    np.testing.assert_allclose(np.nan_to_num(found.mean), mean, atol=1e-12)
