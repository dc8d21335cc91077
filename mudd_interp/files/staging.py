"""Where new contents are written before they take their place, and what a kill leaves of it.

The staging folder of ``name`` is ``.name.<digits>.tmp`` beside it, or inside it if that folder
cannot be replaced (see :func:`~mudd_interp.files.places.is_pinned`). Its process holds it with a
lock, so one that nobody holds is a leftover.
"""

import os
import re
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from mudd_interp.files.json_files import read_json
from mudd_interp.files.locks import can_tell_the_dead, held
from mudd_interp.files.places import is_pinned, is_there

INSIDE = ".mudd-interp"
"""How the name of a staging folder inside its target begins."""

READY, OLD = ".new", ".old"
"""The suffixes of complete new contents on their way into a folder that stays, and of what they
replaced."""

REPLACES = ".replaces"
"""The file that lists the names that the new contents of a folder replace, if the folder stays."""

_DIGITS = r"\.[0-9a-f]{32}\.(tmp|old|new)"
_OURS = re.compile(re.escape(INSIDE) + _DIGITS)

_ATTEMPTS = 10

Check = Callable[[Path], object]
"""Called with the folder that would be replaced, once before and once in the act; if it raises,
the folder stays."""


def contents(folder: Path) -> list[str]:
    """The names in a folder, sorted, without our own temporary files; none if it does not exist."""
    names = sorted(os.listdir(folder)) if folder.is_dir() else []  # noqa: PTH208 (names only)
    return [name for name in names if not _OURS.fullmatch(name)]


@contextmanager
def staging(target: Path) -> Generator[Path]:
    """A new staging folder, held; it is removed at the end unless it was renamed.

    Raises:
        OSError: If it cannot be made.
    """
    with ExitStack() as stack:
        folder = _held_folder(target, stack)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder


def _held_folder(target: Path, stack: ExitStack) -> Path:
    for _ in range(_ATTEMPTS):
        folder = make_staging(target)
        # Until it is held, another process may take it for a leftover.
        with suppress(FileNotFoundError, BlockingIOError), ExitStack() as holding:
            holding.enter_context(held(folder))
            if folder.is_dir():
                stack.push(holding.pop_all())
                return folder
    raise BlockingIOError(f"cannot hold a folder beside {target}: other processes remove it.")


def make_staging(target: Path, inside: bool = False) -> Path:
    """A new staging folder for a target, beside it or else inside it.

    Raises:
        OSError: If it cannot be made in either place; the error of the first attempt.
    """
    first: OSError | None = None
    for folder, stem in [(target, INSIDE)] if inside else _spots(target):
        made = folder / f"{stem}.{uuid4().hex}.tmp"
        try:
            made.mkdir()
        except OSError as error:
            first = first or error
        else:
            return made
    assert first is not None
    raise first


def _spots(target: Path) -> Iterator[tuple[Path, str]]:
    """Where a staging folder may be, and how its name begins there; the better place first."""
    is_folder = target.is_dir()
    if not (is_folder and is_pinned(target)):
        yield target.parent, f".{target.name}"
    if is_folder:
        yield target, INSIDE


def recover(target: Path) -> None:
    """Repair what a process left behind when it was killed while writing a target.

    New contents that were complete and on their way in are put there; old ones that were moved away
    for new ones that never came are put back; anything else that nobody holds is removed.
    """
    if not can_tell_the_dead():
        return
    for folder, stem in {*_spots(target), (target.parent, f".{target.name}")}:
        for leftover in _leftovers(folder, stem):
            with suppress(OSError), held(leftover):  # unless its process is alive
                _settle(leftover, target)


def _leftovers(folder: Path, stem: str) -> list[Path]:
    pattern = re.compile(re.escape(stem) + _DIGITS)
    try:
        return [path for path in folder.iterdir() if pattern.fullmatch(path.name)]
    except OSError:
        return []


def _settle(leftover: Path, target: Path) -> None:
    if leftover.suffix == OLD and not is_there(target):
        leftover.rename(target)
    elif leftover.suffix == READY:
        move_in(leftover, target)
    else:
        shutil.rmtree(leftover)


def move_in(ready: Path, target: Path) -> None:
    """Move new contents into a folder, in place of the names that :data:`REPLACES` lists."""
    listed = ready / REPLACES
    # It is removed last: once it is gone, everything is done.
    for name in _replaced(listed) if listed.exists() else ():
        _remove(target / name)
    for new in ready.iterdir():
        if new != listed:
            _remove(target / new.name, only_folder=True)
            new.replace(target / new.name)
    shutil.rmtree(ready)


def _replaced(listed: Path) -> list[str]:
    """The names in a list, all of them of files in the folder.

    Raises:
        ValueError: If it is not a list of such names.
    """
    names = read_json(listed)
    if not isinstance(names, list) or not all(map(_is_name, names)):
        raise ValueError(f"{listed} is not a list of names: remove its folder, and try again.")
    return names


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\\0")


def _remove(path: Path, only_folder: bool = False) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif not only_folder:
        path.unlink(missing_ok=True)
