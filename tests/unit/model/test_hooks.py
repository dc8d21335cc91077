"""What hooks promise: every edit counts, nothing is left behind, unknown names are refused."""

import re

import pytest
import torch

from mudd_interp import axes
from mudd_interp.model import HookedMUDDTransformer, MUDDActivationCache
from tests.parity.family import FAMILY, random_model, random_tokens


@pytest.fixture
def model() -> HookedMUDDTransformer:
    return random_model(FAMILY["MUDDFormer as released"])


@pytest.fixture
def tokens(model: HookedMUDDTransformer) -> torch.Tensor:
    return random_tokens(model.config)


def bend(tensor, hook):
    """An edit that changes direction too: a norm downstream hides a mere factor."""
    ripple = torch.sin(torch.arange(tensor.numel(), dtype=tensor.dtype)).view(tensor.shape)
    return tensor * (1 + 0.5 * ripple)


def halve(tensor, hook):
    return tensor * 0.5


def halve_in_place(tensor, hook):
    tensor *= 0.5
    return tensor


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILY)
def test_editing_any_hook_changes_the_logits(name: str):
    model = random_model(FAMILY[name])
    tokens = random_tokens(model.config)
    clean = model(tokens)
    for hook in model.hook_dict:
        edited = model.run_with_hooks(tokens, fwd_hooks=[(hook, bend)])
        assert not torch.allclose(edited, clean, rtol=0, atol=1e-9), hook
    torch.testing.assert_close(model(tokens), clean, rtol=0, atol=0)


@pytest.mark.parametrize("name", FAMILY)
def test_an_edit_in_place_is_the_same_edit(name: str):
    model = random_model(FAMILY[name])
    tokens = random_tokens(model.config)
    inputs = [n for n in model.hook_dict if n.endswith(("_input", "resid_pre", "resid_final"))]
    with torch.no_grad():
        for hook in inputs:
            expected = model.run_with_hooks(tokens, fwd_hooks=[(hook, halve)])
            found = model.run_with_hooks(tokens, fwd_hooks=[(hook, halve_in_place)])
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-12, msg=hook)


@pytest.mark.parametrize("name", ["Transformer++", "MUDDFormer", "+ Dynamic Dense"])
@pytest.mark.parametrize("stream", ["q", "k", "v"])
def test_a_stream_input_feeds_that_stream_only(name: str, stream: str):
    model = random_model(FAMILY[name])
    tokens = random_tokens(model.config)
    others = [f"blocks.1.attn.hook_{s}" for s in "qkv" if s != stream]
    own, kept = f"blocks.1.attn.hook_{stream}", [*others, "blocks.1.hook_resid_pre"]
    _, clean = model.run_with_cache(tokens, names_filter=[own, *kept])
    with model.hooks(fwd_hooks=[(f"blocks.1.hook_{stream}_input", halve_in_place)]):
        # An RMSNorm hides a factor, so the edit must change direction too.
        shift = [(f"blocks.1.hook_{stream}_input", lambda x, hook: x + 1)]
        with model.hooks(fwd_hooks=shift):
            _, edited = model.run_with_cache(tokens, names_filter=[own, *kept])
    assert not torch.allclose(edited[own], clean[own])
    for hook in kept:
        torch.testing.assert_close(edited[hook], clean[hook], rtol=0, atol=1e-12)


def test_weights_hook_multiplies_the_sources(model, tokens):
    _, cache = model.run_with_cache(tokens)
    for i in range(model.config.n_layers - 1):
        sources = torch.stack([cache[each.hook] for each in model.wiring.sources[: i + 2]], 2)
        for stream in axes.STREAMS:
            weights = cache[axes.dense_weights(i, stream)]
            assert weights.shape == (2, 7, i + 2)
            mixed = torch.einsum("bps,bpsd->bpd", weights, sources)
            torch.testing.assert_close(
                mixed, cache[axes.stream_input(i + 1, stream)], rtol=0, atol=1e-12
            )
    last = torch.stack([cache[each.hook] for each in model.wiring.sources], 2)
    weights = cache[axes.dense_weights(model.config.n_layers - 1, "r")]
    mixed = torch.einsum("bps,bpsd->bpd", weights, last)
    torch.testing.assert_close(mixed, cache["hook_resid_final"], rtol=0, atol=1e-12)


def test_cutting_an_edge_of_the_last_aggregation_removes_weight_times_source(model, tokens):
    name = axes.dense_weights(model.config.n_layers - 1, "r")
    _, cache = model.run_with_cache(tokens)

    def cut(weights, hook):
        weights[..., 1] = 0
        return weights

    with model.hooks(fwd_hooks=[(name, cut)]):
        _, after = model.run_with_cache(tokens, names_filter="hook_resid_final")
    removed = cache["hook_resid_final"] - after["hook_resid_final"]
    expected = cache[name][..., 1:2] * cache["blocks.0.hook_resid_post"]
    torch.testing.assert_close(removed, expected, rtol=0, atol=1e-12)


def test_shapes_are_those_of_the_contract(model, tokens):
    _, cache = model.run_with_cache(tokens, names_filter=lambda name: True)
    b, p, h, d, e = 2, 7, 2, 16, 8
    expected = {
        "hook_embed": (b, p, d),
        "blocks.1.hook_q_input": (b, p, d),
        "blocks.1.hook_resid_mid": (b, p, d),
        "blocks.1.attn.hook_q": (b, p, h, e),
        "blocks.1.attn.hook_q_normed": (b, p, h, e),
        "blocks.1.attn.hook_rot_k": (b, p, h, e),
        "blocks.1.attn.hook_attn_scores": (b, h, p, p),
        "blocks.1.attn.hook_pattern": (b, h, p, p),
        "blocks.1.attn.hook_z": (b, p, h, e),
        "blocks.1.attn.hook_result": (b, p, h, d),
        "blocks.1.mlp.hook_pre": (b, p, 24),
        "blocks.1.mlp.hook_pre_linear": (b, p, 24),
        "blocks.1.ln1_v.hook_scale": (b, p, 1),
        "blocks.1.ln1_v.hook_normalized": (b, p, d),
        "dense.1.hook_weights_v": (b, p, 3),
        "hook_resid_final": (b, p, d),
        "ln_final.hook_scale": (b, p, 1),
    }
    assert {name: tuple(cache[name].shape) for name in expected} == expected


def test_every_hook_fires_once_or_is_computed_on_request(model, tokens):
    _, cache = model.run_with_cache(tokens)
    assert isinstance(cache, MUDDActivationCache)
    assert set(cache.keys()) == {n for n in model.hook_dict if not model.on_request(n)}
    assert not any(name.endswith("hook_result") for name in cache)
    _, named = model.run_with_cache(tokens, names_filter="blocks.0.attn.hook_result")
    result = named["result", 0]
    torch.testing.assert_close(result.sum(2), cache["attn_out", 0], rtol=0, atol=1e-12)


def test_one_norm_runs_once_and_splits_when_a_stream_is_hooked():
    model = random_model(FAMILY["Transformer++"])
    tokens = random_tokens(model.config)
    fired: list[str] = []
    seen = [
        (name, lambda x, hook: fired.append(hook.name))
        for name in model.hook_dict
        if name.startswith("blocks.1.ln1") and name.endswith("hook_scale")
    ]
    model.run_with_hooks(tokens, fwd_hooks=[s for s in seen if s[0] == "blocks.1.ln1.hook_scale"])
    assert fired == ["blocks.1.ln1.hook_scale"]
    fired.clear()
    model.run_with_hooks(tokens, fwd_hooks=[s for s in seen if "ln1_" in s[0]])
    assert fired == [f"blocks.1.ln1_{stream}.hook_scale" for stream in "qkv"]


@pytest.mark.parametrize("streams", ["q", "kv", "qkv"])
def test_an_edit_that_would_not_reach_every_stream_is_refused(streams: str):
    model = random_model(FAMILY["Transformer++"])
    inputs = [(f"blocks.1.hook_{stream}_input", halve) for stream in streams]
    with pytest.raises(ValueError, match=f"ln1_{streams[0]}.* run by themselves"):
        model.run_with_hooks(
            random_tokens(model.config), fwd_hooks=[*inputs, ("blocks.1.ln1.hook_scale", halve)]
        )


def test_attention_rows_sum_to_one_and_see_no_future(model, tokens):
    _, cache = model.run_with_cache(tokens, names_filter=[axes.pattern(i) for i in range(3)])
    for layer in range(3):
        pattern = cache["pattern", layer]
        torch.testing.assert_close(pattern.sum(-1), torch.ones_like(pattern[..., 0]))
        assert (pattern.triu(1) == 0).all()


def test_no_hook_is_left_behind_when_the_body_raises(model, tokens):
    with (
        pytest.raises(ZeroDivisionError),
        model.hooks(fwd_hooks=[("hook_embed", halve)], bwd_hooks=[("hook_embed", halve)]),
    ):
        raise ZeroDivisionError
    assert not model.list_hooks()
    with pytest.raises(ValueError, match="no hook"):
        model.run_with_hooks(tokens, fwd_hooks=[("hook_embed", halve), ("hook_embd", halve)])
    assert not model.list_hooks()


@pytest.mark.parametrize("call", ["run_with_cache", "run_with_hooks", "add_hook"])
def test_an_unknown_name_is_refused_with_the_nearest(model, tokens, call: str):
    wrong, near = "dense.1.hook_weight_q", r"did you mean `dense\.1\.hook_weights_q`"
    calls = {
        "run_with_cache": lambda: model.run_with_cache(tokens, names_filter=[wrong]),
        "run_with_hooks": lambda: model.run_with_hooks(tokens, fwd_hooks=[(wrong, halve)]),
        "add_hook": lambda: model.add_hook(wrong, halve),
    }
    with pytest.raises(ValueError, match=near):
        calls[call]()


def test_a_predicate_that_selects_nothing_is_refused(model, tokens):
    with pytest.raises(ValueError, match="selects no hook"):
        model.run_with_cache(tokens, names_filter=lambda name: name.endswith("hook_weights_x"))


def test_gradients_flow_through_hooks_and_the_cache_keeps_them(model, tokens):
    loss, cache = model.run_with_cache(tokens, return_type="loss", incl_bwd=True)
    assert loss.requires_grad
    names = [name for name in model.hook_dict if not model.on_request(name, incl_bwd=True)]
    assert {name for name in names if f"{name}_grad" not in cache} == set()
    step, weight_hook = 1e-6, axes.dense_weights(0, "v")

    def nudge(weights, hook):
        weights[0, 3, 1] += step
        return weights

    with torch.no_grad():
        up = model.run_with_hooks(tokens, return_type="loss", fwd_hooks=[(weight_hook, nudge)])
        slope = (up - loss) / step
    torch.testing.assert_close(cache[f"{weight_hook}_grad"][0, 3, 1], slope, rtol=1e-3, atol=1e-7)


def test_pos_slice_and_remove_batch_dim(model, tokens):
    names = ["blocks.0.attn.hook_rot_q", "dense.0.hook_weights_k", "blocks.0.hook_resid_post"]
    _, whole = model.run_with_cache(tokens, names_filter=names)
    _, part = model.run_with_cache(tokens[:1], names_filter=names, pos_slice=-1)
    _, single = model.run_with_cache(tokens[:1], names_filter=names, remove_batch_dim=True)
    for name in names:
        torch.testing.assert_close(part[name], whole[name][:1, -1:])
        torch.testing.assert_close(single[name], whole[name][0])
    with pytest.raises(ValueError, match="batch of one"):
        model.run_with_cache(tokens, remove_batch_dim=True)


def test_a_cache_does_not_share_memory_with_the_parameters():
    model = random_model(FAMILY["+ Multiway Static Dense"])
    _, cache = model.run_with_cache(torch.zeros(1, 1, dtype=torch.int64))
    static = model.wiring.static(model.wiring.row("q", 0))
    assert static is not None
    before = static.clone()
    cache["dense.0.hook_weights_q"].fill_(9)
    torch.testing.assert_close(model.wiring.static(model.wiring.row("q", 0)), before)


def test_slicing_the_batch_keeps_our_class(model, tokens):
    _, cache = model.run_with_cache(tokens)
    assert isinstance(cache.apply_slice_to_batch_dim(0), MUDDActivationCache)


def test_additive_methods_are_exact_for_a_plain_model():
    model = random_model(FAMILY["GPT-NeoX"])
    tokens = random_tokens(model.config)
    logits, cache = model.run_with_cache(tokens)
    stack = cache.decompose_resid(mode="all")
    torch.testing.assert_close(stack.sum(0), cache["hook_resid_final"], rtol=0, atol=1e-9)
    attributed = cache.logit_attrs(stack, tokens=torch.tensor(5)).sum(0)
    constant = model.get_parameter("ln_final.b") @ model.W_U[:, 5]
    torch.testing.assert_close(attributed + constant, logits[..., 5], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["Transformer++", "MUDDFormer", "+ Dynamic Dense"])
def test_a_predicate_for_everything_keeps_what_no_filter_keeps(name: str):
    model = random_model(FAMILY[name])
    tokens = random_tokens(model.config)
    everything, default = (
        model.run_with_cache(tokens, names_filter=names)[1] for names in (lambda _: True, None)
    )
    assert set(default) <= set(everything)
    assert {n for n in everything if n not in default} == {
        axes.attn(layer, "hook_result") for layer in range(model.cfg.n_layers)
    }
    _, grads = model.run_with_cache(
        tokens, names_filter=lambda _: True, incl_bwd=True, return_type="loss"
    )
    assert f"{axes.stream_input(0, 'q')}_grad" in grads


@pytest.mark.parametrize("name", ["Transformer++", "MUDDFormer"])
@pytest.mark.parametrize("end", ["hook_normalized", "", "_input"])
def test_an_edit_by_a_predicate_reaches_all_that_it_selects(name: str, end: str):
    model = random_model(FAMILY[name])
    tokens, seen = random_tokens(model.config), set[str]()

    def see(tensor, hook):
        seen.add(hook.name)
        return tensor

    clean = model(tokens)
    selected = {each for each in model.hook_dict if each.endswith(end)}
    edited = model.run_with_hooks(tokens, fwd_hooks=[(lambda n: n in selected, see)])
    torch.testing.assert_close(edited, clean, rtol=0, atol=1e-9)
    # Of ln1 and the norms of single streams, which stand for one another, one form runs.
    assert {one_form(each) for each in selected} == {one_form(each) for each in seen}


def one_form(name):
    return re.sub(r"\.ln1_[qkv]\.", ".ln1.", name)


def test_a_batch_of_two_keeps_its_axis_however_it_is_given(model, tokens):
    with pytest.raises(ValueError, match="batch of one, got 2"):
        model.run_with_cache(input=tokens.repeat(2, 1)[:2], remove_batch_dim=True)
