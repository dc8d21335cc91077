"""Images to learn from: in a new order each epoch, shifted and mirrored at random."""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Int64, UInt8

from mudd_interp.images import ImageSet, model_input
from mudd_interp.training.examples import Batch
from mudd_interp.training.schedule import Recipe

SHIFT = 2
"""How far an image moves, at most, in pixels up or down and left or right."""


class ImageExamples:
    """Images with labels; see :class:`mudd_interp.training.examples.Examples`.

    Every epoch shows each image once. The order of an epoch and the changes of a step follow from
    the recipe's ``data_seed`` alone, so two models with one recipe see the same.

    Args:
        recipe: How many images a step takes, and the seed.
        train: To learn from.
        validation: Held out; these are shown as they are.

    Raises:
        ValueError: If there are no labels.
    """

    unit = "images"

    def __init__(self, recipe: Recipe, train: ImageSet, validation: ImageSet):
        self.recipe, self.train, self.validation = recipe, train, validation
        self.labels, self._held_out = _labels(train), _labels(validation)
        self._order = lru_cache(2)(self._order_of)

    @property
    def per_step(self) -> int:
        """Images of a step."""
        return self.recipe.batch

    def batches(self, step: int) -> list[Batch]:
        """See :class:`Examples`."""
        rows = self.rows(step)
        rng = np.random.default_rng([self.recipe.data_seed, 1, step])
        pixels = augmented(self.train.pixels[rows], rng)
        return _pieces(pixels, self.labels[rows], self.recipe.micro_batch)

    def held_out(self) -> list[Batch]:
        """See :class:`Examples`."""
        return _pieces(self.validation.pixels, self._held_out, 250)

    def rows(self, step: int) -> Int64[np.ndarray, " row"]:
        """Which images a step takes; it may end one epoch and begin the next."""
        seen = np.arange(step * self.recipe.batch, (step + 1) * self.recipe.batch)
        epochs, places = np.divmod(seen, len(self.train))
        return np.array([self._order(int(e))[at] for e, at in zip(epochs, places, strict=True)])

    def _order_of(self, epoch: int) -> Int64[np.ndarray, " image"]:
        rng = np.random.default_rng([self.recipe.data_seed, 0, epoch])
        return rng.permutation(len(self.train))


def augmented(
    pixels: UInt8[np.ndarray, "image row column channel"], rng: np.random.Generator
) -> UInt8[np.ndarray, "image row column channel"]:
    """Each image moved by up to two pixels, with black from outside, and every second mirrored."""
    count, rows, columns, _ = pixels.shape
    around = np.pad(pixels, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(around, (rows, columns), (1, 2))
    down, right = rng.integers(0, 2 * SHIFT + 1, (2, count))
    moved = windows[np.arange(count), down, right].transpose(0, 2, 3, 1)
    mirrored = rng.integers(0, 2, count).astype(bool)
    return np.where(mirrored[:, None, None, None], moved[:, :, ::-1], moved)


def _labels(images: ImageSet) -> Int64[np.ndarray, " image"]:
    if images.labels is None:
        raise ValueError(f"{images.source} has no labels: nothing can be learnt from it.")
    return images.labels


def _pieces(
    pixels: UInt8[np.ndarray, "image row column channel"],
    labels: Int64[np.ndarray, " image"],
    size: int,
) -> list[Batch]:
    given, targets = model_input(pixels).split(size), torch.from_numpy(labels).split(size)
    return list(zip(given, targets, strict=True))
