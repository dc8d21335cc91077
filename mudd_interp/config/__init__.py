"""The configuration of the model family: frozen, validated, by field, by name or from a file."""

from mudd_interp.config.model_config import Dense, ModelConfig, PrePostNorm, RotaryRounding
from mudd_interp.config.widths import reallocate, swiglu_width

__all__ = ["Dense", "ModelConfig", "PrePostNorm", "RotaryRounding", "reallocate", "swiglu_width"]
