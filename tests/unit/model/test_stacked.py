"""Weights with a layer axis, and the circuits made of them, as TransformerBridge gives them."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformer_lens import FactoredMatrix

from mudd_interp.config import ModelConfig
from mudd_interp.model import HookedMUDDTransformer
from tests.parity.family import FAMILY, SMALL, random_model
from tests.parity.test_neox import FFN, HEADS, LAYERS, WIDTH, Pair

WEIGHTS = ("W_Q", "W_K", "W_V", "W_O", "W_in", "W_out", "W_E", "W_U")
BIASES = ("b_Q", "b_K", "b_V", "b_O", "b_in", "b_out")


@pytest.fixture(scope="module", params=["neox parallel", "llama"])
def pair(request: pytest.FixtureRequest) -> Pair:
    return Pair(request.param)


@pytest.fixture(params=["ours", "baseline"])
def model(request: pytest.FixtureRequest, pair: Pair) -> Any:
    return getattr(pair, request.param)


@pytest.mark.parametrize("name", [*WEIGHTS, "W_gate"])
def test_weights_are_those_of_the_bridge(pair: Pair, model: Any, name: str):
    expected = getattr(pair.baseline.bridge, name)
    found = getattr(model, name)
    assert found is None if expected is None else torch.equal(found, expected)


@pytest.mark.parametrize("name", BIASES)
def test_biases_are_those_of_the_bridge_and_zeros_where_it_has_none(
    pair: Pair, model: Any, name: str
):
    found = getattr(model, name)
    per_head = (pair.ours.cfg.n_heads if name == "b_Q" else pair.ours.cfg.n_key_value_heads, 16)
    width = {"b_O": (WIDTH,), "b_out": (WIDTH,), "b_in": (FFN,)}.get(name, per_head)
    assert found.shape == (LAYERS, *width)
    if pair.ours.config.attn_bias:
        assert torch.equal(found, getattr(pair.baseline.bridge, name))
        assert found.abs().sum() > 0
    else:
        assert not found.any()


@pytest.mark.parametrize("name", ["OV", "QK"])
def test_circuits_have_one_entry_for_each_head(pair: Pair, model: Any, name: str):
    found, expected = getattr(model, name), getattr(pair.baseline.bridge, name)
    assert isinstance(found, FactoredMatrix)
    assert found.shape == (LAYERS, HEADS, WIDTH, WIDTH)
    torch.testing.assert_close(found.AB, expected.AB, rtol=0, atol=0)


def test_a_circuit_of_shared_keys_is_that_of_the_heads_own():
    model: Any = random_model(FAMILY["MUDDFormer, one key-value head"])
    attn = model.blocks[1].attn
    torch.testing.assert_close(model.OV[1, 1].AB, attn.W_V[0] @ attn.W_O[1])
    torch.testing.assert_close(model.QK[1, 0].AB, attn.W_Q[0] @ attn.W_K[0].T)


@pytest.mark.parametrize("mode", ["Q", "K", "V"])
def test_composition_scores_are_those_of_the_bridge(pair: Pair, model: Any, mode: Any):
    found = model.all_composition_scores(mode)
    expected = pair.baseline.bridge.all_composition_scores(mode)
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=0)
    assert found.head_labels == expected.head_labels == model.all_head_labels
    assert found.layer_indices == expected.layer_indices
    assert model.attn_head_labels == model.all_head_labels
    with pytest.raises(ValueError, match="mode must be one of 'Q', 'K' and 'V', got 'O'"):
        model.weights.all_composition_scores.__wrapped__(model.weights, "O")


def test_composition_by_weights_alone_is_refused_where_streams_are_weighted():
    with pytest.raises(NotImplementedError, match=r"mudd_interp\.analysis\.composition"):
        random_model(FAMILY["+ Static Dense"]).all_composition_scores("Q")


@pytest.mark.parametrize("name", ["W_in", "W_gate", "W_out", "b_in"])
def test_ffns_of_several_widths_are_no_one_tensor(name: str):
    model = HookedMUDDTransformer(replace(ModelConfig(**SMALL), d_mlp=(8, 16, 24)))
    message = rf"{name} cannot be one tensor.*\[block\.mlp\.{name} for block in model\.blocks\]"
    with pytest.raises(ValueError, match=message):
        getattr(model, name)
    assert model.b_out.shape == (3, 16)


def test_parameters_are_counted_and_named(pair: Pair, model: Any):
    assert model.n_params_total == pair.baseline.bridge.n_params_total
    named = dict(model.tl_named_parameters())
    assert named.keys() == model.tl_parameters().keys() == model.get_params().keys()
    assert named.keys() == pair.baseline.bridge.tl_parameters().keys()
    for name, expected in pair.baseline.bridge.tl_parameters().items():
        found = named[name]
        if found.shape != expected.shape:  # the bridge repeats shared keys and values here
            assert name.endswith(("W_K", "W_V", "b_K", "b_V"))
            found = found.repeat_interleave(len(expected) // len(found), dim=0)
        assert torch.equal(found, expected), name
    assert torch.equal(named["blocks.1.attn.W_Q"], pair.ours.get_parameter("blocks.1.attn.W_Q"))
    assert model.cfg.d_vocab_out == pair.ours.W_U.shape[1]
