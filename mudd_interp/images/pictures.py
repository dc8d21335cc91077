"""Pictures in files of their own: PNG and JPEG."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from mudd_interp.images.image_set import MOST_BYTES, ImageSet, fit, with_channels

SUFFIXES = (".png", ".jpg", ".jpeg")
BEGINNINGS = (b"\x89PNG", b"\xff\xd8\xff")
MOST_PIXELS = 2**26
"""Of one picture: 67 million."""

_MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB"}
"""What is read, and as what."""

Fit = tuple[int, int]
"""An image size and a number of channels to bring pictures to."""


def read_pictures(
    paths: Sequence[Path], source: str, fitted: Fit | None = None
) -> UInt8[np.ndarray, "image row column channel"]:
    """Pictures of one size.

    Args:
        paths: The files.
        source: What they are, for the message.
        fitted: Image size and channels to bring each one to; ``None`` to leave them as they are.

    Raises:
        ValueError: If one cannot be read, or is of another size than the first.
    """
    found: list[UInt8[np.ndarray, "row column channel"]] = []
    for path in paths:
        pixels = read_picture(path)
        found.append(pixels if fitted is None else fit(pixels, *fitted))
        if found[-1].shape != found[0].shape:
            first, other = (" × ".join(map(str, each.shape)) for each in (found[0], found[-1]))
            raise ValueError(
                f"{source} has pictures of several sizes ({paths[0].name}: {first}, {path.name}: "
                f"{other}; rows, columns, channels): ask for them to be resized."
            )
        if len(paths) * found[0].size > MOST_BYTES:
            raise ValueError(
                f"{source} has {len(paths):,} pictures of {found[0].size:,} bytes each: at most "
                f"{MOST_BYTES:,} are read, so give fewer."
            )
    return np.stack(found)


def read_picture(path: Path) -> UInt8[np.ndarray, "row column channel"]:
    """One picture, turned as its camera says; its size is looked at before it is unpacked.

    Raises:
        ValueError: If it is no PNG or JPEG, is damaged, or is neither grey nor RGB in 8 bits.
    """
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            _check(image, path)
            turned = ImageOps.exif_transpose(image)
            return with_channels(np.array(turned.convert(_MODES.get(image.mode, "RGB"))))
    except _RefusedError as error:
        raise ValueError(str(error)) from None
    except Exception as error:  # a damaged file can make Pillow raise any class
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} is damaged, or no PNG or JPEG ({reason}).") from error


class _RefusedError(Exception):
    """What is refused for a reason of our own."""


def _check(image: Any, path: Path) -> None:
    if image.width * image.height > MOST_PIXELS:
        raise _RefusedError(
            f"{path} has {image.width:,} × {image.height:,} pixels: expected at most "
            f"{MOST_PIXELS:,}, so make it smaller first."
        )
    opaque = image.mode in _MODES and "transparency" not in image.info
    if not opaque and not _is_opaque(image):
        raise _RefusedError(
            f"{path} is {image.mode}{'' if opaque else ', or transparent'}: expected a grey or RGB "
            "picture of 8 bits without transparency; save it as that."
        )


def _is_opaque(image: Any) -> bool:
    """Whether a picture has an alpha channel that says nothing."""
    return image.mode == "RGBA" and image.getextrema()[3] == (255, 255)


def read_picture_folder(folder: Path, fitted: Fit | None = None) -> ImageSet:
    """The pictures of a folder in the order of their names; or those of its folders, as classes.

    Raises:
        ValueError: If there are none, or one cannot be read.
    """
    pictures = pictures_of(folder)
    if pictures:
        return ImageSet(read_pictures(pictures, folder.name, fitted), None, None, folder.name)
    classes = {inner: pictures_of(inner) for inner in _entries(folder) if inner.is_dir()}
    classes = {inner: held for inner, held in classes.items() if held}
    if not classes:
        raise ValueError(
            f"{folder} holds no picture: expected {', '.join(SUFFIXES)}, or folders of them, one "
            "for each class; or name one file of images (idx, .npz, .safetensors)."
        )
    labels = np.repeat(np.arange(len(classes)), [len(held) for held in classes.values()])
    listed = [path for held in classes.values() for path in held]
    names = tuple(inner.name for inner in classes)
    return ImageSet(read_pictures(listed, folder.name, fitted), labels, names, folder.name)


def pictures_of(folder: Path) -> list[Path]:
    """The PNG and JPEG files of a folder by their names; hidden ones are left out.

    Raises:
        ValueError: If the folder cannot be read.
    """
    return [path for path in _entries(folder) if path.suffix.lower() in SUFFIXES and path.is_file()]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise ValueError(
            f"cannot read the folder {folder} ({error.strerror}): make it readable, or move it."
        ) from error
