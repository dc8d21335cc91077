"""The JSON files beside weights: a byte order mark in front of one is no fault."""

import codecs
import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
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


@contextmanager
def without_marks(folder: Path) -> Generator[Path]:
    """A folder whose JSON files have no byte order mark, for readers that take it for a fault.

    It is the folder itself; where a file in it has a mark, one of links to the others, for as long
    as it is needed.
    """
    if not any(map(_is_marked, folder.glob("*.json"))):
        yield folder
        return
    with TemporaryDirectory() as name:
        clean = Path(name)
        for path in folder.iterdir():
            if path.suffix == ".json" and _is_marked(path):
                (clean / path.name).write_bytes(path.read_bytes().removeprefix(codecs.BOM_UTF8))
            else:
                (clean / path.name).symlink_to(path.resolve())
        yield clean


def _is_marked(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8
