"""TransformerLens' own tools on our models, unchanged."""

from typing import Any, cast

import pytest
import torch
from transformer_lens import patching
from transformer_lens.head_detector import detect_head
from transformer_lens.model_protocol import (
    TrainableTransformerLensModel,
    TransformerLensModelWithWeights,
)
from transformer_lens.tools.analysis.attribution_patching import attribution_patch
from transformer_lens.tools.training import TrainConfig, train

from mudd_interp.config import ModelConfig
from mudd_interp.model import HookedMUDDTransformer
from tests.parity.family import FAMILY, letters_tokenizer, random_model, random_tokens

# TransformerLens declares cfg as a class of its own and asks for its fields only.
Tool = Any
KEY = ("mlp_out", 1)
KINDS = ["MUDDFormer as released", "MUDDPythia", "Transformer++", "PrePostDANorm, Eq. 10"]


@pytest.mark.parametrize("name", KINDS)
def test_satisfies_the_protocols(name: str):
    model = random_model(FAMILY[name])
    assert isinstance(model, TransformerLensModelWithWeights)
    assert isinstance(model, TrainableTransformerLensModel)


def logit_difference(logits):
    return logits[0, -1, 3] - logits[0, -1, 4]


@pytest.mark.parametrize("name", KINDS)
def test_head_patching_equals_patching_by_hand(name: str):
    model = random_model(FAMILY[name]).float()
    clean, corrupted = random_tokens(model.config, batch=1), random_tokens(model.config, 1, seed=5)
    with torch.no_grad():
        _, cache = model.run_with_cache(clean)
        found = cast(Tool, patching.get_act_patch_attn_head_out_all_pos)(
            cast(Tool, model), corrupted, cache, logit_difference
        )
        for layer in range(3):
            for head in range(2):

                def restore(z, hook, layer=layer, head=head):
                    z[:, :, head] = cache["z", layer][:, :, head]
                    return z

                name = f"blocks.{layer}.attn.hook_z"
                by_hand = model.run_with_hooks(corrupted, fwd_hooks=[(name, restore)])
                torch.testing.assert_close(found[layer, head], logit_difference(by_hand))


def test_patching_the_whole_input_restores_the_clean_run():
    model = random_model(FAMILY["MUDDFormer"])
    clean, corrupted = random_tokens(model.config, batch=1), random_tokens(model.config, 1, seed=5)
    corrupted[:, 1:] = clean[:, 1:]
    with torch.no_grad():
        logits, cache = model.run_with_cache(clean)
        patched = model.run_with_hooks(
            corrupted, fwd_hooks=[("hook_embed", lambda x, hook: cache["hook_embed"])]
        )
    torch.testing.assert_close(patched, logits)


@pytest.mark.parametrize("name", KINDS)
def test_detect_head_finds_a_planted_previous_token_head(name: str):
    model = random_model(FAMILY[name]).float()
    model.tokenizer = letters_tokenizer()
    with torch.no_grad():
        _, cache = model.run_with_cache("a b c d e f g", remove_batch_dim=True)
        planted = torch.eye(7).roll(-1, dims=1).tril()
        planted[0, 0] = 1
        cache.cache_dict["blocks.1.attn.hook_pattern"][1] = planted
        scores = detect_head(cast(Tool, model), "a b c d e f g", "previous_token_head", cache=cache)
    assert scores.shape == (3, 2)
    assert scores.argmax() == 1 * 2 + 1


@pytest.mark.parametrize("name", KINDS)
def test_node_attribution_is_the_first_order_effect(name: str):
    model = random_model(FAMILY[name]).float()
    clean = random_tokens(model.config, batch=1)
    corrupted = random_tokens(model.config, 1, seed=5)
    corrupted[:, :-1] = clean[:, :-1]
    result = attribution_patch(model, clean, corrupted, logit_difference)
    step = 1e-2
    with torch.no_grad():
        _, towards = model.run_with_cache(clean, names_filter="blocks.1.hook_mlp_out")
        _, origin = model.run_with_cache(corrupted, names_filter="blocks.1.hook_mlp_out")
        change = towards["mlp_out", 1] - origin["mlp_out", 1]

        def effect(size: float) -> float:
            hook = ("blocks.1.hook_mlp_out", lambda x, hook: x + size * change)
            return float(logit_difference(model.run_with_hooks(corrupted, fwd_hooks=[hook])))

        slope = (effect(step) - effect(-step)) / (2 * step)
    found = sum(
        score for node, score in result.node_scores.items() if (node.kind, node.layer) == KEY
    )
    assert found == pytest.approx(slope, rel=1e-2, abs=1e-4)


def test_training_lowers_the_loss():
    torch.manual_seed(0)
    model = HookedMUDDTransformer(
        ModelConfig(n_layers=2, d_model=16, n_heads=2, d_vocab=29, n_ctx=24, d_mlp=24)
    )
    tokens = torch.randint(29, (1, 12)).repeat(16, 1)
    with torch.no_grad():
        before = model.loss(tokens)
    rows = [{"tokens": row} for row in tokens]
    train(model, TrainConfig(num_epochs=4, batch_size=4, lr=1e-2, device="cpu"), cast(Tool, rows))
    model.eval()
    assert model.loss(tokens) < before - 0.5
