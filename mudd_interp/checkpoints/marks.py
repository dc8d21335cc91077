"""Byte order marks in front of JSON files, which some readers reject."""

import codecs
from pathlib import Path


def refuse_marks(folder: Path) -> None:
    """Refuse JSON files with a byte order mark, on behalf of a reader that rejects it.

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
