"""A tiny released checkpoint to damage: a copy of a golden one, in whatever files are wanted."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

GOLDEN = Path(__file__).parents[2] / "parity" / "golden" / "muddpythia-plain"

INDEX = {"safetensors": "model.safetensors.index.json", "bin": "pytorch_model.bin.index.json"}


def config() -> dict[str, Any]:
    return json.loads((GOLDEN / "config.json").read_text())


def weights() -> dict[str, Tensor]:
    return load_file(GOLDEN / "model.safetensors")


def copy(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(GOLDEN / name, folder / name)
    return folder


def write(folder: Path, tensors: dict[str, Tensor], **changes: Any) -> Path:
    """A folder with these weights; ``changes`` are to its config."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config() | changes))
    save_file(tensors, folder / "model.safetensors")
    return folder


def write_shards(folder: Path, kind: str = "safetensors") -> Path:
    """The weights in two files with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(GOLDEN / "config.json", folder / "config.json")
    stem = "model" if kind == "safetensors" else "pytorch_model"
    placed: dict[str, str] = {}
    names = sorted(weights())
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"{stem}-{number:05d}-of-00002.{kind}"
        tensors = {name: weights()[name] for name in part}
        placed |= dict.fromkeys(part, file)
        if kind == "safetensors":
            save_file(tensors, folder / file)
        else:
            torch.save(tensors, folder / file)
    write_index(folder, placed, kind)
    return folder


def write_index(folder: Path, placed: dict[str, str], kind: str = "safetensors") -> None:
    (folder / INDEX[kind]).write_text(json.dumps({"metadata": {}, "weight_map": placed}))


def read_index(folder: Path) -> dict[str, str]:
    return json.loads((folder / INDEX["safetensors"]).read_text())["weight_map"]


def in_order(*words: str) -> str:
    """A pattern for a message that has these words in this order."""
    return "(?s)" + ".*".join(re.escape(word) for word in words)
