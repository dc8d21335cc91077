"""Files and folders that are written whole or not at all."""

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from mudd_interp.files.places import is_stream, is_there, open_stream, parents, place_of
from mudd_interp.files.staging import Check, make_staging, recover, staging
from mudd_interp.files.swap import put_file, put_folder, require_folder


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Generator[Path]:
    """Yield a temporary path; on success, what is written there takes the place of ``path``.

    A reader sees the old file or the new one, never half of one: the last step is one rename. Only
    a file that cannot be replaced (a mounted one) is overwritten byte by byte; and a pipe or
    another device gets the bytes at the end.

    Args:
        path: The file to write. ``~`` and links are followed. If its folder is missing it is made,
            and removed again if nothing is written.

    Yields:
        Where to write. If the block raises, the temporary file is removed and ``path`` untouched.

    Raises:
        ValueError: If the path is empty, leads nowhere, or is a folder.
    """
    if is_stream(path):
        with TemporaryDirectory() as folder:
            yield (new := Path(folder) / "stream")
            with new.open("rb") as file, open_stream(path) as stream:
                shutil.copyfileobj(file, stream)
        return
    target = _file_place(path)
    with parents(target):
        recover(target)
        with staging(target) as folder:
            yield (new := folder / target.name)
            put_file(new, target)


def _file_place(path: str | os.PathLike[str]) -> Path:
    target = place_of(path)
    if target.is_dir() or os.fspath(path).endswith(("/", os.sep)):
        raise ValueError(f"{path} is a folder: give the name of a file.")
    return target


def _any_folder(folder: Path) -> None:
    """The check of a caller that accepts any folder."""


@contextmanager
def replacing_folder(path: str | os.PathLike[str], check: Check = _any_folder) -> Generator[Path]:
    """Yield a temporary folder; on success, it takes the place of ``path``.

    Where the system can exchange two folders (Linux), the old folder or the new one is there at
    every moment. Elsewhere, and for a folder that cannot be replaced (a mounted one, or the one in
    which this process works), what a kill interrupts is repaired by the next call for that folder,
    or by :func:`recover`.

    Args:
        path: The folder to make. ``~`` and links are followed. An existing one is removed when the
            new one is complete; if the last step fails, it stays as it was.
        check: Called with an existing folder, once before and once as it is replaced: if it raises,
            nothing has changed. By default any folder is replaced.

    Yields:
        Where to write. If the block raises, nothing has changed.

    Raises:
        ValueError: If the path is empty or leads nowhere, or what the check raises.
        OSError: If it cannot be written, or is not a folder.
    """
    target = place_of(path)
    with parents(target):
        recover(target)
        if is_there(target):
            require_folder(target, check)
        with staging(target) as new:
            yield new
            put_folder(new, target, check)


def try_folder(path: str | os.PathLike[str]) -> None:
    """Find out whether :func:`replacing_folder` would work, by making a folder and removing it.

    Raises:
        ValueError: If the path is empty or leads nowhere.
        OSError: If it would not.
    """
    target = place_of(path)
    if is_there(target):
        require_folder(target, _any_folder)
    _try(target)


def try_file(path: str | os.PathLike[str]) -> None:
    """Find out whether :func:`replacing` would work.

    Raises:
        ValueError: If the path is empty, leads nowhere, or is a folder.
        OSError: If it would not.
    """
    if not is_stream(path):
        _try(_file_place(path))


def _try(target: Path) -> None:
    there = next(folder for folder in target.parents if is_there(folder))
    make_staging(target if is_there(target) else there / target.name).rmdir()


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write bytes, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write text as UTF-8 with its line ends as they are, whole or not at all."""
    write_bytes(path, text.encode())
