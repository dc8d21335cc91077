"""Digests of bytes and of files."""

import hashlib
import os
import time
from functools import lru_cache
from pathlib import Path


def sha256(data: bytes) -> str:
    """The digest of bytes: 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | os.PathLike[str]) -> str:
    """The digest of a file's bytes, read in pieces: 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


SETTLED = 2.0
"""Seconds after a change from which a file's times show any further change: file systems
count time in steps, and the coarsest are that long."""


def known_sha256(path: str | os.PathLike[str]) -> str:
    """:func:`sha256_file`, read again only if the file may have changed since the last time.

    This is judged by path, size and times, as git does; a file that was changed a moment ago is
    always read.
    """
    found = Path(path).stat()
    changed = max(found.st_mtime, found.st_ctime)
    if abs(time.time() - changed) < SETTLED:
        return sha256_file(path)
    marks = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
    return _sha256_of(os.fspath(path), marks)


@lru_cache(maxsize=2**16)
def _sha256_of(path: str, marks: tuple[int, ...]) -> str:  # noqa: ARG001 (they are the key)
    return sha256_file(path)
