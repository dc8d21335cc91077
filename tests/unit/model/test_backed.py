"""Models of transformers that route over depth: from a module in memory, beside TransformerLens."""

from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from mudd_interp import axes, protocol
from mudd_interp.analysis import direct_logit_attribution, read_weights
from mudd_interp.inspection import describe_model
from mudd_interp.model.backed import BackedModel
from mudd_interp.model.bridge import build_bridge
from tests.relatives import BACKED, GATED_HEADS, GOLDEN, loaded

TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 5], [6, 5, 3, 5, 8, 9, 7, 9, 3]])
EXACT = 1e-9


def module(folder: str, **changes: Any) -> Any:
    """A Hugging Face model as a golden folder's, with random weights where something differs."""
    if not changes:
        return AutoModelForCausalLM.from_pretrained(GOLDEN / folder, dtype=torch.float32).eval()
    config = AutoConfig.from_pretrained(GOLDEN / folder)
    for name, value in changes.items():
        setattr(config, name, value)
    torch.manual_seed(5)
    made = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made.double()


@pytest.fixture(params=BACKED)
def model(request: pytest.FixtureRequest) -> Any:
    return loaded(request.param, torch.float64)


def test_it_is_what_analyses_ask_for(model: Any) -> None:
    assert all(
        isinstance(model, kind) for kind in (protocol.CachedModel, protocol.DecomposableModel)
    )
    assert model.traits == protocol.DECODER | model.wiring.traits
    assert "states" not in model.traits
    with torch.no_grad():
        _, cache = model.run_with_cache(TOKENS)
    assert torch.equal(model.W_E[TOKENS], cache[axes.EMBED])
    assert torch.equal(model.front.embed(TOKENS), cache[axes.EMBED])
    final = model.ln_final.weight * cache["ln_final.hook_normalized"]
    torch.testing.assert_close(model.unembed(final), model(TOKENS), rtol=0, atol=EXACT)
    assert torch.equal(model.norm_gain(1, "q"), model.module.model.layers[1].input_layernorm.weight)


def test_a_pass_ends_where_it_is_told_to(model: Any) -> None:
    with torch.no_grad():
        _, cache = model.run_with_cache(TOKENS)
        n_layers = model.cfg.n_layers
        names = [axes.resid_pre(each) for each in range(n_layers)]
        fired: list[str] = []
        with model.hooks([(name, lambda x, hook: fired.append(hook.name)) for name in names]):
            for layer in range(n_layers):
                fired.clear()
                stopped = model(TOKENS, stop_at_layer=layer)
                assert torch.equal(stopped, cache[axes.resid_pre(layer)])
                assert fired == names[:layer]
        assert torch.equal(model(TOKENS, stop_at_layer=n_layers), cache[axes.RESID_FINAL])
        assert model(TOKENS, return_type=None) is None
        torch.testing.assert_close(model(TOKENS)[0], model(TOKENS[:1])[0], rtol=0, atol=EXACT)


def test_what_there_is_not_is_refused_in_words(model: Any) -> None:
    with pytest.raises(ValueError, match="starts at token ids, not at start_at_layer=0"):
        model(torch.zeros(1, 2, 32, dtype=torch.float64), start_at_layer=0)
    with pytest.raises(ValueError, match="takes no past_kv_cache here"):
        model(TOKENS, past_kv_cache=[])
    for ask in (lambda: model.W_Q, lambda: model.W_in, lambda: model.b_Q, lambda: model.QK):
        with pytest.raises(ValueError, match=r"has no `\w+`.*model\.module\.model\.layers"):
            ask()
    with pytest.raises(ValueError, match=r"no hook `blocks\.0\.attn\.hook_q`: norms or low ranks"):
        model.run_with_cache(TOKENS, names_filter="blocks.0.attn.hook_q")
    assert model.W_U.shape == (model.cfg.d_model, model.cfg.d_vocab)


def test_a_sink_is_said_where_a_pattern_is_asked_for() -> None:
    model = loaded("hy-v4-tiny", torch.float64)
    with pytest.raises(ValueError, match=r"a learned sink takes the rest.*attn\.hook_shares"):
        model.run_with_cache(TOKENS, names_filter="blocks.1.attn.hook_pattern")


def test_it_is_described(model: Any) -> None:
    found = describe_model(model)
    assert found["dense"] == "dynamic"
    assert found["shape"]["n_layers"] == model.cfg.n_layers
    assert found["parameters"]["total"] == sum(p.numel() for p in model.module.parameters())


@pytest.mark.parametrize(
    ("folder", "changes"),
    [
        ("deepseek-v4-tiny", {"hc_mult": 2}),
        ("hy-v4-tiny", {"hc_mult": 3, "hc_magnitude": 1.5}),
        ("gemma3n-tiny", {"altup_active_idx": 2, "altup_correct_scale": False}),
    ],
)
def test_another_shape_of_it_with_random_weights(folder: str, changes: Any) -> None:
    model = BackedModel(module(folder, **changes))
    assert read_weights(model, TOKENS).completeness.max() < EXACT
    assert all("dropped" not in check for check in model.info.checks)


def test_a_module_of_no_known_kind_is_refused() -> None:
    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=9,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
        )
    )
    words = "`LlamaForCausalLM`.*Expected one of DeepseekV4ForCausalLM, HYV4ForCausalLM, Gemma3n"
    with pytest.raises(ValueError, match=words):
        BackedModel(llama)
    with pytest.raises(ValueError, match=r"`Linear`.*a plain decoder goes into a BridgeModel"):
        BackedModel(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="has hook points already"):
        BackedModel(loaded("hy-v4-tiny", torch.float64).module)


def test_a_model_that_is_not_tried() -> None:
    model = BackedModel(module("hy-v4-tiny"), check=False)
    assert model.info.checks == (protocol.NOT_TRIED,)
    assert torch.equal(model(TOKENS), loaded("hy-v4-tiny", torch.float32)(TOKENS))


@pytest.mark.parametrize("folder", GATED_HEADS)
def test_another_precision_after_it_is_loaded(folder: str) -> None:
    model = BackedModel(module(folder)).to(torch.float64)
    assert model.cfg.dtype == torch.float64
    expected = loaded(folder, torch.float64)(TOKENS)
    torch.testing.assert_close(model(TOKENS), expected, rtol=0, atol=EXACT)


# --- Beside TransformerLens -----------------------------------------------------------------------


def test_what_transformerlens_hooks_of_deepseek_v4_is_here_with_w() -> None:
    """The same prompt on its bridge, which has streams and gates, and no W and no p."""
    folder = "deepseek-v4-tiny"
    bridge, model = build_bridge(module(folder)), loaded(folder, torch.float32)
    with torch.no_grad():
        theirs, their_cache = bridge.run_with_cache(TOKENS)
        logits, cache = model.run_with_cache(TOKENS)
    torch.testing.assert_close(logits, theirs, rtol=0, atol=2e-5)
    for layer in range(model.cfg.n_layers):
        for at, part in enumerate(("attn", "mlp")):
            gates = f"blocks.{layer}.{part}_hc"
            for name, shown in {
                "hook_streams": their_cache[f"{gates}.hook_in"],
                "hook_post": their_cache[f"{gates}.hook_post"],
                "hook_mix": their_cache[f"{gates}.hook_comb"].mT,
            }.items():
                ours = cache[axes.hyper(2 * layer + at, name)]
                torch.testing.assert_close(ours, shown, rtol=0, atol=2e-5)
            read = model.wiring.sites[2 * layer + at].hook
            torch.testing.assert_close(
                cache[read], their_cache[f"{gates}.hook_out"], rtol=0, atol=2e-5
            )
    assert read_weights(model, TOKENS).completeness.max() < 1e-6
    found = direct_logit_attribution(model, TOKENS[:1], answer=5, against=7, position=4)
    expected = float(theirs[0, 4, 5] - theirs[0, 4, 7])
    assert found.components.sum() == pytest.approx(expected, abs=2e-5)
