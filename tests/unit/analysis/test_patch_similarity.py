"""Cosines between the patches of one image, by hand and against all pairs in turn."""

from itertools import combinations

import numpy as np
import pytest
import torch

from mudd_interp import axes
from mudd_interp.analysis import patch_similarity
from mudd_interp.analysis.patches import cosines_among
from tests.parity.family import FAMILY, random_model, random_tokens, random_vision_model
from tests.unit import seeing


def test_cosines_by_hand():
    # Angles: 0 and 90, 90 degrees.
    vectors = torch.tensor([[1.0, 0.0], [5.0, 0.0], [0.0, 2.0]])
    assert cosines_among(vectors) == pytest.approx(1 / 3, abs=1e-15)
    assert cosines_among(vectors[1:]) == 0
    assert cosines_among(torch.tensor([[1.0, 1.0], [-3.0, -3.0]])) == pytest.approx(-1, abs=1e-15)


def test_a_zero_vector_counts_as_cosine_zero():
    assert cosines_among(torch.tensor([[0.0, 0.0], [2.0, 0.0], [7.0, 0.0]])) == pytest.approx(1 / 3)


def test_half_precision_is_widened_before_the_cosine():
    # In bfloat16 256² + 16² is 256²: the cosine would be one.
    vectors = torch.tensor([[256.0, 16.0], [1.0, 0.0]], dtype=torch.bfloat16)
    assert cosines_among(vectors) == pytest.approx(256 / np.hypot(256, 16), abs=1e-15)


@pytest.mark.parametrize("name", seeing.NAMES)
def test_the_mean_is_that_of_all_pairs_in_turn(name: str):
    model, batches = seeing.vision_model(name), seeing.batches(2, 1)
    expected = []
    for stream in model.wiring.streams:
        hooks = [axes.stream_input(layer, stream) for layer in range(model.cfg.n_layers)]
        for layer, hook in enumerate([*hooks, axes.RESID_FINAL] if stream == "r" else hooks):
            images = [image for b in batches for image in model.run_with_cache(b)[1][hook].detach()]
            means = [
                np.mean([torch.cosine_similarity(a, b, dim=0) for a, b in combinations(image, 2)])
                for image in images
            ]
            expected.append((stream, layer, np.mean(means), np.std(means)))
    found = patch_similarity(model, batches)
    frame = found.frame
    assert list(zip(frame["stream"], frame["layer"], strict=True)) == [e[:2] for e in expected]
    np.testing.assert_allclose(frame[["cosine", "std"]], [e[2:] for e in expected], atol=1e-12)
    parts = [patch_similarity(model, [batch]) for batch in batches]
    np.testing.assert_allclose(parts[0].merge(parts[1]).mean, found.mean, rtol=1e-12)


def test_what_is_not_for_it_is_refused():
    model = random_model(FAMILY["MUDDFormer"])
    with pytest.raises(ValueError, match=r"^patch_similarity is not for .* reads no images"):
        patch_similarity(model, [random_tokens(model.config)])
    cfg = seeing.one_patch()
    with pytest.raises(ValueError, match="reads an image as one patch: take a model with smaller"):
        patch_similarity(random_vision_model(cfg), seeing.batches(1))
