"""Test images of Fashion-MNIST that come with this package."""

from dataclasses import replace
from pathlib import Path

from mudd_interp.images.arrays import read_safetensors
from mudd_interp.images.image_set import ImageSet

BUNDLED_IMAGES = Path(__file__).parent.parent / "bundled" / "images.safetensors"
SOURCE = "bundled test images of Fashion-MNIST"


def bundled_images() -> ImageSet:
    """200 test images of Fashion-MNIST, 28 × 28 and grey: the first 20 of each of its 10 classes.

    They are in the order of the test set, with labels and class names.
    """
    return replace(read_safetensors(BUNDLED_IMAGES), source=SOURCE)
