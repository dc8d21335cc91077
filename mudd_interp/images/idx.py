"""Files in the idx format of MNIST, packed by gzip or not.

Two zero bytes, the type of the numbers (8 for bytes), how many axes there are, the length of each
axis (four bytes, the highest first), then the numbers.
"""

import gzip
import io
import math
import re
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from mudd_interp.images.image_set import MOST_BYTES, ImageSet

GZIP = b"\x1f\x8b"
BEGINNING = b"\0\0\x08"
"""Of a file of bytes; other types are for other data."""

_MOST_PACKED = 1100
"""Bytes that one byte of a gzip file can stand for, at most (1,032 in theory)."""


def read_idx_images(path: Path) -> ImageSet:
    """Images in the layout of MNIST, with the labels of the file beside it where there is one.

    ``t10k-labels-idx1-ubyte`` belongs to ``t10k-images-idx3-ubyte``, each with or without ``.gz``.

    Raises:
        ValueError: If a file cannot be read, is damaged, or holds something else.
    """
    numbers = read_idx(path)
    if numbers.ndim != 3:
        raise ValueError(
            f"{path} has {numbers.ndim} axes, as files of labels have 1: give the file of images "
            "(image, row, column), such as t10k-images-idx3-ubyte.gz."
        )
    beside = _labels_beside(path)
    labels = None if beside is None else read_idx_labels(beside)
    return ImageSet(numbers[..., None], labels, None, path.name)


def read_idx_labels(path: Path) -> np.ndarray:
    """Labels ``[image]`` as int64.

    Raises:
        ValueError: If the file cannot be read, is damaged, or holds something else.
    """
    labels = read_idx(path)
    if labels.ndim != 1:
        raise ValueError(f"{path} has {labels.ndim} axes: a file of labels has 1 (image).")
    return labels.astype(np.int64)


def _labels_beside(path: Path) -> Path | None:
    name = re.sub(r"images([-.])idx3", r"labels\1idx1", path.name).removesuffix(".gz")
    if name == path.name.removesuffix(".gz"):
        return None
    found = [path.with_name(name + end) for end in (".gz", "")]
    return next((each for each in found if each.is_file()), None)


def read_idx(path: Path) -> UInt8[np.ndarray, "..."]:
    """The bytes of an idx file, in the shape that it states.

    A statement that the file is too small for is refused before anything is read.

    Raises:
        ValueError: If the file cannot be read, is damaged, or is no idx file of bytes.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(2) == GZIP
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            opened = gzip.GzipFile(fileobj=file) if packed else file
            shape = _shape(opened, path)
            stated, before = math.prod(shape), 4 + 4 * len(shape)
            most = size * _MOST_PACKED if packed else size - before
            _check_size(path, shape, most)
            data = opened.read(stated + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged or cut off ({error}): copy it again.") from error
    if len(data) != stated:
        held = f"{len(data):,} bytes" if len(data) < stated else "more"
        raise ValueError(
            f"{path} is damaged or cut off: it states {_words(shape)}, and holds {held}."
        )
    return np.frombuffer(data, np.uint8).reshape(shape)


def _shape(file: io.BufferedIOBase, path: Path) -> tuple[int, ...]:
    start = file.read(4)
    if len(start) < 4 or start[:3] != BEGINNING or not 1 <= start[3] <= 4:
        raise ValueError(f"{path} is no idx file of bytes (MNIST): it begins with {start!r}.")
    lengths = file.read(4 * start[3])
    if len(lengths) < 4 * start[3]:
        raise ValueError(f"{path} is cut off within its first bytes: copy it again.")
    return tuple(int(length) for length in np.frombuffer(lengths, ">u4"))


def _check_size(path: Path, shape: tuple[int, ...], most: int) -> None:
    stated = math.prod(shape)
    if stated > most:
        raise ValueError(
            f"{path} is damaged or cut off: it states {_words(shape)}, more than it has room for."
        )
    if stated > MOST_BYTES:
        raise ValueError(
            f"{path} holds {_words(shape)}: at most {MOST_BYTES:,} are read, so cut it first."
        )


def _words(shape: tuple[int, ...]) -> str:
    return f"{' × '.join(map(str, shape))} = {math.prod(shape):,} bytes"
