"""The door: images from a file or a folder, of whatever kind."""

import os
from pathlib import Path

from mudd_interp.images.arrays import read_npz, read_safetensors
from mudd_interp.images.idx import BEGINNING, GZIP, read_idx_images
from mudd_interp.images.image_set import ImageSet
from mudd_interp.images.pictures import (
    BEGINNINGS,
    Fit,
    read_picture_folder,
    read_pictures,
)

EXPECTED = "a PNG or JPEG, an idx file (MNIST, .gz too), .npz or .safetensors, or a folder of PNGs"


def read_images(place: str | os.PathLike[str], fitted: Fit | None = None) -> ImageSet:
    """Images from a file or a folder; what a file is, its first bytes say.

    Args:
        place: A PNG or JPEG; a folder of them; an idx file in the layout of MNIST, beside which
            its labels may be; a ``.npz`` or ``.safetensors`` with ``images`` and maybe ``labels``.
        fitted: The image size and the number of channels to bring each image to, as
            :meth:`ImageSet.fitted` does; ``None`` to leave them as they are.

    Raises:
        ValueError: If there is nothing, or something else; with what was expected.
    """
    path = Path(place).expanduser()
    try:
        if path.is_dir():
            return read_picture_folder(path, fitted)
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise ValueError(f"cannot read {path} ({error.strerror}): expected {EXPECTED}.") from error
    if start.startswith(BEGINNINGS):
        return ImageSet(read_pictures([path], path.name, fitted), None, None, path.name)
    found = _read_set(path, start)
    return found if fitted is None else found.fitted(*fitted)


def _read_set(path: Path, start: bytes) -> ImageSet:
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return read_npz(path)
    if start.startswith((GZIP, BEGINNING)):
        return read_idx_images(path)
    begins = f"it begins with {start!r}" if start else "it is empty"
    raise ValueError(f"{path} is no image ({begins}): expected {EXPECTED}.")
