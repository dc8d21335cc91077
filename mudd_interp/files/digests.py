"""Digests of bytes and of files."""

import hashlib
import os
from pathlib import Path


def sha256(data: bytes) -> str:
    """The digest of bytes: 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | os.PathLike[str]) -> str:
    """The digest of a file's bytes, read in pieces: 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
