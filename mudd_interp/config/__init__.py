"""The configuration of the model family: frozen, validated, by field, by name or from a file."""

from mudd_interp.config.model_config import ModelConfig, RotaryRounding
from mudd_interp.config.widths import reallocate, swiglu_width
from mudd_interp.config.wiring import WiringConfig, wiring

__all__ = [
    "ModelConfig",
    "RotaryRounding",
    "WiringConfig",
    "reallocate",
    "swiglu_width",
    "wiring",
]
