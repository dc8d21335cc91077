"""Where attention rests, against loops over queries and keys and by hand."""

import math
import statistics
from typing import Any

import numpy as np
import pytest
import torch

from mudd_interp import axes
from mudd_interp.analysis import patch_sinks
from mudd_interp.analysis.patch_sinks import blank_patches, distances, outliers
from tests.parity.family import FAMILY, random_model, random_tokens, random_vision_model
from tests.unit import seeing


def written_out(model: Any, images: torch.Tensor) -> dict[tuple[int, int], list[float]]:
    """Attention to outliers and to blanks, entropy and distance of each head; and their shares."""
    _, cache = model.run_with_cache(images)
    side, n_layers, n_heads = 4, model.cfg.n_layers, model.cfg.n_heads
    found: dict[tuple[int, int], list[float]] = {}
    blank = [
        [
            all(
                float(image[channel, 7 * row + y, 7 * column + x])
                == float(image[channel, 7 * row, 7 * column])
                for channel in range(len(image))
                for y in range(7)
                for x in range(7)
            )
            for row in range(side)
            for column in range(side)
        ]
        for image in images
    ]
    for layer in range(n_layers):
        output = cache[axes.resid_post(layer)].detach()
        sticks_out = []
        for image in output:
            norms = [math.sqrt(sum(float(v) ** 2 for v in patch)) for patch in image]
            median = statistics.median(norms)
            spread = statistics.median(abs(norm - median) for norm in norms)
            sticks_out.append([norm > median + 5 * spread for norm in norms])
        pattern = cache[axes.pattern(layer)].detach()
        for head in range(n_heads):
            sums = [0.0] * 4
            for at, image in enumerate(pattern[:, head]):
                for query, row in enumerate(image):
                    for key, weight in enumerate(row.tolist()):
                        dy, dx = key // side - query // side, key % side - query % side
                        sums[0] += weight * sticks_out[at][key]
                        sums[1] += weight * blank[at][key]
                        sums[2] -= weight * math.log(weight)
                        sums[3] += weight * math.sqrt(dy * dy + dx * dx)
            count = len(images) * 16
            means = [each / count for each in sums]
            means[2] /= math.log(16)
            shares = [np.mean(sticks_out), np.mean(blank)]
            found[layer, head] = [*means, *map(float, shares)]
    return found


def loud(x: torch.Tensor, hook: Any) -> torch.Tensor:
    """Makes one patch of the second image long, so that there is an outlier."""
    x = x.clone()
    x[1, 6] *= 40
    return x


@pytest.mark.parametrize("name", seeing.NAMES)
def test_every_number_is_that_of_the_loops(name: str):
    model, images = seeing.vision_model(name), seeing.seen(3)
    with model.hooks([(axes.attn_out(0), loud)]):
        found = patch_sinks(model, [images])
        expected = written_out(model, images)
    frame: Any = found.frame
    assert list(zip(frame["layer"], frame["head"], strict=True)) == list(expected)
    columns = ["to_outliers", "to_blanks", "entropy", "distance"]
    columns += ["outlier_patches", "blank_patches"]
    np.testing.assert_allclose(frame[columns], list(expected.values()), rtol=1e-12, atol=1e-14)
    assert found.outliers[0] > 0  # so the loops have something to find
    assert 0 < found.blanks[0] < 48
    assert frame["to_outliers"].iloc[0] > 0


def test_parts_are_added_up():
    model = seeing.vision_model()
    parts = [patch_sinks(model, [batch]) for batch in seeing.batches(2, 1)]
    whole = patch_sinks(model, seeing.batches(2, 1))
    both: Any = parts[0].merge(parts[1])
    np.testing.assert_allclose(both.frame, whole.frame, rtol=1e-12)
    assert both.blanks.tolist() == whole.blanks.tolist()


def test_outliers_by_hand():
    # Median 2, deviations 1 0 0 1 6 0 0: their median is 0, and above 2 are 3 and 8.
    assert outliers(np.array([[1.0, 2, 2, 3, 8, 2, 2]])).nonzero()[1].tolist() == [3, 4]
    # Median 3, median deviation 1: above 8 is 9, and 8 is not.
    assert outliers(np.array([[1.0, 2, 3, 4, 9.0], [1, 2, 3, 4, 8]])).nonzero()[0].tolist() == [0]
    assert not outliers(np.ones((2, 4))).any()


def test_blank_patches_by_hand():
    pixels = torch.zeros(1, 4, 2, 3)
    pixels[0, 1] = torch.tensor([[1.0, 1, 1], [-1, -1, -1]])  # two colours, each all over: blank
    pixels[0, 2, 1, 2] = 0.5
    pixels[0, 3, 0] = torch.tensor([0.0, 1, 0])
    assert blank_patches(pixels).tolist() == [[True, True, False, False]]


def test_distances_by_hand():
    expected = [[0, 1, 1, 2**0.5], [1, 0, 2**0.5, 1], [1, 2**0.5, 0, 1], [2**0.5, 1, 1, 0]]
    torch.testing.assert_close(distances(2), torch.tensor(expected, dtype=torch.float64))


def test_none_found_is_a_result():
    noise = torch.rand(2, 1, 28, 28, dtype=torch.float64) * 2 - 1
    found: Any = patch_sinks(seeing.vision_model("see-plain"), [noise])
    assert found.blanks.tolist() == [0]
    assert (found.frame["to_blanks"] == 0).all()
    one: Any = patch_sinks(random_vision_model(seeing.one_patch()), [noise])
    assert (one.frame[["entropy", "distance", "to_outliers"]] == 0).all().all()


def test_a_model_of_text_is_refused():
    model = random_model(FAMILY["MUDDFormer"])
    with pytest.raises(ValueError, match=r"^patch_sinks is not for .* reads no images"):
        patch_sinks(model, [random_tokens(model.config)])
