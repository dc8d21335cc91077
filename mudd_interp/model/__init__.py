"""The hooked models: one class for the whole family, by configuration."""

from mudd_interp.model.cache import MUDDActivationCache
from mudd_interp.model.stack import HookedStack
from mudd_interp.model.transformer import HookedMUDDTransformer

__all__ = ["HookedMUDDTransformer", "HookedStack", "MUDDActivationCache"]
