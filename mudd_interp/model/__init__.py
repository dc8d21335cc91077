"""The hooked models: one class for all language models of the family, one for vision models."""

from mudd_interp.model.build import FamilyModel, build_model
from mudd_interp.model.cache import MUDDActivationCache
from mudd_interp.model.stack import HookedStack
from mudd_interp.model.transformer import HookedMUDDTransformer
from mudd_interp.model.vit import HookedViT

__all__ = [
    "FamilyModel",
    "HookedMUDDTransformer",
    "HookedStack",
    "HookedViT",
    "MUDDActivationCache",
    "build_model",
]
