"""What a model does not have, cannot be told, or need not be told: each is said in words."""

from dataclasses import FrozenInstanceError
from typing import Any, cast

import pytest
import torch
from transformer_lens import patching
from transformer_lens.SVDInterpreter import SVDInterpreter

from mudd_interp.model.live_config import FLAGS
from mudd_interp.model.named import ELSEWHERE
from tests.parity.family import FAMILY, random_model, random_tokens
from tests.parity.test_neox import Pair


@pytest.fixture(scope="module")
def pair() -> Pair:
    return Pair("neox parallel")


@pytest.fixture(params=["ours", "baseline"])
def model(request: pytest.FixtureRequest, pair: Pair) -> Any:
    return getattr(pair, request.param)


@pytest.mark.parametrize("name", ["n_layers", "d_mlp", "device", "dtype", "default_prepend_bos"])
def test_a_configuration_cannot_be_set(model: Any, name: str):
    present = getattr(model.cfg, name)
    with pytest.raises(FrozenInstanceError, match=f"cannot set cfg.{name}: "):
        setattr(model.cfg, name, 99)
    setattr(model.cfg, name, present)
    assert getattr(model.cfg, name) == present
    with pytest.raises(FrozenInstanceError, match="cannot delete"):
        delattr(model.cfg, name)


@pytest.mark.parametrize("flag", FLAGS)
def test_a_switch_for_hooks_says_which_hooks_there_are(model: Any, flag: str):
    with pytest.raises(FrozenInstanceError, match="it would switch nothing, `"):
        setattr(model.cfg, flag, True)
    setattr(model.cfg, flag, False)
    getattr(model, f"set_{flag}")(False)
    if flag != "use_attn_result":
        with pytest.raises(NotImplementedError, match=f"{flag} switches nothing on here"):
            getattr(model, f"set_{flag}")(True)


def test_the_output_of_heads_needs_no_switch(pair: Pair, model: Any):
    model.set_use_attn_result(True)
    _, cache = model.run_with_cache(pair.tokens, names_filter="blocks.1.attn.hook_result")
    assert cache["result", 1].shape == (2, 40, 4, 64)


def test_a_new_field_of_a_configuration_is_refused(model: Any):
    with pytest.raises(FrozenInstanceError, match="there is no such field"):
        model.cfg.n_layer = 3
    with pytest.raises(AttributeError, match="no configuration field `n_layer`; did you mean"):
        _ = model.cfg.n_layer
    assert not hasattr(model.cfg, "n_layer")


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_name_of_transformer_lens_comes_with_what_to_use_instead(name: str):
    model = random_model(FAMILY["MUDDFormer"])
    assert not hasattr(model, name)
    with pytest.raises(AttributeError) as error:
        getattr(model, name)
    assert str(error.value) == f"HookedMUDDTransformer has no `{name}`: {ELSEWHERE[name]}."


def test_a_baseline_leads_to_its_bridge_but_not_to_what_would_change_it(pair: Pair):
    baseline: Any = pair.baseline
    with pytest.raises(AttributeError, match=r"model\.hook_dict\['hook_embed'\]"):
        _ = baseline.hook_embed
    with pytest.raises(AttributeError, match=r"its bridge has: model\.bridge\.hf_generate"):
        _ = baseline.hf_generate
    with pytest.raises(AttributeError, match="compatibility_mode`: a bridged model is the model"):
        _ = baseline.enable_compatibility_mode
    with pytest.raises(AttributeError, match="BridgeModel `ebmed`; did you mean"):
        _ = baseline.ebmed


def test_a_block_names_the_norms_that_it_has():
    model: Any = random_model(FAMILY["MUDDFormer"])
    assert not hasattr(model.blocks[1], "ln1")
    message = "no attribute of Block `ln1`; did you mean `ln1_[qkv]` or `ln1_[qkv]` or `ln1_[qkv]`"
    with pytest.raises(AttributeError, match=message):
        _ = model.blocks[1].ln1.w
    assert model.blocks[0].ln1.w.shape == (16,)
    with pytest.raises(AttributeError, match=r"did you mean .*`W_in`"):
        _ = model.W_inn


@pytest.mark.parametrize("name", ["MUDDFormer", "Transformer++"])
def test_path_patching_is_refused_with_what_there_is_instead(name: str):
    model = random_model(FAMILY[name])
    tokens = random_tokens(model.config, batch=1)
    _, cache = model.run_with_cache(tokens)
    with pytest.raises(NotImplementedError, match=r"mudd_interp\.analysis\.edge_patch"):
        cast(Any, patching.get_act_patch_direct_path)(
            cast(Any, model), tokens, cache, cache, lambda logits: logits.sum(), 0, 0, verbose=False
        )


@pytest.mark.parametrize("part", ["OV", "w_in", "w_out"])
def test_singular_vectors_are_read_of_our_weights(part: Any):
    model: Any = random_model(FAMILY["MUDDFormer"]).float()
    head = {"head_index": 1} if part == "OV" else {}
    found = SVDInterpreter(model).get_singular_vectors(part, 1, num_vectors=3, **head)
    assert found.shape == (29, 1, 3)
    assert torch.isfinite(found).all()
