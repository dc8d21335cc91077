"""The configuration of the model family: frozen, validated, by field, by name or from a file."""

from mudd_interp.config.ends import Classes, NextTokenTask, Patches, TokenInput
from mudd_interp.config.model_config import ModelConfig, RotaryRounding
from mudd_interp.config.widths import reallocate, swiglu_width
from mudd_interp.config.wiring import WiringConfig, wiring

__all__ = [
    "Classes",
    "ModelConfig",
    "NextTokenTask",
    "Patches",
    "RotaryRounding",
    "TokenInput",
    "WiringConfig",
    "reallocate",
    "swiglu_width",
    "wiring",
]
