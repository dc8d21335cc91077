"""The items of the local tasks: excerpts of held-out files, shipped as JSON lines."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from mudd_interp.files import parse_json, write_text
from mudd_interp.schema import validated

FOLDER = Path(__file__).parent.parent / "bundled" / "tasks"


@dataclass(frozen=True)
class Item:
    """One question: what comes after a context.

    The context ends at a character that is no space, and a choice brings its own leading space: so
    the harness moves nothing from one to the other.

    Attributes:
        package: The distribution that the file is from.
        version: Its version.
        path: The file, relative to site-packages.
        sha256: Digest of the file's bytes, hexadecimal.
        end: Where the context ends in the file's text, as an index of characters.
        context: Up to 700 characters, from the beginning of a line.
        choices: The answers to choose from; one where the answer is not chosen but written.
        answer: Which of them is right, from 0.
    """

    package: str
    version: str
    path: str
    sha256: str
    end: int
    context: str
    choices: tuple[str, ...]
    answer: int

    @property
    def file(self) -> str:
        """The file, as held-out losses name it: items of one file are not independent."""
        return f"{self.package}: {self.path}"

    @property
    def right(self) -> str:
        """The right answer."""
        return self.choices[self.answer]


def path_of(task: str) -> Path:
    """The file of a local task's items."""
    return FOLDER / f"{task}.jsonl"


@cache
def read_items(task: str) -> tuple[Item, ...]:
    """The items of a local task, as :func:`write_items` wrote them.

    Raises:
        ValueError: If the file is missing, damaged, or holds something else.
    """
    path = path_of(task)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [parse_json(line, "a line of it") for line in lines]
        return tuple(validated(list[Item], rows, "its items"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is missing, or no file of items ({error}).") from error


def write_items(task: str, items: Iterable[Item]) -> None:
    """Write the items of a local task, whole or not at all."""
    lines = (json.dumps(asdict(item)) for item in items)
    write_text(path_of(task), "".join(f"{line}\n" for line in lines))
