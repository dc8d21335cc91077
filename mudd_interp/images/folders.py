"""Folders of four idx files, as MNIST and Fashion-MNIST come."""

from dataclasses import dataclass, replace
from pathlib import Path

from mudd_interp.images.idx import read_idx_images
from mudd_interp.images.image_set import ImageSet

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package ``dataset-fashion-mnist`` puts it."""

FASHION_DIGEST = "b169c59a0b5afd34130075c88fbbac32bef96359b2c8dfbb6aa4b4fb858a43c0"
"""The digest of its 10,000 test images."""

FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


@dataclass(frozen=True)
class Split:
    """Images to learn from and to test on, all with labels."""

    train: ImageSet
    test: ImageSet

    @property
    def n_classes(self) -> int:
        """One more than the largest label."""
        labels = (part.labels for part in (self.train, self.test))
        return 1 + max(int(each.max()) for each in labels if each is not None)


def read_split(folder: Path = FASHION_MNIST) -> Split:
    """The training and the test images of a folder in the layout of MNIST.

    Raises:
        ValueError: If a file is missing, damaged, or does not fit the others.
    """
    train, test = (_part(folder, name) for name in ("train", "t10k"))
    if train.pixels.shape[1:] != test.pixels.shape[1:]:
        raise ValueError(
            f"the training images in {folder} have the shape {train.pixels.shape[1:]}, the test "
            f"images {test.pixels.shape[1:]}: they are of different data."
        )
    if test.digest == FASHION_DIGEST:
        train, test = (replace(part, class_names=FASHION_CLASSES) for part in (train, test))
    return Split(train, test)


def _part(folder: Path, name: str) -> ImageSet:
    wanted = [folder / f"{name}-images-idx3-ubyte{end}" for end in (".gz", "")]
    path = next((each for each in wanted if each.is_file()), None)
    if path is None:
        raise ValueError(
            f"no {wanted[0].name} in {folder}: give the folder of the four idx files with --data, "
            "or install Fashion-MNIST (Debian: apt install dataset-fashion-mnist)."
        )
    found = read_idx_images(path)
    if found.labels is None:
        labels = path.name.replace("images-idx3", "labels-idx1")
        raise ValueError(f"no {labels} beside {path}: images without labels teach nothing.")
    return found
