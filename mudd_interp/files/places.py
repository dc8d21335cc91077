"""Where a given path leads."""

import errno
import os
import re
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_DESCRIPTOR = re.compile(r"/dev/fd/(\d+)|/proc/self/fd/(\d+)")
_STANDARD = {"/dev/stdout": 1, "/dev/stderr": 2}


def place_of(path: str | os.PathLike[str]) -> Path:
    """The place that a path leads to, without ``~``, ``..`` or links; nothing has to be there yet.

    What is written through a link replaces what the link leads to, and never the link.

    Raises:
        ValueError: If the path is empty, names the home folder of a user that does not exist, or
            its links go round in a circle.
    """
    if not os.fspath(path):
        raise ValueError("the path is empty: give the name of a file or a folder.")
    try:
        expanded = Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{path} names the home folder of a user that does not exist: spell the folder out, or "
            f"write ./{path} for one of that name."
        ) from error
    try:
        return expanded.resolve()
    except (RuntimeError, OSError) as error:  # the former before Python 3.13
        if isinstance(error, OSError) and error.errno != errno.ELOOP:
            raise
        raise ValueError(f"the links of {path} go round in a circle: give another path.") from error


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a pipe, a terminal or another device that takes a stream of bytes."""
    if _descriptor(path) is not None:
        return True
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 (an empty path is "." to Path)
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _descriptor(path: str | os.PathLike[str]) -> int | None:
    """The number of an open file of this process that a path such as ``/dev/stdout`` names."""
    name = os.fspath(path)
    found = _DESCRIPTOR.fullmatch(name)
    return int(found[1] or found[2]) if found else _STANDARD.get(name)


def open_stream(path: str | os.PathLike[str]) -> BinaryIO:
    """A stream to write to; if it is an open file of this process, it continues from there."""
    number = _descriptor(path)
    return Path(path).open("wb") if number is None else os.fdopen(os.dup(number), "wb")


def is_there(path: Path) -> bool:
    """Whether something is at a path.

    Raises:
        OSError: If that cannot be known: the name is too long, or a folder above is not readable.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


@contextmanager
def parents(target: Path) -> Generator[None]:
    """Make the folders above a target; those made here are removed if they stay empty."""
    missing = [folder for folder in target.parents if not is_there(folder)]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for folder in missing:
            with suppress(OSError):  # not empty: the target is there
                folder.rmdir()


def is_pinned(folder: Path) -> bool:
    """Whether a folder cannot be replaced: a mount, or where this process works.

    A mount cannot be renamed, and a process whose folder is replaced is left without one.
    """
    return os.path.ismount(folder) or folder in _working() or str(folder) in _mounts()


def _working() -> tuple[Path, ...]:
    """The working folder of this process and those above it; none if it was removed."""
    try:
        return (here := Path.cwd()), *here.parents
    except FileNotFoundError:
        return ()


def _mounts() -> set[str]:
    """Where something is mounted, according to the system; bind mounts count too."""
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return set()
    octal = re.compile(rb"\\([0-7]{3})")
    paths = (octal.sub(lambda code: bytes([int(code[1], 8)]), line.split()[4]) for line in lines)
    return {os.fsdecode(path) for path in paths}
