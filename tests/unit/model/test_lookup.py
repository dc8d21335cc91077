"""Looking up an activation: each of its names works, and what is not there is said in words."""

from typing import Any

import pytest
import torch

from mudd_interp.axes import counterpart
from mudd_interp.model.lookup import NotKeptError
from tests.parity.family import FAMILY, random_model, random_tokens
from tests.parity.test_neox import Pair

BESIDE_A_NORM = (
    *(f"attn.{part}hook_in" for part in ("", "q.", "k.", "v.")),
    *(f"{norm}.hook_out" for norm in ("ln1", "ln2", "ln_final")),
    "mlp.hook_in",
    "unembed.hook_in",
)


@pytest.fixture(scope="module")
def dense() -> Any:
    model = random_model(FAMILY["MUDDFormer"])
    return model.run_with_cache(random_tokens(model.config))[1]


@pytest.fixture(scope="module", params=["ours", "baseline"])
def plain(request: pytest.FixtureRequest) -> Any:
    pair = Pair("llama")
    model = getattr(pair, request.param)
    return model.run_with_cache(pair.tokens)[1]


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (("weights_v", 1), "dense.1.hook_weights_v"),
        (("weights_r", -1), "dense.2.hook_weights_r"),
        ("weights_q0", "dense.0.hook_weights_q"),
        (("scale", 1, "ln1_q"), "blocks.1.ln1_q.hook_scale"),
        (("scale", 1, "ln2"), "blocks.1.ln2.hook_scale"),
        ("scale", "ln_final.hook_scale"),
        (("v_input", -1), "blocks.2.hook_v_input"),
        ("pattern2", "blocks.2.attn.hook_pattern"),
        (("attn", torch.tensor(2).item()), "blocks.2.attn.hook_pattern"),
        ("resid_final", "hook_resid_final"),
    ],
    ids=str,
)
def test_a_shorthand_is_a_name(dense: Any, key: Any, name: str):
    assert dense[key] is dense.cache_dict[name]


def test_the_output_of_a_head_comes_from_what_was_kept(dense: Any, plain: Any):
    for cache in (dense, plain):
        heads = cache["result", 1]
        assert torch.equal(cache["blocks.1.attn.hook_result"], heads)
        torch.testing.assert_close(heads.sum(-2), cache["attn_out", 1], rtol=0, atol=1e-5)
        assert cache.stack_activation("result").shape == (3, *heads.shape)


def test_the_output_of_a_head_is_what_was_named():
    model = random_model(FAMILY["MUDDFormer"])
    _, cache = model.run_with_cache(random_tokens(model.config), names_filter=lambda _: True)
    assert cache["result", 1] is cache.cache_dict["blocks.1.attn.hook_result"]
    del cache.cache_dict["blocks.1.attn.hook_z"], cache.cache_dict["blocks.1.attn.hook_result"]
    with pytest.raises(NotKeptError, match="which is kept when names_filter names it"):
        cache["result", 1]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (("scale", 1, "ln1"), r"`blocks\.1\.ln1\.hook_scale`; did you mean .*ln1_q\.hook_scale`"),
        (("in", 2), r"no hook `blocks\.2\.hook_in`; did you mean `blocks\.2\.hook_resid_pre`\?"),
        (("out", 2), r"did you mean `blocks\.2\.hook_resid_post`\?"),
        (("mlp_in", 2), r"did you mean `blocks\.2\.hook_resid_mid`\?"),
        (("weights_q", -1), r"no hook `dense\.2\.hook_weights_q`; did you mean"),
        (("patern", 1), r"did you mean .*`blocks\.1\.attn\.hook_pattern`"),
        ("attn.hook_z", r"a hook of each block: give its layer, as in `blocks\.0\.attn\.hook_z`"),
        ("pattern", "is a hook of each block: give its layer"),
        (("attn_out", 3), r"layer must lie in -3\.\.2, got 3"),
        (("attn_out", -4), r"layer must lie in -3\.\.2, got -4"),
        ("hook_embed_grad", "gradients are kept with incl_bwd=True"),
        (3, r"such as \('pattern', 3\); got 3"),
        (None, "got None"),
        (("pattern", "1"), r"got \('pattern', '1'\)"),
        ((), r"got \(\)"),
        ((1, "pattern"), r"got \(1, 'pattern'\)"),
        (["pattern", 1], r"got \['pattern', 1\]"),
    ],
    ids=str,
)
def test_what_is_not_there_is_said_in_words(dense: Any, key: Any, message: str):
    with pytest.raises(KeyError, match=message) as error:
        dense[key]
    assert isinstance(error.value, ValueError)
    assert not str(error.value).startswith(("'", '"'))


def test_what_was_left_out_is_told_from_what_does_not_exist():
    model = random_model(FAMILY["MUDDFormer"])
    tokens = random_tokens(model.config)
    _, cache = model.run_with_cache(tokens, names_filter="hook_embed")
    with pytest.raises(NotKeptError, match="keep it too, with names_filter, or keep all"):
        cache["pattern", 1]
    cache.model = None
    with pytest.raises(NotKeptError, match="no activation `hook_embedd`; did you mean"):
        cache["hook_embedd"]


def test_what_a_baseline_lacks_comes_with_the_reason():
    pair = Pair("neox parallel")
    _, cache = pair.baseline.run_with_cache(pair.tokens)
    with pytest.raises(NotKeptError, match=r"no hook `blocks\.1\.hook_resid_mid`: "):
        cache["resid_mid", 1]


def test_activations_of_several_shapes_are_not_stacked(dense: Any):
    assert dense.stack_activation("pattern", 2).shape[0] == 2
    with pytest.raises(ValueError, match=r"weights_v differs in shape.*\[2, 7, 2\], \[2, 7, 3\]"):
        dense.stack_activation("weights_v", 2)
    with pytest.raises(ValueError, match=r"layer must lie in 1\.\.3"):
        dense.stack_activation("pattern", 4)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("blocks.1.hook_in", "blocks.1.hook_resid_pre"),
        ("blocks.11.attn.o.hook_in", "blocks.11.attn.hook_z"),
        ("ln_final.hook_in", "hook_resid_final"),
        ("blocks.1.hook_resid_pre", "blocks.1.hook_resid_pre"),
        ("blocks", "blocks"),
        ("", ""),
    ],
)
def test_the_bridge_has_other_names(theirs: str, ours: str):
    assert counterpart(theirs) == ours


def test_every_name_of_the_bridge_leads_to_the_same_tensor():
    pair = Pair("neox sequential")
    bridge, baseline = pair.baseline.bridge, pair.baseline
    with torch.no_grad():
        _, theirs = bridge.run_with_cache(pair.tokens)
        _, ours = baseline.run_with_cache(pair.tokens)
    led = 0
    for name in theirs.keys():  # noqa: SIM118 (a cache, no dict)
        other = counterpart(name)
        if other == name or other not in ours.cache_dict:
            continue
        found = ours.cache_dict[other]
        if name.endswith(BESIDE_A_NORM):
            assert found.shape == theirs[name].shape
        else:
            assert torch.equal(found.flatten(), theirs[name].flatten()), name
        led += 1
    assert led > 30


def test_a_hook_by_the_name_of_the_bridge_is_refused_with_ours():
    model = random_model(FAMILY["MUDDFormer"])
    with pytest.raises(ValueError, match=r"did you mean `blocks\.1\.hook_resid_pre`\?"):
        model.add_hook("blocks.1.hook_in", lambda x, hook: None)
