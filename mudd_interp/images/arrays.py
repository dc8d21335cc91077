"""Images as arrays in files: ``.npz`` and ``.safetensors``.

``images`` holds bytes ``[image row column]`` or ``[image row column channel]``; ``labels``, whole
numbers ``[image]``, may be beside. Class names are the strings ``class_names`` of a ``.npz``, or a
JSON list of that name in the metadata of a ``.safetensors``.
"""

import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from numpy.lib import format as npy
from safetensors import SafetensorError, safe_open

from mudd_interp.files import parse_json
from mudd_interp.images.image_set import MOST_BYTES, ImageSet
from mudd_interp.schema import validated

_NAMES = ("images", "labels", "class_names")


def read_npz(path: Path) -> ImageSet:
    """The images of a ``.npz``; what else it holds is not read.

    Raises:
        ValueError: If it cannot be read, is damaged, or has no such arrays.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [each for each in archive.infolist() if each.filename[:-4] in _NAMES]
            arrays = {each.filename[:-4]: _member(archive, each) for each in members}
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise ValueError(f"{path} is damaged or cut off ({error}): copy it again.") from error
    except (ValueError, RuntimeError) as error:  # the latter if it needs a password
        raise ValueError(f"{path} cannot be read ({error}).") from error
    names = arrays.pop("class_names", None)
    if names is not None and (names.ndim != 1 or names.dtype.kind != "U"):
        raise ValueError(f"{path}: class_names must be a list of strings, got {names.dtype}.")
    return _image_set(path, arrays, None if names is None else tuple(map(str, names)))


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Shaped[np.ndarray, "..."]:
    """One array, of which the header is held against the size of the file first."""
    if member.file_size > 9 * MOST_BYTES:
        raise ValueError(f"{member.filename} is larger than {MOST_BYTES:,} numbers")
    with archive.open(member) as file:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{member.filename} is of an unknown version of numpy's format")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, by_column, dtype = read(file)
        stated = math.prod(shape)
        if dtype.hasobject or stated > MOST_BYTES:
            raise ValueError(
                f"{member.filename} holds objects, or more than {MOST_BYTES:,} numbers"
            )
        if stated * dtype.itemsize > member.file_size:
            raise ValueError(f"{member.filename} states {shape}, more than it has room for")
        data = file.read(stated * dtype.itemsize)
    return np.frombuffer(data, dtype).reshape(shape, order="F" if by_column else "C")


def read_safetensors(path: Path) -> ImageSet:
    """The images of a ``.safetensors``; what else it holds is not read.

    Raises:
        ValueError: If it cannot be read, is damaged, or has no such arrays.
    """
    try:
        with safe_open(path, framework="np") as file:
            held = set(file.keys())
            arrays = {name: file.get_tensor(name) for name in _NAMES[:2] if name in held}
            listed = (file.metadata() or {}).get("class_names")
    except (SafetensorError, OSError, TypeError, ValueError, KeyError) as error:
        raise ValueError(f"{path} is damaged or cannot be read ({error}).") from error
    if listed is None:
        return _image_set(path, arrays, None)
    what = f"the class_names of {path}"
    return _image_set(path, arrays, validated(tuple[str, ...], parse_json(listed, what), what))


def _image_set(
    path: Path, arrays: Mapping[str, Shaped[np.ndarray, "..."]], names: tuple[str, ...] | None
) -> ImageSet:
    images, labels = arrays.get("images"), arrays.get("labels")
    if images is None:
        raise ValueError(
            f"{path} has no array `images`: expected bytes [image row column channel]."
        )
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise ValueError(
            f"{path}: `images` must be bytes (uint8) [image row column] or [image row column "
            f"channel], got {images.dtype} of shape {list(images.shape)}."
        )
    if labels is not None and (labels.ndim != 1 or labels.dtype.kind not in "iu"):
        raise ValueError(
            f"{path}: `labels` must be whole numbers [image], got {labels.dtype} of shape "
            f"{list(labels.shape)}."
        )
    pixels = images if images.ndim == 4 else images[..., None]
    classes = None if labels is None else labels.astype(np.int64)
    return ImageSet(pixels, classes, names, path.name)
