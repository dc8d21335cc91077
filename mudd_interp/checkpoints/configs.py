"""The ``config.json`` of a folder, which says what kind of model it holds."""

import os
from pathlib import Path
from typing import Any

from mudd_interp.axes import unknown_name
from mudd_interp.checkpoints.layout import Names
from mudd_interp.checkpoints.layouts import LAYOUTS, MARKS, SHARED
from mudd_interp.checkpoints.names import BUNDLED, locate
from mudd_interp.checkpoints.own import MODEL_TYPE
from mudd_interp.checkpoints.weight_files import open_weights
from mudd_interp.config import ModelConfig
from mudd_interp.config.presets import preset_names
from mudd_interp.config.released import RELEASED_TYPES
from mudd_interp.files import read_object
from mudd_interp.schema import shown


def read_config(folder: Path) -> dict[str, Any]:
    """The contents of a folder's ``config.json``, which must say what kind of model it is.

    Raises:
        ValueError: If there is none, it is not a JSON object, or it has no ``model_type``.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(
            f"{folder} holds no model: expected a config.json, with the weights beside it."
        )
    config = read_object(path)
    for mark, kind in MARKS.items():
        if mark in config and config.get("model_type") in (None, SHARED.get(kind)):
            config["model_type"] = kind
    if not isinstance(config.get("model_type"), str):
        raise ValueError(
            f"{path} has no model_type: expected {', '.join(RELEASED_TYPES)} (the released "
            f"layout), {MODEL_TYPE} (saved by mudd-interp), or one that transformers knows, such "
            "as gpt_neox."
        )
    return config


def config_of(values: dict[str, Any], path: Path, names: Names | None = None) -> ModelConfig:
    """The configuration in a ``config.json``, of any layout that is read here.

    Args:
        values: Its contents.
        path: Where it is, for the message.
        names: The names of the parameters; by default those of the weights beside it.

    Raises:
        ValueError: If it is of a model of another kind, or something is wrong with a field.
    """
    found = values.get("model_type")
    layout = LAYOUTS.get(found) if isinstance(found, str) else None
    if layout is None:
        raise ValueError(
            f"{path}: model_type must be one of {', '.join(LAYOUTS)}, got {shown(found)}."
        )
    try:
        return layout.config(values, names or (lambda: open_weights(path.parent).entries))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def find_config(given: str | os.PathLike[str]) -> ModelConfig:
    """The configuration of a model of this family, without its weights.

    Args:
        given: A bundled model; a file, which :meth:`ModelConfig.to_json` or
            :func:`~mudd_interp.checkpoints.save_model` wrote or that came with a released model; a
            folder with a ``config.json``; a preset; or a hub id, of which only the configuration
            and the tokenizer are downloaded.

    Raises:
        ValueError: If there is no such model, with the nearest names, or it is of another kind.
    """
    name = os.fspath(given)
    path = Path(name).expanduser()
    if name in BUNDLED or (name and path.is_dir()):
        return _of_folder(locate(name, None, local_files_only=False).folder)
    if name and path.is_file():
        values = read_object(path)
        return config_of(values, path) if "model_type" in values else _untagged(values, path)
    if name in preset_names():
        return ModelConfig.preset(name)
    if "/" not in name:
        known = (*BUNDLED, *preset_names())
        raise ValueError(
            f"{unknown_name('model or preset', name, known)} Expected a preset or a bundled model "
            f"({', '.join(known)}), a folder, a config.json or a hub id."
        )
    return _of_folder(locate(name, None, local_files_only=False).folder)


def _of_folder(folder: Path) -> ModelConfig:
    return config_of(read_config(folder), folder / "config.json")


def _untagged(values: dict[str, Any], path: Path) -> ModelConfig:
    """What ``to_json`` wrote: a configuration that is not that of a folder."""
    try:
        return ModelConfig.from_dict(values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
