"""Cosines between any two blocks' inputs, by hand and against the other analysis."""

import math

import numpy as np
import pytest
import torch

from mudd_interp import axes
from mudd_interp.analysis import layer_similarity, similarity_matrix, sweep
from tests.parity.family import FAMILY, random_model, random_tokens
from tests.unit.analysis.fakes import FakeModel
from tests.unit.analysis.test_similarity import inputs

ONE_TOKEN, TWO_TOKENS = ([torch.zeros(1, n, dtype=torch.int64)] for n in (1, 2))


def squares(result):
    """The cosines as ``[stream, layer, other]``."""
    return result.frame["cosine"].to_numpy().reshape(result.cosine_sum.shape)


def test_cosines_by_hand():
    # Angles of the first token: 90, 45 and 45 degrees; of the second: 0, 180 and 180.
    first, second, third = [[1, 0], [2, 0]], [[0, 3], [4, 0]], [[5, 5], [-6, 0]]
    result = similarity_matrix(FakeModel(inputs(first, second, third), n_layers=3), TWO_TOKENS)
    frame = result.frame
    assert list(frame.columns) == ["stream", "layer", "other", "cosine"]
    assert frame["stream"].tolist() == ["r"] * 9
    assert frame["layer"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert frame["other"].tolist() == [0, 1, 2] * 3
    near, far = 1 / 2, (math.sqrt(0.5) - 1) / 2
    expected = [[1, near, far], [near, 1, far], [far, far, 1]]
    np.testing.assert_allclose(squares(result)[0], expected, atol=1e-7)  # float32


def test_a_zero_vector_is_like_itself_only():
    result = similarity_matrix(FakeModel(inputs([[0, 0]], [[1, 0]]), n_layers=2), ONE_TOKEN)
    assert squares(result)[0].tolist() == [[1, 0], [0, 1]]


def test_half_precision_is_widened_before_the_cosine():
    # In bfloat16 256² + 16² is 256²: the cosine would be one.
    tensors = {
        axes.resid_pre(0): torch.tensor([[[256.0, 16.0]]], dtype=torch.bfloat16),
        axes.resid_pre(1): torch.tensor([[[1.0, 0.0]]], dtype=torch.bfloat16),
    }
    result = similarity_matrix(FakeModel(lambda _: tensors, n_layers=2), ONE_TOKEN)
    assert squares(result)[0, 1, 0] == pytest.approx(256 / math.hypot(256, 16), abs=1e-7)


@pytest.mark.parametrize("name", ["MUDDFormer", "MUDDFormer - V dense", "Transformer++"])
def test_the_mean_is_that_of_the_whole_cache(name):
    model = random_model(FAMILY[name])
    batches = [random_tokens(model.config, 2, 7), random_tokens(model.config, 1, 3, seed=2)]
    result = similarity_matrix(model, batches)
    caches = [model.run_with_cache(tokens)[1] for tokens in batches]
    for row, stream in enumerate(model.wiring.streams):
        for layer, other in np.ndindex(3, 3):
            names = (axes.stream_input(layer, stream), axes.stream_input(other, stream))
            a, b = (torch.cat([cache[n].detach().flatten(0, 1) for cache in caches]) for n in names)
            expected = torch.nn.functional.cosine_similarity(a, b).mean().item()
            assert squares(result)[row, layer, other] == pytest.approx(expected, abs=1e-13)


def test_it_is_symmetric_with_a_diagonal_of_exactly_one():
    model = random_model(FAMILY["MUDDFormer"]).float()
    found = squares(similarity_matrix(model, [random_tokens(model.config)]))
    assert np.array_equal(found, found.swapaxes(1, 2))
    assert (np.diagonal(found, axis1=1, axis2=2) == 1).all()


@pytest.mark.parametrize("name", ["MUDDFormer", "Transformer++"])
def test_the_first_off_diagonal_is_layer_similarity(name):
    model = random_model(FAMILY[name])
    matrix, similarity = sweep(
        model, [random_tokens(model.config)], ["similarity_matrix", layer_similarity]
    )
    off_diagonal = np.diagonal(squares(matrix), offset=-1, axis1=1, axis2=2)
    # The same float64 cosines, added in another order.
    np.testing.assert_allclose(off_diagonal.ravel(), similarity.frame["cosine"], atol=1e-14)
