"""From a configuration to the model of its front and task."""

from typing import Any

from mudd_interp.config import ModelConfig, Patches
from mudd_interp.model.transformer import HookedMUDDTransformer
from mudd_interp.model.vit import HookedViT

FamilyModel = HookedMUDDTransformer | HookedViT
"""A model of this project."""


def build_model(cfg: ModelConfig, **given: Any) -> FamilyModel:
    """A model with random weights: a :class:`HookedViT` of images, else a language model.

    Args:
        cfg: The configuration.
        **given: ``info``, ``device``, ``dtype``, as the models take them.
    """
    kind = HookedViT if isinstance(cfg.front, Patches) else HookedMUDDTransformer
    return kind(cfg, **given)
