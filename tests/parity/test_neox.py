"""Our model without dense connections is transformers' GPT-NeoX (and Llama), hook by hook."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from mudd_interp.analysis import head_activity, layer_similarity
from mudd_interp.checkpoints.neox import of_neox
from mudd_interp.config import ModelConfig
from mudd_interp.model import HookedMUDDTransformer
from mudd_interp.model.bridge import BridgeModel
from mudd_interp.model.wirings import Plain

# float32 through three layers with logits of order one: the two orders of summation differ by a
# few times 1e-7, and a wrong term by 1e-2 or more.
TOLERANCE = 1e-5

LAYERS, HEADS, WIDTH, FFN, VOCAB, CONTEXT = 3, 4, 64, 96, 101, 48


def randomise(module: torch.nn.Module) -> Any:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_gain = "norm" in name and name.endswith("weight")
            parameter.copy_(1 + 0.3 * noise if is_gain else 0.12 * noise)
    return module.eval()


def neox(parallel: bool) -> GPTNeoXForCausalLM:
    config = GPTNeoXConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=FFN,
        max_position_embeddings=CONTEXT,
        use_parallel_residual=parallel,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.25,
        },
    )
    return randomise(GPTNeoXForCausalLM(config))


def llama() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=2,
        intermediate_size=FFN,
        max_position_embeddings=CONTEXT,
    )
    return randomise(LlamaForCausalLM(config))


def ours_of_llama(hf: Any) -> HookedMUDDTransformer:
    cfg = ModelConfig(
        n_layers=LAYERS,
        d_model=WIDTH,
        n_heads=HEADS,
        n_key_value_heads=2,
        d_vocab=VOCAB,
        d_mlp=FFN,
        n_ctx=CONTEXT,
        eps=1e-6,
        wiring=Plain(),
    )
    model: Any = HookedMUDDTransformer(cfg)
    copy(model.embed.W_E, hf.model.embed_tokens.weight)
    copy(model.ln_final.w, hf.model.norm.weight)
    copy(model.unembed.W_U, hf.lm_head.weight.T)
    for block, layer in zip(model.blocks, hf.model.layers, strict=True):
        copy(block.ln1.w, layer.input_layernorm.weight)
        copy(block.ln2.w, layer.post_attention_layernorm.weight)
        attention = layer.self_attn
        for name in "qkv":
            weight = attention.get_submodule(f"{name}_proj").weight
            heads = weight.view(-1, WIDTH // HEADS, WIDTH).transpose(1, 2)
            copy(block.attn.get_parameter(f"W_{name.upper()}"), heads)
        copy(block.attn.W_O, attention.o_proj.weight.T.view(HEADS, WIDTH // HEADS, WIDTH))
        copy(block.mlp.W_in, layer.mlp.up_proj.weight.T)
        copy(block.mlp.W_gate, layer.mlp.gate_proj.weight.T)
        copy(block.mlp.W_out, layer.mlp.down_proj.weight.T)
    return model


def copy_norm(ours: Any, theirs: Any) -> None:
    copy(ours.w, theirs.weight)
    copy(ours.b, theirs.bias)


def copy(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.shape == theirs.shape
    with torch.no_grad():
        ours.copy_(theirs)


KINDS: dict[str, tuple[Callable[[], Any], Callable[[Any], HookedMUDDTransformer]]] = {
    "neox parallel": (lambda: neox(parallel=True), of_neox),
    "neox sequential": (lambda: neox(parallel=False), of_neox),
    "llama": (llama, ours_of_llama),
}


class Pair:
    """The same weights in our model and in a bridged model, and Hugging Face's own logits."""

    def __init__(self, kind: str, tokenizer: Any = None):
        make, convert = KINDS[kind]
        module = make()
        module.set_attn_implementation("eager")
        self.tokens = torch.randint(0, VOCAB, (2, 40), generator=torch.Generator().manual_seed(1))
        self.ours: Any = convert(module)
        self.ours.tokenizer = tokenizer
        with torch.no_grad():
            self.expected = module(self.tokens).logits.clone()
        self.baseline: Any = BridgeModel.from_module(module, tokenizer)


@pytest.fixture(scope="module", params=list(KINDS))
def pair(request: pytest.FixtureRequest) -> Pair:
    return Pair(request.param)


def gap(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


def test_logits_are_those_of_transformers(pair: Pair) -> None:
    with torch.no_grad():
        ours, baseline = pair.ours(pair.tokens), pair.baseline(pair.tokens)
    assert pair.expected.std() > 0.5
    assert gap(ours, pair.expected) <= TOLERANCE
    assert gap(baseline, pair.expected) <= TOLERANCE


def test_every_cached_tensor_is_the_same(pair: Pair) -> None:
    with torch.no_grad():
        _, ours = pair.ours.run_with_cache(pair.tokens, names_filter=list(pair.baseline.hook_dict))
        _, theirs = pair.baseline.run_with_cache(pair.tokens, names_filter=lambda _: True)
    assert set(theirs) == set(pair.baseline.hook_dict)
    gaps = {name: gap(visible(name, ours[name]), visible(name, theirs[name])) for name in theirs}
    worst = max(gaps, key=gaps.__getitem__)
    assert gaps[worst] <= TOLERANCE, worst


def visible(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Scores of the future are minus infinity here and the lowest number there: left out."""
    return tensor.tril() if name.endswith("hook_attn_scores") else tensor


def nudged(tensor: torch.Tensor) -> torch.Tensor:
    steps = torch.arange(tensor.numel(), dtype=tensor.dtype).view(tensor.shape)
    return tensor + 0.1 * torch.sin(1 + 1.7 * steps)


@pytest.mark.slow
def test_every_edit_has_the_same_effect(pair: Pair) -> None:
    gaps: dict[str, float] = {}
    effects: dict[str, float] = {}
    for name in pair.baseline.hook_dict:
        hooks = [(name, lambda tensor, hook: nudged(tensor))]
        with torch.no_grad():
            ours = pair.ours.run_with_hooks(pair.tokens, fwd_hooks=hooks)
            theirs = pair.baseline.run_with_hooks(pair.tokens, fwd_hooks=hooks)
        gaps[name], effects[name] = gap(ours, theirs), gap(theirs, pair.expected)
    worst, weakest = max(gaps, key=gaps.__getitem__), min(effects, key=effects.__getitem__)
    assert gaps[worst] <= TOLERANCE, worst
    assert effects[weakest] > 100 * TOLERANCE, weakest


def test_gradients_are_the_same(pair: Pair) -> None:
    inputs = [n for n in pair.baseline.hook_dict if n.endswith(("q_input", "k_input", "v_input"))]
    others = [n for n in pair.baseline.hook_dict if n not in inputs]
    for names in (inputs, others):
        caches: list[Any] = []
        for model in (pair.ours, pair.baseline):
            _, cache = model.run_with_cache(
                pair.tokens, names_filter=names, incl_bwd=True, return_type="loss"
            )
            caches.append(cache)
        for name in names:
            assert gap(caches[0][f"{name}_grad"], caches[1][f"{name}_grad"]) <= TOLERANCE, name


def test_analyses_agree(pair: Pair) -> None:
    batches = [pair.tokens, pair.tokens.flip(1)]
    cosines = [layer_similarity(m, batches).frame for m in (pair.ours, pair.baseline)]
    activity = [head_activity(m, batches, [3, 5]).frame for m in (pair.ours, pair.baseline)]
    assert cosines[0]["cosine"].to_numpy() == pytest.approx(
        cosines[1]["cosine"].to_numpy(), abs=1e-6
    )
    assert activity[0].equals(activity[1])
