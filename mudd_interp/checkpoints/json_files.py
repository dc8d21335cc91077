"""The JSON files beside weights: a byte order mark in front of one is no fault."""

import codecs
import json
from pathlib import Path
from typing import Any


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ValueError: If it cannot be read, is not JSON, or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}): download or copy it again.") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}: expected a JSON object.")
    return found


def refuse_marks(folder: Path) -> None:
    """Refuse JSON files with a byte order mark, for a reader that takes it for a fault.

    Raises:
        ValueError: With the first of them.
    """
    for path in sorted(folder.glob("*.json")):
        with path.open("rb") as file:
            if file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8:
                raise ValueError(
                    f"{path} begins with a byte order mark, with which transformers cannot read "
                    "it: save it as UTF-8 without one."
                )
