"""How mixed the streams are: against T written out, its bounds, and who has none."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import mudd_interp as mi
from mudd_interp.analysis import Result, logit_lens, read_weights, stream_mixing, stream_weights
from tests.identities.errors import EXACT, TOKENS
from tests.parity.family import FAMILY, HYPER, NORMED_HEADS, random_model

EVERY = HYPER | NORMED_HEADS
MIXED = [name for name, cfg in EVERY.items() if cfg.wiring.to_dict()["mixing"] != "identity"]


@pytest.mark.parametrize("name", MIXED)
def test_alone_and_composed_are_those_of_the_hooked_mixing(name: str) -> None:
    model: Any = random_model(EVERY[name])
    found = stream_mixing(model, [TOKENS[:1], TOKENS[1:]])
    with torch.no_grad():
        cache = model.run_with_cache(TOKENS)[1]
    n, product = model.config.wiring.n_streams, None
    for depth, (label, hook) in enumerate(model.wiring.mixed.items()):
        mix = cache[hook].broadcast_to(*TOKENS.shape, n, n)
        product = mix if product is None else torch.einsum("btij,btjk->btik", mix, product)
        for row, each in enumerate((mix, product)):
            far = ((each - 1 / n) ** 2).sum((-2, -1)).div(n - 1).sqrt()
            assert found.mean[row, depth] == pytest.approx(far.mean().item(), abs=1e-12)
            std = np.sqrt(found.m2[row, depth] / TOKENS.numel())
            assert std == pytest.approx(far.std(correction=0).item(), abs=1e-6)
        assert found.sublayers[depth] == label


def test_of_permutations_it_is_one_and_of_the_mean_zero() -> None:
    wiring = mi.Hyper(n_streams=3, gates="static", mixing="free")
    model: Any = mi.HookedMUDDTransformer(replace(HYPER["HC"], wiring=wiring), dtype=torch.float64)
    turned = torch.eye(3)[[1, 2, 0]]
    with torch.no_grad():
        for layer in range(3):
            model.hyper[str(layer)]["attn"].mix.b.copy_(turned)
            model.hyper[str(layer)]["mlp"].mix.b.copy_(torch.eye(3))
        model.hyper["1"]["mlp"].mix.b.fill_(1 / 3)
    found = stream_mixing(model, [TOKENS]).mean
    np.testing.assert_allclose(found[0], [1, 1, 1, 0, 1, 1], atol=1e-12)
    np.testing.assert_allclose(found[1], [1, 1, 1, 0, 0, 0], atol=1e-12)


@pytest.mark.parametrize("name", ["mHC", "mHC-lite"])
def test_doubly_stochastic_mixing_only_loses(name: str) -> None:
    found = stream_mixing(random_model(EVERY[name]), [TOKENS])
    assert (found.mean <= 1 + 1e-9).all()
    assert (np.diff(found.mean[1]) <= 1e-9).all()


def test_it_merges_is_saved_and_read_back(tmp_path: Any) -> None:
    model = random_model(EVERY["mHC"])
    whole, *parts = (stream_mixing(model, b) for b in ([TOKENS], [TOKENS[:1]], [TOKENS[1:]]))
    np.testing.assert_allclose(parts[0].merge(parts[1]).mean, whole.mean, atol=1e-12)
    whole.save(tmp_path / "found.safetensors")
    assert Result.load(tmp_path / "found.safetensors").frame.equals(whole.frame)


@pytest.mark.parametrize("name", ["mHC, not mixed", "MUDDFormer"])
def test_who_mixes_no_streams_is_told(name: str) -> None:
    with pytest.raises(ValueError, match="because it mixes no streams"):
        stream_mixing(random_model((FAMILY | HYPER)[name]), [TOKENS])


@pytest.mark.parametrize("name", EVERY)
def test_the_lens_of_one_stream_is_its_logits(name: str) -> None:
    model: Any = random_model(EVERY[name])
    found = logit_lens(model, TOKENS[0])
    if model.config.wiring.head == "last":
        assert found.carried == ()
        return
    assert found.carried == tuple(f"x{i}" for i in range(model.config.wiring.n_streams))
    with torch.no_grad():
        cache = model.run_with_cache(TOKENS[:1])[1]
        for layer in range(model.cfg.n_layers):
            streams = cache[f"hyper.{layer}.attn.hook_streams"]
            for i, kind in enumerate(found.carried):
                row = found.rows(kind)[layer]
                best = model.decode_stream(streams[:, :, i])[0].softmax(-1).max(-1)
                np.testing.assert_array_equal(found.top_id[row], best.indices)
                np.testing.assert_allclose(found.top_probability[row], best.values, atol=1e-12)
    assert logit_lens(random_model(FAMILY["MUDDFormer"]), TOKENS[0]).carried == ()


@pytest.mark.parametrize("name", EVERY)
def test_what_passes_through_the_streams_sums_to_w(name: str) -> None:
    model = random_model(EVERY[name])
    found, whole = stream_weights(model, TOKENS[0], 4), read_weights(model, TOKENS[:1])
    assert found.completeness_error < EXACT
    assert found.reads == whole.reads
    assert found.weights.shape[1] == EVERY[name].wiring.to_dict()["n_streams"]
    summed = np.nan_to_num(found.weights.sum(1))
    np.testing.assert_allclose(summed, whole.weights[:, 0, 4], atol=1e-12)
    assert len(found.frame) == np.isfinite(found.weights).sum()


def test_who_has_one_stream_is_told() -> None:
    with pytest.raises(ValueError, match="because it has no hyper-connections"):
        stream_weights(random_model(FAMILY["MUDDFormer"]), TOKENS[0])
