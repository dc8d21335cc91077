"""Bridged models behind our names: what each hook is, and that an edit of it is exact."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from mudd_interp import axes
from mudd_interp.inspection import parameters_by_part
from mudd_interp.model import MUDDActivationCache
from mudd_interp.model.bridge import BridgeModel
from mudd_interp.protocol import HookedModel

LAYERS, HEADS, WIDTH, VOCAB, CONTEXT = 2, 4, 32, 50, 24
# float32, and the same sums in another order.
TOLERANCE = 2e-6


def neox(parallel: bool = True) -> Any:
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=VOCAB,
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            intermediate_size=48,
            max_position_embeddings=CONTEXT,
            use_parallel_residual=parallel,
        )
    )


def llama() -> Any:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=2,
            intermediate_size=48,
            max_position_embeddings=CONTEXT,
        )
    )


def gpt2() -> Any:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCAB, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_positions=CONTEXT
        )
    )


MAKERS: dict[str, Callable[[], Any]] = {
    "neox": neox,
    "neox sequential": lambda: neox(parallel=False),
    "llama": llama,
    "gpt2": gpt2,
}


def random_module(kind: str) -> Any:
    """Weights of a size at which every part matters; gains are not one, biases not zero."""
    module, generator = MAKERS[kind](), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_gain = ("norm" in name or "ln_" in name) and name.endswith("weight")
            parameter.copy_(1 + 0.3 * noise if is_gain else 0.2 * noise)
    return module.eval()


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    return torch.randint(0, VOCAB, (2, 11), generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module", params=list(MAKERS))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def baseline(kind: str) -> BridgeModel:
    return BridgeModel.from_module(random_module(kind))


@pytest.fixture(scope="module")
def pythia() -> BridgeModel:
    return BridgeModel.from_module(random_module("neox"))


def run(model: BridgeModel, tokens: Tensor, *edits: tuple[str, Callable[[Tensor], Any]]) -> Tensor:
    hooks: list[Any] = [(name, lambda x, hook, edit=edit: edit(x)) for name, edit in edits]
    with torch.no_grad():
        return model.run_with_hooks(tokens, fwd_hooks=hooks)


def everything(model: BridgeModel, tokens: Tensor) -> Any:
    with torch.no_grad():
        return model.run_with_cache(tokens, names_filter=lambda _: True)[1]


def plus(delta: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: x + delta


def noise(*shape: int) -> Tensor:
    return 0.3 * torch.randn(shape, generator=torch.Generator().manual_seed(9))


def same(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= TOLERANCE * max(1.0, float(b.abs().max())))


def test_it_is_a_hooked_model_and_computes_what_transformers_computes(
    kind: str, baseline: BridgeModel, tokens: Tensor
) -> None:
    assert isinstance(baseline, HookedModel)
    with torch.no_grad():
        expected = random_module(kind)(tokens).logits
        assert same(baseline(tokens), expected)
        logits, _ = baseline.run_with_cache(tokens, names_filter=lambda _: True)
    assert torch.equal(logits, run(baseline, tokens))  # caching does not change a bit


EVERYWHERE = {
    *("hook_resid_pre", "hook_q_input", "hook_k_input", "hook_v_input", "hook_resid_post"),
    *("attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_attn_scores", "attn.hook_pattern"),
    *("attn.hook_z", "attn.hook_result", "hook_attn_out", "hook_mlp_out"),
    *("ln1.hook_scale", "ln1.hook_normalized", "ln2.hook_scale", "ln2.hook_normalized"),
    *("mlp.hook_pre", "mlp.hook_post"),
}
BESIDES = {
    "neox": set[str](),
    "neox sequential": {"hook_resid_mid"},
    "llama": {"hook_resid_mid", "attn.hook_rot_q", "attn.hook_rot_k", "mlp.hook_pre_linear"},
    "gpt2": {"hook_resid_mid"},
}


def test_which_hooks_there_are(kind: str, baseline: BridgeModel) -> None:
    in_blocks = {axes.block(i, n) for i in range(LAYERS) for n in EVERYWHERE | BESIDES[kind]}
    ends = {"hook_embed", "hook_resid_final", "ln_final.hook_scale", "ln_final.hook_normalized"}
    assert set(baseline.hook_dict) == in_blocks | ends


def test_shapes(baseline: BridgeModel, tokens: Tensor) -> None:
    cache, (batch, pos) = everything(baseline, tokens), tokens.shape
    assert isinstance(cache, MUDDActivationCache)
    assert set(cache) == set(baseline.hook_dict)
    kv_heads, d_head = baseline.cfg.n_key_value_heads, WIDTH // HEADS
    for name in ("hook_q_input", "hook_resid_pre", "hook_resid_post", "hook_attn_out"):
        assert cache[axes.block(1, name)].shape == (batch, pos, WIDTH)
    for name, heads in (("hook_q", HEADS), ("hook_k", kv_heads), ("hook_v", kv_heads)):
        assert cache[axes.attn(1, name)].shape == (batch, pos, heads, d_head)
    assert cache["pattern", 1].shape == (batch, HEADS, pos, pos)
    assert cache["attn_scores", 1].shape == (batch, HEADS, pos, pos)
    assert cache["z", 1].shape == (batch, pos, HEADS, d_head)
    assert cache["result", 1].shape == (batch, pos, HEADS, WIDTH)
    assert cache["blocks.1.ln1.hook_scale"].shape == (batch, pos, 1)


def test_patterns_are_causal_and_sum_to_one(baseline: BridgeModel, tokens: Tensor) -> None:
    cache = everything(baseline, tokens)
    for layer in range(LAYERS):
        pattern = cache["pattern", layer]
        assert same(pattern.sum(-1), torch.ones_like(pattern[..., 0]))
        assert not pattern.triu(1).any()
        assert pattern.tril().gt(0).any()


def test_the_first_source_is_what_enters_the_first_block(
    kind: str, baseline: BridgeModel, tokens: Tensor
) -> None:
    embedding = everything(baseline, tokens)["hook_embed"]
    expected = baseline.W_E[tokens]
    if kind == "gpt2":
        expected = expected + baseline.bridge.pos_embed.W_pos[: tokens.shape[1]]
    assert torch.equal(embedding, expected)


def test_heads_add_up(baseline: BridgeModel, tokens: Tensor) -> None:
    cache = everything(baseline, tokens)
    bias = baseline.blocks[1].attn.b_O
    total = cache["result", 1].sum(2) + (0 if bias is None else bias)
    assert same(total, cache["attn_out", 1])


def test_one_stream_is_edited_alone(baseline: BridgeModel, tokens: Tensor) -> None:
    """Editing what queries read is editing queries by hand, and nothing else."""
    cache, delta = everything(baseline, tokens), noise(*tokens.shape, WIDTH)
    block = baseline.blocks[1]
    normed = block.ln1.original_component(cache["resid_pre", 1] + delta)
    for stream in ("q", "k", "v"):
        letter = stream.upper()
        weight, bias = getattr(block.attn, f"W_{letter}"), getattr(block.attn, f"b_{letter}")
        projected = torch.einsum("bpd,hde->bphe", normed, weight) + (0 if bias is None else bias)
        by_hand = run(baseline, tokens, (axes.attn(1, f"hook_{stream}"), lambda _, p=projected: p))
        edited = run(baseline, tokens, (axes.block(1, f"hook_{stream}_input"), plus(delta)))
        assert same(edited, by_hand)
        assert not same(edited, run(baseline, tokens))


def test_three_streams_and_the_residual_are_one_edit_of_the_input(
    baseline: BridgeModel, tokens: Tensor
) -> None:
    """Through q, k and v by their hooks, and along the residual by the attention's output."""
    delta = noise(*tokens.shape, WIDTH)
    if baseline.cfg.parallel_attn_mlp:
        pytest.skip("the FFN of a parallel block reads the input too")
    streams = [(axes.block(1, f"hook_{s}_input"), plus(delta)) for s in "qkv"]
    split = run(baseline, tokens, *streams, (axes.block(1, "hook_attn_out"), plus(delta)))
    assert same(split, run(baseline, tokens, (axes.resid_pre(1), plus(delta))))


def test_edits_that_are_the_same_edit(kind: str, baseline: BridgeModel, tokens: Tensor) -> None:
    delta = noise(*tokens.shape, WIDTH)
    chains = [
        ("hook_embed", axes.resid_pre(0)),
        (axes.resid_post(0), axes.resid_pre(1)),
        (axes.resid_post(1), "hook_resid_final"),
        (axes.block(1, "hook_mlp_out"), axes.resid_post(1)),
    ]
    if kind != "neox":
        chains.append((axes.block(1, "hook_attn_out"), axes.block(1, "hook_resid_mid")))
    for first, second in chains:
        one, two = (run(baseline, tokens, (name, plus(delta))) for name in (first, second))
        assert same(one, two), (first, second)
        assert not same(one, run(baseline, tokens)), first


def test_an_edit_of_the_middle_moves_the_stream_by_itself_and_through_the_ffn(
    kind: str, baseline: BridgeModel, tokens: Tensor
) -> None:
    if kind == "neox":
        with pytest.raises(ValueError, match=r"no hook `blocks\.0\.hook_resid_mid`: .*no place"):
            run(baseline, tokens, ("blocks.0.hook_resid_mid", lambda x: x))
        return
    delta = noise(*tokens.shape, WIDTH)
    middle = (axes.block(0, "hook_resid_mid"), plus(delta))
    with torch.no_grad(), baseline.hooks([(middle[0], lambda x, hook: middle[1](x))]):
        _, cache = baseline.run_with_cache(tokens)
    plain = everything(baseline, tokens)
    block = baseline.blocks[0]
    with torch.no_grad():
        ffn = block.mlp(block.ln2.original_component(plain["resid_mid", 0] + delta))
    assert same(cache["resid_post", 0], plain["resid_mid", 0] + delta + ffn)


def test_an_edited_head_replaces_its_share(baseline: BridgeModel, tokens: Tensor) -> None:
    def without_head(result: Tensor) -> Tensor:
        result = result.clone()
        result[:, :, 2] = 0
        return result

    share = everything(baseline, tokens)["result", 1][:, :, 2]
    edited = run(baseline, tokens, (axes.attn(1, "hook_result"), without_head))
    assert same(edited, run(baseline, tokens, (axes.block(1, "hook_attn_out"), plus(-share))))


def test_an_edit_in_place_counts_and_spares_the_cache(
    baseline: BridgeModel, tokens: Tensor
) -> None:
    def zero(x: Tensor, hook: Any) -> None:
        x[:, 3] = 0

    plain = everything(baseline, tokens)
    for name in (axes.resid_pre(1), axes.stream_input(1, "v"), "blocks.1.ln2.hook_normalized"):
        with torch.no_grad(), baseline.hooks([(name, zero)]):
            logits, cache = baseline.run_with_cache(tokens)
        assert not same(logits, run(baseline, tokens)), name
        assert torch.equal(cache["resid_post", 0], plain["resid_post", 0])


def test_a_norm_that_a_split_stream_does_not_pass_is_refused(
    pythia: BridgeModel, tokens: Tensor
) -> None:
    norm, stream = "blocks.1.ln1.hook_scale", "blocks.1.hook_q_input"
    one, nothing = (plus(torch.full((), value)) for value in (1.0, 0.0))
    with pytest.raises(ValueError, match=r"blocks\.1\.ln1\.hook_scale would not reach stream q"):
        run(pythia, tokens, (norm, one), (stream, one))
    # A hook that only looks does not interfere.
    edited = run(pythia, tokens, (norm, one))
    assert torch.equal(run(pythia, tokens, (norm, one), (stream, nothing)), edited)
    assert same(
        run(pythia, tokens, (norm, nothing), (stream, one)), run(pythia, tokens, (stream, one))
    )


@pytest.mark.parametrize("call", ["add_caching_hooks", "cache_all"])
def test_transformer_lens_caching_hooks_fill_a_cache_of_everything(
    pythia: BridgeModel, tokens: Tensor, call: str
) -> None:
    cache: dict[str, Tensor] = {}
    getattr(pythia, call)(cache=cache)
    found = run(pythia, tokens)
    pythia.reset_hooks()
    assert same(found, run(pythia, tokens))
    assert set(cache) == set(pythia.hook_dict)


def test_no_hook_stays_behind(pythia: BridgeModel, tokens: Tensor) -> None:
    def fail(x: Tensor, hook: Any) -> Tensor:
        raise KeyError(hook.name)

    plain = run(pythia, tokens)
    with pytest.raises(KeyError, match="hook_pattern"), torch.no_grad():
        pythia.run_with_hooks(tokens, fwd_hooks=[(axes.pattern(0), fail)])
    with pytest.raises(RuntimeError), pythia.hooks([(axes.pattern(0), fail)]):
        raise RuntimeError
    assert not any(p.fwd_hooks or p.bwd_hooks for p in pythia.hook_dict.values())
    assert torch.equal(run(pythia, tokens), plain)


def test_unknown_names_are_refused_with_the_nearest(pythia: BridgeModel, tokens: Tensor) -> None:
    with pytest.raises(ValueError, match=r"did you mean `blocks\.0\.attn\.hook_pattern`"):
        pythia.run_with_cache(tokens, names_filter="blocks.0.attn.hook_patern")
    with pytest.raises(ValueError, match=r"no hook `blocks\.1\.attn\.hook_rot_q`: .*never runs"):
        pythia.run_with_cache(tokens, names_filter="blocks.1.attn.hook_rot_q")


def test_bad_tokens_are_refused(pythia: BridgeModel) -> None:
    with pytest.raises(ValueError, match=f"{VOCAB} is outside the vocabulary of {VOCAB}"):
        pythia(torch.tensor([[VOCAB]]))
    with pytest.raises(ValueError, match="25 tokens do not fit the context of 24"):
        pythia(torch.zeros(1, 25, dtype=torch.int64))
    with pytest.raises(ValueError, match="the prompt is empty"):
        pythia(torch.zeros(1, 0, dtype=torch.int64))
    with pytest.raises(ValueError, match="came without a tokenizer"):
        pythia("text")


def test_return_types(pythia: BridgeModel, tokens: Tensor) -> None:
    with torch.no_grad():
        logits, loss = pythia(tokens, return_type="both")
        each = pythia(tokens, return_type="loss", loss_per_token=True)
        assert pythia(tokens, return_type=None) is None
        chosen = logits[:, :-1].log_softmax(-1).gather(2, tokens[:, 1:, None])[..., 0]
    assert same(each, -chosen)
    assert same(loss, -chosen.mean())


def test_without_logits_all_hooks_run_and_the_unembedding_does_not(
    baseline: BridgeModel, tokens: Tensor
) -> None:
    ran: list[Any] = []
    full = everything(baseline, tokens)
    with torch.no_grad(), baseline.bridge.unembed.register_forward_hook(lambda *_: ran.append(1)):
        output, cache = baseline.run_with_cache(
            tokens, names_filter=lambda _: True, return_type=None
        )
        assert output is None
        assert not ran
        baseline(tokens)
        assert ran
    assert list(cache) == list(full)
    assert all(torch.equal(cache[name], full[name]) for name in full)


def test_stop_at_layer(baseline: BridgeModel, tokens: Tensor) -> None:
    cache = everything(baseline, tokens)
    with torch.no_grad():
        assert torch.equal(baseline(tokens, stop_at_layer=1), cache["resid_pre", 1])
        assert torch.equal(baseline(tokens, stop_at_layer=-1), cache["resid_pre", 1])
        assert torch.equal(baseline(tokens, stop_at_layer=LAYERS), cache["hook_resid_final"])
        with pytest.raises(ValueError, match="stop_at_layer must lie in"):
            baseline(tokens, stop_at_layer=3)


def test_weights_are_one_hot_on_the_newest_source(pythia: BridgeModel) -> None:
    assert pythia.wiring.streams == ("r",)
    assert pythia.wiring.additive
    assert pythia.wiring.static(pythia.wiring.row("r", 1)).tolist() == [0, 0, 1]
    hooks = [source.hook for source in pythia.wiring.sources[:2]]
    assert hooks == ["hook_embed", "blocks.0.hook_resid_post"]


def test_components_sum_to_the_logit(baseline: BridgeModel, tokens: Tensor) -> None:
    """Residual directions include the final norm's gain; its bias is a term of its own."""
    with torch.no_grad():
        logits, cache = baseline.run_with_cache(tokens, names_filter=lambda _: True)
        parts = cache.decompose_resid(mode="all")
        shares = cache.logit_attrs(parts, tokens)
        bias = baseline.ends.bias()
        constant = baseline.b_U if bias is None else bias @ baseline.W_U + baseline.b_U
    chosen = logits.gather(2, tokens[..., None])[..., 0]
    assert same(shares.sum(0) + constant[tokens], chosen)


def test_heads_neurons_and_biases_sum_to_the_stream(baseline: BridgeModel, tokens: Tensor) -> None:
    cache = everything(baseline, tokens)
    with torch.no_grad():
        parts = cache.stack_head_results(incl_remainder=True)
    assert same(parts.sum(0), cache["hook_resid_final"])
    total = sum(cache["result", layer].sum(2) for layer in range(LAYERS))
    others = cache["hook_embed"] + sum(cache["mlp_out", layer] for layer in range(LAYERS))
    biases = baseline.accumulated_bias(LAYERS, include_mlp_biases=False)
    assert same(total + others + biases, cache["hook_resid_final"])


def test_gradients_of_a_split_stream_are_its_own(pythia: BridgeModel, tokens: Tensor) -> None:
    names = [axes.stream_input(1, stream) for stream in ("q", "k", "v")]
    _, cache = pythia.run_with_cache(tokens, names_filter=names, incl_bwd=True, return_type="loss")
    step = 1e-2 * noise(*tokens.shape, WIDTH)
    with torch.no_grad():
        for name in names:
            hook = (name, lambda x, hook, sign=1: x + sign * step)
            back = (name, lambda x, hook: x - step)
            up = pythia.run_with_hooks(tokens, return_type="loss", fwd_hooks=[hook])
            down = pythia.run_with_hooks(tokens, return_type="loss", fwd_hooks=[back])
            slope = (cache[f"{name}_grad"] * step).sum()
            # a central difference of a float32 loss: its last bits are all that is lost
            assert abs(float((up - down) / 2 - slope)) < 2e-6


def test_all_gradients_at_once(pythia: BridgeModel, tokens: Tensor) -> None:
    _, cache = pythia.run_with_cache(tokens, incl_bwd=True, return_type="loss")
    grads = {name for name in cache if name.endswith("_grad")}
    assert {"blocks.1.hook_q_input_grad", "blocks.1.attn.hook_pattern_grad"} <= grads
    assert "blocks.1.ln1.hook_scale_grad" not in grads  # q, k and v pass it by
    split = sum(cache[f"blocks.1.hook_{s}_input_grad"] for s in "qkv")
    ffn = cache["blocks.1.hook_resid_pre_grad"] - cache["blocks.1.hook_resid_post_grad"] - split
    assert ffn.abs().max() > 1e-4  # the parallel FFN reads the input as well


def test_generate_goes_on_greedily_and_through_hooks(baseline: BridgeModel, tokens: Tensor) -> None:
    new = 4
    expected, hooked = tokens, tokens
    hooks: list[Any] = [(axes.stream_input(1, "v"), lambda x, hook: 0 * x + 1)]
    with torch.no_grad():
        for _ in range(new):
            newest = baseline(expected)[:, -1].argmax(-1, keepdim=True)
            expected = torch.cat((expected, newest), dim=1)
            newest = baseline.run_with_hooks(hooked, fwd_hooks=hooks)[:, -1].argmax(
                -1, keepdim=True
            )
            hooked = torch.cat((hooked, newest), dim=1)
    options: dict[str, Any] = {"do_sample": False, "stop_at_eos": False, "verbose": False}
    plain = torch.as_tensor(baseline.generate(tokens, new, **options))
    assert torch.equal(plain, expected)
    with baseline.hooks(hooks):
        assert torch.equal(torch.as_tensor(baseline.generate(tokens, new, **options)), hooked)
    with pytest.raises(ValueError, match="ask for at most 13"):
        baseline.generate(tokens, 14, **options)
    with pytest.raises(ValueError, match="stop_at_eos needs an end-of-text token"):
        baseline.generate(tokens, new)


def test_patterns_exist_whatever_the_module_was_made_with(tokens: Tensor) -> None:
    module = random_module("llama")
    module.set_attn_implementation("sdpa")
    cache = everything(BridgeModel.from_module(module), tokens)
    assert same(cache["pattern", 0].sum(-1), torch.ones(2, HEADS, tokens.shape[1]))


def test_precision_follows_the_weights(tokens: Tensor) -> None:
    model = BridgeModel.from_module(random_module("neox"))
    assert model.to(torch.float64).cfg.dtype == torch.float64
    cache = everything(model, tokens)
    assert {cache[name].dtype for name in cache} == {torch.float64}


def test_a_loss_of_a_part_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pattern that the model does not use is not in hook_dict, and the reason is given."""
    from transformer_lens.model_bridge.generalized_components import (
        joint_qkv_position_embeddings_attention as component,
    )

    attention = component.JointQKVPositionEmbeddingsAttentionBridge

    def detached(self: Any, scores: Tensor, **_: Any) -> Tensor:
        pattern = scores.softmax(-1)
        self.hook_pattern(pattern.clone())
        return pattern

    monkeypatch.setattr(attention, "_softmax_dropout_pattern", detached)
    model = BridgeModel.from_module(random_module("neox"))
    assert axes.pattern(0) not in model.hook_dict
    assert "would change nothing" in model.absent[axes.pattern(0)]
    assert any("hooks that it has not" in check for check in model.info.checks)


def test_what_is_no_plain_decoder_is_refused() -> None:
    config = BertConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=HEADS,
        intermediate_size=48,
    )
    with pytest.raises(ValueError, match="BertForMaskedLM cannot be bridged"):
        BridgeModel.from_module(BertForMaskedLM(config))
    with pytest.raises(ValueError, match=r"expected a Hugging Face model .* got a Linear"):
        BridgeModel.from_module(torch.nn.Linear(2, 2))


@pytest.mark.slow
def test_importing_this_module_does_not_import_the_bridge() -> None:
    code = (
        "import sys, mudd_interp.model.bridge; "
        "sys.exit('transformer_lens.model_bridge' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_edits_of_a_baseline(baseline: BridgeModel, tokens: Tensor) -> None:
    names = [axes.attn(1, "hook_result"), axes.block(0, "hook_mlp_out"), axes.RESID_FINAL]
    whole = baseline.run_with_cache(tokens, names_filter=names)[1]
    with baseline.edited("cut head 1.2; cut mlp 0 @1; cut r 1<-2 @0"):
        cut = baseline.run_with_cache(tokens, names_filter=names)[1]
    heads, ffn, final = (cut[name] for name in names)
    assert heads[:, :, 2].abs().max() == 0
    assert heads[:, :, 0].abs().max() > 0
    assert ffn[:, 1].abs().max() == 0
    assert torch.equal(ffn[:, 0], whole[names[1]][:, 0])
    assert final[:, 0].abs().max() == 0
    assert final[:, 1].abs().max() > 0
    with pytest.raises(ValueError, match="`cut r 1<-0` would change nothing"):
        baseline.edited("cut r 1<-0").__enter__()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_it_has_its_patterns(kind: str, tokens: Tensor, dtype: torch.dtype):
    baseline = BridgeModel.from_module(random_module(kind).to(dtype))
    name = axes.pattern(0)
    _, cache = baseline.run_with_cache(tokens, names_filter=name, return_type=None)
    torch.testing.assert_close(
        cache[name].sum(-1).float(), torch.ones(2, HEADS, 11), rtol=0, atol=5e-2
    )


def test_the_loss_of_each_token_is_that_of_the_mean(pythia: BridgeModel, tokens: Tensor):
    each = pythia.loss_per_token(tokens)
    assert each.shape == (2, 10)
    torch.testing.assert_close(each.mean(), pythia.loss(tokens))


def test_a_predicate_selects_everything_with_gradients_too(pythia: BridgeModel, tokens: Tensor):
    options: dict[str, Any] = {"names_filter": lambda _: True, "incl_bwd": True}
    _, cache = pythia.run_with_cache(tokens, return_type="loss", **options)
    assert f"{axes.stream_input(1, 'q')}_grad" in cache


def test_parameters_are_those_that_are_computed_with(
    kind: str, baseline: BridgeModel, tokens: Tensor
):
    named = dict(baseline.named_parameters())
    assert sum(p.numel() for p in named.values()) == baseline.bridge.n_params_total
    counts, _ = parameters_by_part(baseline)
    assert sum(counts.values()) == baseline.n_params_total
    baseline(tokens, return_type="loss").backward()
    assert all(parameter.grad is not None for parameter in named.values())
    baseline.zero_grad()
    assert all(parameter.grad is None for parameter in baseline.parameters())


def test_it_is_checked_where_gradients_are_off(pythia: BridgeModel):
    with torch.no_grad():
        made = BridgeModel.from_module(random_module("neox"))
    assert made.info.checks == pythia.info.checks
    assert made.hook_dict.keys() == pythia.hook_dict.keys()
