"""From a name, a folder or a hub id to a model, and back to a folder."""

from mudd_interp.checkpoints.load import load_model
from mudd_interp.checkpoints.own import save_model

__all__ = ["load_model", "save_model"]
