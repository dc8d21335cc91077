"""Cosines between neighbouring blocks' inputs, by hand and against a double loop."""

import math

import numpy as np
import pytest
import torch

from mudd_interp import axes
from mudd_interp.analysis import layer_similarity
from tests.parity.family import FAMILY, random_model, random_tokens
from tests.unit.analysis.fakes import FakeModel


def inputs(*vectors_by_layer):
    """What ``hook_resid_pre`` shows in each block, one list of vectors per layer."""
    tensors = {
        axes.resid_pre(layer): torch.tensor([vectors]) * 1.0
        for layer, vectors in enumerate(vectors_by_layer)
    }
    return lambda tokens: tensors


def test_cosines_by_hand():
    # Angles: 90 and 0 degrees, then 45 and 180 degrees.
    first, second, third = [[1, 0], [2, 0]], [[0, 3], [4, 0]], [[5, 5], [-6, 0]]
    model = FakeModel(inputs(first, second, third), n_layers=3)
    frame = layer_similarity(model, [torch.zeros(1, 2, dtype=torch.int64)]).frame
    assert list(frame.columns) == ["stream", "layer", "cosine"]
    assert frame["stream"].tolist() == ["r", "r"]
    assert frame["layer"].tolist() == [1, 2]
    assert frame["cosine"].tolist() == pytest.approx([1 / 2, (math.sqrt(0.5) - 1) / 2], abs=1e-7)


def test_a_zero_vector_counts_as_cosine_zero():
    model = FakeModel(inputs([[0, 0], [1, 0]], [[1, 0], [1, 0]]), n_layers=2)
    result = layer_similarity(model, [torch.zeros(1, 2, dtype=torch.int64)])
    assert result.frame["cosine"].tolist() == [0.5]


def test_half_precision_is_widened_before_the_cosine():
    # In bfloat16 256² + 16² is 256²: the cosine would be one.
    vectors = torch.tensor([[[256.0, 16.0]]], dtype=torch.bfloat16)
    other = torch.tensor([[[1.0, 0.0]]], dtype=torch.bfloat16)
    tensors = {axes.resid_pre(0): vectors, axes.resid_pre(1): other}
    result = layer_similarity(
        FakeModel(lambda _: tensors, n_layers=2), [torch.zeros(1, 1, dtype=torch.int64)]
    )
    expected = 256 / math.hypot(256, 16)
    assert result.frame["cosine"].tolist() == pytest.approx([expected], abs=1e-7)


@pytest.mark.parametrize("name", ["MUDDFormer", "MUDDFormer - V dense", "Transformer++"])
def test_the_mean_is_that_of_a_naive_double_loop(name):
    model = random_model(FAMILY[name])
    batches = [random_tokens(model.config, 2, 7), random_tokens(model.config, 1, 3, seed=2)]
    frame = layer_similarity(model, batches).frame
    expected = []
    for stream in model.wiring.streams:
        for layer in range(1, model.cfg.n_layers):
            names = [axes.stream_input(layer, stream), axes.stream_input(layer - 1, stream)]
            cosines = []
            for tokens in batches:
                _, cache = model.run_with_cache(tokens, names_filter=names)
                pair = [cache[name].detach().flatten(0, 1).numpy() for name in names]
                for a, b in zip(*pair, strict=True):
                    cosines.append(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
            expected.append((stream, layer, np.mean(cosines)))
    assert list(zip(frame["stream"], frame["layer"], strict=True)) == [e[:2] for e in expected]
    np.testing.assert_allclose(frame["cosine"], [e[2] for e in expected], rtol=0, atol=1e-13)
