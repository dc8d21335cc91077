"""Vision Transformers against the equations written out, and against transformers' ViT."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from mudd_interp import axes
from mudd_interp.config import Classes, ModelConfig, Patches
from mudd_interp.model import HookedViT
from mudd_interp.model.patches import in_patches
from mudd_interp.model.wirings import Plain
from tests.parity import literal
from tests.parity.family import VISION, random_images, random_vision_model

TOLERANCE = 1e-10  # float64 rounding


@pytest.mark.parametrize("name", VISION)
def test_agrees_with_the_equations(name: str):
    cfg = VISION[name]
    model, images = random_vision_model(cfg), random_images(cfg)
    logits, cache = model.run_with_cache(images)
    for row, image in enumerate(images):
        expected = literal.run(image, model.state_dict(), cfg)
        torch.testing.assert_close(logits[row], expected["logits"], rtol=0, atol=TOLERANCE)
        for source in range(cfg.n_layers + 1):
            found = cache[axes.source_output(source)][row]
            torch.testing.assert_close(found, expected[f"X.{source}"], rtol=0, atol=TOLERANCE)
        for layer in range(cfg.n_layers):
            for stream in axes.STREAMS:
                found = cache[axes.stream_input(layer, stream)][row]
                wanted = expected[f"stream.{layer}.{stream}"]
                torch.testing.assert_close(found, wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", VISION)
def test_with_and_without_gradients_hooks_and_cache_the_numbers_are_the_same(name: str):
    cfg = VISION[name]
    model, images = random_vision_model(cfg), random_images(cfg)
    stacked = model(images).detach()
    with torch.no_grad():
        buffered = model(images)
        everything, cache = model.run_with_cache(images)
    torch.testing.assert_close(buffered, stacked, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(everything, stacked, rtol=0, atol=TOLERANCE)
    total = cache["hook_patches"] + cache["hook_pos_embed"]
    torch.testing.assert_close(cache["hook_embed"], total, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["MUDDViT", "MUDDViT, Eq. 10", "MUDDViT, no norms"])
def test_a_fresh_model_is_its_plain_twin(name: str):
    cfg = VISION[name]
    torch.manual_seed(0)
    model = HookedViT(cfg, dtype=torch.float64)
    torch.manual_seed(0)
    twin = HookedViT(cfg.plain(), dtype=torch.float64)
    images = random_images(cfg)
    torch.testing.assert_close(model(images), twin(images), rtol=0, atol=1e-6)


def test_patches_are_those_of_a_convolution():
    patches = Patches(image_size=12, patch_size=4, n_channels=2)
    convolution = nn.Conv2d(2, 5, 4, 4, dtype=torch.float64)
    images = torch.rand(3, 2, 12, 12, dtype=torch.float64)
    found = in_patches(patches, images) @ convolution.weight.flatten(1).T + convolution.bias
    wanted = convolution(images).flatten(2).transpose(1, 2)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_blocks_are_those_of_transformers():
    """The class token and learned positions of transformers' ViT apart: its encoder is ours."""
    torch.manual_seed(0)
    hf_config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        hidden_act="gelu_pytorch_tanh",
        image_size=12,
        patch_size=4,
        num_channels=2,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=1e-6,
    )
    theirs: Any = ViTForImageClassification(hf_config).double().eval().vit
    cfg = ModelConfig(
        n_layers=2,
        d_model=16,
        n_heads=2,
        d_vocab=5,
        n_ctx=9,
        d_mlp=24,
        normalization_type="LN",
        gated_mlp=False,
        act_fn="gelu_pytorch_tanh",
        attn_bias=True,
        mlp_bias=True,
        attention_dir="bidirectional",
        rotary_dim=0,
        wiring=Plain(),
        front=Patches(image_size=12, patch_size=4, n_channels=2),
        task=Classes(),
    )
    ours = random_vision_model(cfg)
    state = {name: value.detach() for name, value in ours.state_dict().items()}
    with torch.no_grad():
        for index, layer in enumerate(theirs.layers):
            copy_block(layer, {n.removeprefix(f"blocks.{index}."): v for n, v in state.items()})
        _, cache = ours.run_with_cache(random_images(cfg))
        outputs = [cache[axes.EMBED]]
        for index, layer in enumerate(theirs.layers):
            outputs.append(layer(outputs[-1]))
            found = cache[axes.resid_post(index)]
            torch.testing.assert_close(found, outputs[-1], rtol=0, atol=TOLERANCE)


def copy_block(layer: Any, ours: dict[str, torch.Tensor]) -> None:
    attention = layer.attention
    for letter in "QKV":
        projection = getattr(attention, f"{letter.lower()}_proj")
        projection.weight.copy_(ours[f"attn.W_{letter}"].transpose(1, 2).flatten(0, 1))
        projection.bias.copy_(ours[f"attn.b_{letter}"].flatten())
    attention.o_proj.weight.copy_(ours["attn.W_O"].flatten(0, 1).T)
    attention.o_proj.bias.copy_(ours["attn.b_O"])
    for norm, theirs in (("ln1", layer.layernorm_before), ("ln2", layer.layernorm_after)):
        theirs.weight.copy_(ours[f"{norm}.w"])
        theirs.bias.copy_(ours[f"{norm}.b"])
    for side, linear in (("in", layer.mlp.fc1), ("out", layer.mlp.fc2)):
        linear.weight.copy_(ours[f"mlp.W_{side}"].T)
        linear.bias.copy_(ours[f"mlp.b_{side}"])
