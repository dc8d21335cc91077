"""Locks that end with the process that holds them, however it ends."""

import errno
import hashlib
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import gettempdir

from mudd_interp.files.places import place_of

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there, and what a killed process leaves stays
    fcntl = None


@contextmanager
def held(path: Path) -> Generator[None]:
    """Hold an existing file or folder, whatever it is renamed to.

    Raises:
        BlockingIOError: If another process or thread holds it.
        FileNotFoundError: If it does not exist.
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
    """Whether a lock says that its process is alive."""
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
    """Be the only process and thread on this machine that works on a file or folder.

    The lock is a file in the system's folder for temporary files, and is removed at the end;
    nothing of it is in the place that it locks. What a killed process leaves behind locks nothing.

    Raises:
        ValueError: If another process is at work there, or the path is empty or leads nowhere.
    """
    file = _lock_file(place_of(path))
    if fcntl is None or file is None:
        yield
        return
    descriptor = _own(file, path)
    try:
        yield
    finally:
        with suppress(OSError):
            file.unlink()
        os.close(descriptor)


def _lock_file(target: Path) -> Path | None:
    """Where the lock of a target is; ``None`` on a system without temporary files."""
    name = hashlib.sha256(os.fsencode(target)).hexdigest()[:32]
    try:
        return Path(gettempdir()) / f"mudd-interp-{name}.lock"
    except FileNotFoundError:
        return None


def _own(file: Path, path: str | os.PathLike[str]) -> int:
    """A lock file, open and locked."""
    while True:
        descriptor = _open(file)
        try:
            _lock(descriptor, file)
            if _leads_to(file, descriptor):
                return descriptor
        except BlockingIOError as error:
            os.close(descriptor)
            raise ValueError(
                f"another process is at work on {path}: wait until it is done, or give another "
                "place."
            ) from error
        os.close(descriptor)  # removed by its owner as it was opened here


def _open(file: Path) -> int:
    try:
        return os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:  # of another user
        return os.open(file, os.O_RDONLY)


def _leads_to(file: Path, descriptor: int) -> bool:
    """Whether a path still leads to an open file."""
    try:
        return os.path.samestat(file.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
