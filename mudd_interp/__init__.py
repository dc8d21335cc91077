"""Mechanistic interpretability of MUDDFormer, and of every Transformer with dense connections.

Public names are imported on first use: importing the package loads neither torch nor
TransformerLens.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mudd_interp import analysis, axes, data, viz
    from mudd_interp.analysis import activations, open_activations, save_activations
    from mudd_interp.catalog import draw
    from mudd_interp.checkpoints import load_model, save_model
    from mudd_interp.config import Classes, ModelConfig, Patches
    from mudd_interp.costs import cost
    from mudd_interp.edits import Edit, edited, frozen, run
    from mudd_interp.model import HookedMUDDTransformer, HookedViT, MUDDActivationCache
    from mudd_interp.model.wirings import MUDD, AttnRes, Hyper, Plain, PrePost, Scalars, Static
    from mudd_interp.protocol import HookedModel, ModelInfo

_MODULES = ("analysis", "axes", "data", "viz")
_HOMES = {
    "AttnRes": "model.wirings",
    "activations": "analysis",
    "open_activations": "analysis",
    "save_activations": "analysis",
    "draw": "catalog",
    "load_model": "checkpoints",
    "save_model": "checkpoints",
    "Classes": "config",
    "ModelConfig": "config",
    "Patches": "config",
    "cost": "costs",
    "Edit": "edits",
    "edited": "edits",
    "frozen": "edits",
    "run": "edits",
    "HookedMUDDTransformer": "model",
    "HookedViT": "model",
    "MUDD": "model.wirings",
    "MUDDActivationCache": "model",
    "HookedModel": "protocol",
    "Hyper": "model.wirings",
    "ModelInfo": "protocol",
    "Plain": "model.wirings",
    "PrePost": "model.wirings",
    "Scalars": "model.wirings",
    "Static": "model.wirings",
}

__all__ = [
    "MUDD",
    "AttnRes",
    "Classes",
    "Edit",
    "HookedMUDDTransformer",
    "HookedModel",
    "HookedViT",
    "Hyper",
    "MUDDActivationCache",
    "ModelConfig",
    "ModelInfo",
    "Patches",
    "Plain",
    "PrePost",
    "Scalars",
    "Static",
    "activations",
    "analysis",
    "axes",
    "cost",
    "data",
    "draw",
    "edited",
    "frozen",
    "load_model",
    "open_activations",
    "run",
    "save_activations",
    "save_model",
    "viz",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name in _MODULES:
        return import_module(f"mudd_interp.{name}")
    if name in _HOMES:
        return getattr(import_module(f"mudd_interp.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'mudd_interp' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, for completion."""
    return [*__all__, "__version__"]
