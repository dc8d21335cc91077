"""Batches of images: each once an epoch, changed as a slow loop would, the same for two models."""

import numpy as np
import pytest
import torch

from mudd_interp.images import ImageSet
from mudd_interp.training.image_examples import SHIFT, ImageExamples, augmented
from mudd_interp.training.schedule import Recipe

RNG = np.random.default_rng(0)
RECIPE = Recipe(steps=9, batch=4, micro_batch=3, data_seed=7)


def images(count: int, seed: int = 0) -> ImageSet:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, 6, 6, 1)).astype(np.uint8)
    return ImageSet(pixels, rng.integers(0, 3, count), None, "made")


def examples(recipe: Recipe = RECIPE) -> ImageExamples:
    return ImageExamples(recipe, images(10), images(5, 1))


def test_every_epoch_shows_each_image_once_in_another_order():
    rows = np.concatenate([examples().rows(step) for step in range(5)])  # 20 of 10: two epochs
    first, second = rows[:10], rows[10:]
    assert sorted(first) == sorted(second) == list(range(10))
    assert not np.array_equal(first, second)


def test_a_batch_is_a_function_of_the_step_and_the_seed():
    going_on = examples()
    for step in range(4):
        going_on.batches(step)
    assert same(going_on.batches(4), examples().batches(4))
    other = examples(Recipe(steps=9, batch=4, micro_batch=3, data_seed=8))
    assert not same(going_on.batches(4), other.batches(4))
    assert not same(going_on.batches(4), going_on.batches(3))


def same(one, other) -> bool:
    pairs = zip(sum(one, ()), sum(other, ()), strict=True)  # images and labels of each piece
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_step_comes_in_pieces_with_its_labels():
    given = examples()
    batches = given.batches(2)
    assert [len(targets) for _, targets in batches] == [3, 1]
    labels = torch.cat([targets for _, targets in batches])
    assert given.train.labels is not None
    assert labels.tolist() == given.train.labels[given.rows(2)].tolist()
    assert batches[0][0].shape == (3, 1, 6, 6)
    assert given.per_step == 4


def test_held_out_images_are_shown_as_they_are():
    ((given, targets),) = examples().held_out()
    held_out = images(5, 1)
    assert held_out.labels is not None
    assert torch.equal(given, held_out.model_input(6, 1))
    assert targets.tolist() == held_out.labels.tolist()


def candidates(image: np.ndarray) -> list[bytes]:
    """Every change of an image, written out: moved with black from outside, then mirrored."""
    found: list[bytes] = []
    rows, columns = image.shape[:2]
    for down in range(-SHIFT, SHIFT + 1):
        for right in range(-SHIFT, SHIFT + 1):
            moved = np.zeros_like(image)
            for row in range(rows):
                for column in range(columns):
                    if 0 <= row + down < rows and 0 <= column + right < columns:
                        moved[row, column] = image[row + down, column + right]
            found += [moved.tobytes(), moved[:, ::-1].tobytes()]
    return found


@pytest.mark.parametrize("channels", [1, 3])
def test_changes_are_shifts_and_mirrors_and_all_of_them_come(channels):
    image = RNG.integers(1, 256, (5, 6, channels)).astype(np.uint8)
    changed = augmented(np.repeat(image[None], 2000, 0), np.random.default_rng(0))
    seen = [each.tobytes() for each in changed]
    allowed = candidates(image)
    assert len(set(allowed)) == 50
    assert set(seen) == set(allowed)  # each has an even chance: 40 of 2000 on average
    counts = np.array([seen.count(each) for each in allowed])
    assert counts.min() > 15
    assert counts.max() < 75


def test_images_without_labels_teach_nothing():
    bare = ImageSet(images(4).pixels, None, None, "made")
    with pytest.raises(ValueError, match="made has no labels"):
        ImageExamples(RECIPE, bare, images(4))
