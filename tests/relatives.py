"""Tiny models of relatives, with what their own code computes for them."""

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import torch

from mudd_interp.checkpoints import load_model

GOLDEN = Path(__file__).parent / "parity" / "golden-relatives"
GATED_HEADS = ["deepseek-v4-tiny", "hy-v4-tiny"]
BACKED = [*GATED_HEADS, "gemma3n-tiny"]
"""Those of transformers."""


@cache
def loaded(folder: str, dtype: torch.dtype) -> Any:
    """A model that its tests leave as it is."""
    return load_model(GOLDEN / folder, dtype=dtype)


def copied(name: str, to: Path) -> Path:
    """A folder to change something in."""
    return Path(shutil.copytree(GOLDEN / name, to / name))
