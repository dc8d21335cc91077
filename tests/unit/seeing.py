"""A pair of tiny models of images, MUDDViT and its plain twin, that read the bundled images."""

from dataclasses import replace
from functools import cache
from typing import Any

import torch

from mudd_interp.config import Classes, ModelConfig, Patches
from mudd_interp.images import bundled_images
from mudd_interp.model import HookedViT
from mudd_interp.protocol import ModelInfo
from tests.parity.family import VISION, random_vision_model

PATCHES = Patches(image_size=28, patch_size=7, n_channels=1)
FINE = replace(PATCHES, patch_size=4)
NAMES = {"see": "MUDDViT", "see-plain": "ViT", "see-no-norms": "MUDDViT, no norms"}


@cache
def vision_model(name: str = "see", pre_logits: bool = False) -> HookedViT:
    """One of :data:`NAMES`, or ``see-fine``, in float64, whose every parameter is random."""
    found = bundled_images().class_names
    assert found is not None
    front = FINE if name == "see-fine" else PATCHES
    cfg = replace(
        VISION[NAMES.get(name, "ViT")],
        front=front,
        n_ctx=front.n_patches,
        d_vocab=len(found),
        task=Classes(names=found, pre_logits=pre_logits),
    )
    model = random_vision_model(cfg)
    model.info = ModelInfo(name=name, digest=f"{len(name):064x}")
    return model


def load(name: str, **_: Any) -> HookedViT:
    """As ``mudd_interp.load_model``."""
    return vision_model(name)


def seen(count: int, first: int = 0) -> torch.Tensor:
    """Some of the bundled images, as the models read them, in float64."""
    chosen = bundled_images().chosen(list(range(first, first + count)))
    return chosen.model_input(PATCHES.image_size, PATCHES.n_channels).double()


def batches(*counts: int) -> list[torch.Tensor]:
    """Batches of the bundled images, one after another."""
    return list(seen(sum(counts)).split(list(counts)))


def one_patch() -> ModelConfig:
    """A model to which an image is one patch."""
    front = replace(PATCHES, patch_size=PATCHES.image_size)
    return replace(VISION["ViT"], front=front, n_ctx=1)
