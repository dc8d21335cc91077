"""Vision Transformers against the equations written out; ViT and DeiT against transformers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    DeiTConfig,
    DeiTForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

import mudd_interp as mi
from mudd_interp import axes
from mudd_interp.config import Patches
from mudd_interp.model import HookedViT
from mudd_interp.model.patches import in_patches
from tests.parity import literal
from tests.parity.agreement import assert_states_agree
from tests.parity.family import VISION, perturbed, random_images, random_vision_model

TOLERANCE = 1e-10  # float64 rounding


@pytest.mark.parametrize("name", VISION)
def test_agrees_with_the_equations(name: str):
    cfg = VISION[name]
    model, images = random_vision_model(cfg), random_images(cfg)
    logits, cache = model.run_with_cache(images)
    for row, image in enumerate(images):
        expected = literal.run(image, model.state_dict(), cfg)
        torch.testing.assert_close(logits[row], expected["logits"], rtol=0, atol=TOLERANCE)
        assert_states_agree(cache, row, expected, cfg, TOLERANCE)


@pytest.mark.parametrize("name", VISION)
def test_with_and_without_gradients_hooks_and_cache_the_numbers_are_the_same(name: str):
    cfg = VISION[name]
    model, images = random_vision_model(cfg), random_images(cfg)
    stacked = model(images).detach()
    with torch.no_grad():
        buffered = model(images)
        everything, cache = model.run_with_cache(images)
        parts: Any = [cache[name] for name in ("hook_patches", "hook_pos_embed")]
    torch.testing.assert_close(buffered, stacked, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(everything, stacked, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(cache["hook_embed"], sum(parts), rtol=0, atol=0)


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
    found = F.linear(in_patches(patches, images), convolution.weight.flatten(1), convolution.bias)
    wanted = convolution(images).flatten(2).transpose(1, 2)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 12,
    "patch_size": 4,
    "num_channels": 3,
    "id2label": {0: "cat", 1: "dog", 2: "owl"},
}
KINDS: dict[str, Any] = {
    "vit": (ViTConfig, ViTForImageClassification),
    "deit": (DeiTConfig, DeiTForImageClassification),
}


@pytest.mark.parametrize("act", ["gelu", "gelu_pytorch_tanh"])
@pytest.mark.parametrize("kind", KINDS)
def test_folders_of_transformers_agree_with_transformers(kind: str, act: str, tmp_path: Path):
    config, model = KINDS[kind]
    torch.manual_seed(0)
    theirs: Any = perturbed(model(config(**SIZES, hidden_act=act)).eval())
    theirs.save_pretrained(tmp_path)
    ours = mi.load_model(tmp_path, dtype=torch.float64)
    images = torch.rand(2, 3, 12, 12, dtype=torch.float64) * 2 - 1
    scaled = images
    if kind == "deit":
        mean, std = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        mean, std = (torch.tensor(each, dtype=torch.float64)[:, None, None] for each in (mean, std))
        scaled = ((images + 1) / 2 - mean) / std
    with torch.no_grad():
        expected = theirs.double()(scaled, output_hidden_states=True)
        logits, cache = ours.run_with_cache(images)
    torch.testing.assert_close(logits, expected.logits, rtol=0, atol=TOLERANCE)
    for source, state in enumerate(expected.hidden_states[:-1]):
        found = cache[axes.source_output(source)]
        torch.testing.assert_close(found, state, rtol=0, atol=TOLERANCE)
    assert isinstance(ours, HookedViT)
    assert ours.class_names == ("cat", "dog", "owl")
    with pytest.raises(ValueError, match="a class token stands before its patches"):
        mi.draw("attention_over_image", model=ours, baseline=None, resize=True)
    assert len(mi.draw("attention_maps", model=ours, baseline=None, resize=True).frame)
    assert ours.front.labels(images[0])[:3] == (
        ("class", "0,0", "0,1") if kind == "vit" else ("class", "extra 1", "0,0")
    )


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("architectures", ["ViTModel"], "for image classification"),
        ("qkv_bias", False, "qkv_bias must be true"),
        ("hidden_act", "relu", "hidden_act"),
        ("patch_size", 5, "patch_size must divide"),
        ("id2label", {"1": "dog"}, "count its classes from 0"),
        ("hidden_size", "16", "`hidden_size` must be a whole number"),
    ],
)
def test_what_is_not_read_is_refused(field: str, value: Any, reason: str, tmp_path: Path):
    ViTForImageClassification(ViTConfig(**SIZES)).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(ValueError, match=reason):
        mi.load_model(tmp_path)
