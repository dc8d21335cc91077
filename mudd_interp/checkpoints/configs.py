"""The ``config.json`` of a folder, which says what kind of model it holds."""

from pathlib import Path
from typing import Any

from mudd_interp.checkpoints.own import MODEL_TYPE
from mudd_interp.config.released import RELEASED_TYPES
from mudd_interp.files import read_object


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
    if not isinstance(config.get("model_type"), str):
        raise ValueError(
            f"{path} has no model_type: expected {', '.join(RELEASED_TYPES)} (the released "
            f"layout), {MODEL_TYPE} (saved by mudd-interp), or one that transformers knows, such "
            "as gpt_neox."
        )
    return config
