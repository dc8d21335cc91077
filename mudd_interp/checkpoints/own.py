"""This project's own model folders: ``config.json``, ``model.safetensors``, a tokenizer if any."""

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from mudd_interp.checkpoints.layout import Layout, Placed, Shape, StoredWeight, as_it_is
from mudd_interp.checkpoints.tokenizer import save_tokenizer
from mudd_interp.config import ModelConfig
from mudd_interp.files import contents, place_of, replacing_folder, try_folder
from mudd_interp.model import FamilyModel

MODEL_TYPE = "mudd-interp"
FORMAT_VERSION = 2
"""With the wiring as a value; in version 1 it was a set of flags."""
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def save_model(model: nn.Module, folder: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Save a model to a folder that :func:`load_model` reads; whole or not at all.

    Weights are stored in the model's precision, under its own parameter names.

    Args:
        model: A model of this project.
        folder: The folder to make.
        overwrite: Replace a model that was saved there before. A folder that holds anything else
            is never replaced.

    Returns:
        The folder.

    Raises:
        ValueError: If the folder holds something or cannot be written, or the model is of another
            kind.
    """
    if not isinstance(model, FamilyModel):
        raise ValueError(
            f"cannot save a {type(model).__name__}: expected a HookedMUDDTransformer or a "
            "HookedViT. Save a bridged model with its own library."
        )
    target = place_of(folder)
    check_model_target(target, overwrite)
    try:
        with replacing_folder(
            target, lambda held: _refuse_contents(held, overwrite, target)
        ) as new:
            _write(model, new)
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"cannot write the model to {target} ({error}): it is as it was. Make room, or give "
            "another folder."
        ) from error
    return target


def _write(model: FamilyModel, folder: Path) -> None:
    (folder / "config.json").write_text(own_config_text(model.config), encoding="utf-8")
    weights = {name: weight.contiguous() for name, weight in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    # safetensors makes files that only their owner can read; models are meant to be shared.
    (folder / "model.safetensors").chmod((folder / "config.json").stat().st_mode)
    if model.tokenizer is not None:
        save_tokenizer(model.tokenizer, folder)


def own_config_text(cfg: ModelConfig) -> str:
    """The ``config.json`` of a folder of our own."""
    marked = {"model_type": MODEL_TYPE, "format_version": FORMAT_VERSION} | cfg.to_dict()
    return json.dumps(marked, indent=2) + "\n"


def own_config(values: Mapping[str, Any]) -> ModelConfig:
    """Read what :func:`own_config_text` wrote.

    Raises:
        ValueError: If a field is unknown or missing, or the format is a later one.
    """
    version = values.get("format_version")
    if version not in range(1, FORMAT_VERSION + 1):
        raise ValueError(
            f"format_version must be 1 or {FORMAT_VERSION}, got {version!r}: a later mudd-interp "
            "may have written this; upgrade."
        )
    return ModelConfig.from_dict(fields_of(values))


def fields_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the configuration in a ``config.json`` of our own."""
    marks = ("model_type", "format_version")
    return {name: value for name, value in values.items() if name not in marks}


def own_layout(
    cfg: ModelConfig,  # noqa: ARG001 (a layout's)
    shapes: Mapping[str, Shape],
    available: Collection[str],  # noqa: ARG001 (a layout's)
) -> Placed:
    """Where each parameter is in a folder of our own: under its own name, as it is."""
    return {name: StoredWeight(name, shape, as_it_is) for name, shape in shapes.items()}


OWN_LAYOUT = Layout(
    config=lambda values, _: own_config(values),
    weights=own_layout,
    identity=lambda config, _: fields_of(config),
)


def check_model_target(target: Path, overwrite: bool) -> None:
    """Refuse a folder that :func:`save_model` would refuse.

    Raises:
        ValueError: With what to do.
    """
    try:
        if target.exists() and not target.is_dir():
            raise ValueError(f"{target} is a file: expected the name of a folder to make.")
        _refuse_contents(target, overwrite, target)
        try_folder(target)
    except OSError as error:
        raise ValueError(f"cannot make the folder {target} ({error}): give another one.") from error


def _refuse_contents(folder: Path, overwrite: bool, called: Path) -> None:
    held = contents(folder)
    other = [name for name in held if name not in FILES or (folder / name).is_dir()]
    if other:
        raise ValueError(
            f"{called} holds {other[0]}, which is not part of a saved model: give another folder, "
            "or move it away."
        )
    if held and not overwrite:
        raise ValueError(
            f"{called} already holds a model: give another folder, or overwrite=True to replace it."
        )
