"""Locks that end with the process that holds them, however it ends."""

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from mudd_interp.files.places import parents, place_of

try:
    import fcntl
except ImportError:  # Windows: there nothing is locked, and what a killed process left stays
    fcntl = None

INSIDE = ".mudd-interp"
"""How our own files begin that stand inside of a folder, for want of a place beside it."""


@contextmanager
def held(path: Path) -> Generator[None]:
    """Hold a file or folder that is there, whatever it is renamed to.

    Raises:
        BlockingIOError: If another process or thread holds it.
        FileNotFoundError: If it is not there.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _lock(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def can_tell_the_dead() -> bool:
    """Whether a lock says that its process lives."""
    return fcntl is not None


def _lock(descriptor: int, path: Path) -> None:
    assert fcntl is not None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BlockingIOError(
            errno.EWOULDBLOCK, "another process is writing there", str(path)
        ) from error
    except OSError:  # a file system without locks: work as if there were no other process
        return


@contextmanager
def exclusive(path: str | os.PathLike[str]) -> Generator[None]:
    """Be the only one, of all processes and threads, that works on a file or folder.

    The lock is a hidden file beside it, gone in the end. What a killed process leaves of it locks
    nothing.

    Raises:
        ValueError: If another works there.
        OSError: If nothing can be written there.
    """
    target = place_of(path)
    with parents(target):
        descriptor, file = _own(target, path)
        try:
            yield
        finally:
            with suppress(OSError):
                file.unlink()
            os.close(descriptor)


def _own(target: Path, path: str | os.PathLike[str]) -> tuple[int, Path]:
    """The lock file of a target, open and locked."""
    while True:
        descriptor, file = _open(target)
        try:
            if fcntl is not None:
                _lock(descriptor, file)
            if _leads_to(file, descriptor):
                return descriptor, file
        except BlockingIOError as error:
            os.close(descriptor)
            raise ValueError(
                f"another process is at work on {path}: wait until it is done, or give another "
                "place."
            ) from error
        os.close(descriptor)  # of one that was removed as it was opened


def _open(target: Path) -> tuple[int, Path]:
    inside = target / f"{INSIDE}.lock"
    beside = target.with_name(f".{target.name}.lock") if target.name else inside
    try:
        return os.open(beside, os.O_RDWR | os.O_CREAT, 0o666), beside
    except OSError:
        if beside == inside or not target.is_dir():
            raise
        return os.open(inside, os.O_RDWR | os.O_CREAT, 0o666), inside


def _leads_to(file: Path, descriptor: int) -> bool:
    """Whether a path still leads to an open file."""
    try:
        return os.path.samestat(file.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
