"""transformers' models of depth-routing systems behind the same names as our model."""

from mudd_interp.model.backed.backed import BackedModel
from mudd_interp.model.backed.kinds import KINDS, Kind

__all__ = ["KINDS", "BackedModel", "Kind"]
