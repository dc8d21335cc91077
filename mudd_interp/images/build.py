"""Rebuild the bundled images.

A maintainer runs ``python -m mudd_interp.images.build [FOLDER]``.
"""

import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from mudd_interp.files import write_bytes
from mudd_interp.images.bundled import BUNDLED_IMAGES
from mudd_interp.images.folders import FASHION_DIGEST, FASHION_MNIST, read_split
from mudd_interp.images.image_set import ImageSet

PER_CLASS = 20


def first_of_each_class(images: ImageSet, count: int = PER_CLASS) -> ImageSet:
    """The first so many images of each class, in their own order.

    Raises:
        ValueError: If the images have no labels.
    """
    if images.labels is None:
        raise ValueError(f"{images.source} has no labels: the classes are not known.")
    firsts = [np.flatnonzero(images.labels == name)[:count] for name in np.unique(images.labels)]
    return images.chosen(np.sort(np.concatenate(firsts)))


def build(folder: Path = FASHION_MNIST, target: Path = BUNDLED_IMAGES) -> None:
    """Write the bundled images.

    Raises:
        ValueError: If the folder does not hold Fashion-MNIST.
    """
    test = read_split(folder).test
    if test.digest != FASHION_DIGEST:
        raise ValueError(f"{folder} does not hold the test images of Fashion-MNIST.")
    chosen = first_of_each_class(test)
    assert chosen.labels is not None
    arrays = {"images": chosen.pixels, "labels": chosen.labels.astype(np.uint8)}
    write_bytes(target, save(arrays, {"class_names": json.dumps(chosen.class_names)}))


if __name__ == "__main__":
    build(*map(Path, sys.argv[1:]))
