"""Norms of the blocks' inputs, by hand and against the whole cache."""

import numpy as np
import pytest
import torch

from mudd_interp import axes
from mudd_interp.analysis import stream_norms
from tests.parity.family import FAMILY, random_model, random_tokens
from tests.unit.analysis.fakes import FakeModel


def test_norms_by_hand():
    # Lengths 5 and 1 in block 0, 13 and 13 in block 1, 0 and 2 before the final norm.
    tensors = {
        axes.resid_pre(0): torch.tensor([[[3.0, 4.0], [0.0, -1.0]]]),
        axes.resid_pre(1): torch.tensor([[[5.0, 12.0], [-12.0, 5.0]]]),
        axes.RESID_FINAL: torch.tensor([[[0.0, 0.0], [2.0, 0.0]]]),
    }
    model = FakeModel(lambda _: tensors, n_layers=2)
    frame = stream_norms(model, [torch.zeros(1, 2, dtype=torch.int64)]).frame
    assert list(frame.columns) == ["stream", "layer", "mean", "std"]
    assert frame["stream"].tolist() == ["r", "r", "r"]
    assert frame["layer"].tolist() == [0, 1, 2]
    assert frame["mean"].tolist() == [3, 13, 1]
    assert frame["std"].tolist() == [2, 0, 1]


def test_half_precision_is_widened_before_the_norm():
    vectors = torch.tensor([[[256.0, 16.0]]], dtype=torch.bfloat16)
    model = FakeModel(lambda _: {axes.resid_pre(0): vectors}, n_layers=1)
    frame = stream_norms(model, [torch.zeros(1, 1, dtype=torch.int64)]).frame
    assert frame["mean"].tolist()[0] == pytest.approx(np.hypot(256, 16), abs=1e-4)


@pytest.mark.parametrize("name", ["MUDDFormer", "MUDDFormer - Q dense", "Transformer++"])
def test_mean_and_spread_are_those_of_the_whole_cache(name):
    model = random_model(FAMILY[name])
    batches = [random_tokens(model.config, 2, 7), random_tokens(model.config, 1, 3, seed=2)]
    caches = [model.run_with_cache(tokens)[1] for tokens in batches]
    n_layers, expected = model.cfg.n_layers, []
    for stream in model.wiring.streams:
        hooks = [axes.stream_input(layer, stream) for layer in range(n_layers)]
        for layer, hook in enumerate([*hooks, axes.RESID_FINAL] if stream == "r" else hooks):
            vectors = torch.cat([cache[hook].detach().flatten(0, 1) for cache in caches]).numpy()
            norms = np.linalg.norm(vectors, axis=1)
            expected.append((stream, layer, norms.mean(), norms.std()))
    frame = stream_norms(model, batches).frame
    assert list(zip(frame["stream"], frame["layer"], strict=True)) == [e[:2] for e in expected]
    np.testing.assert_allclose(frame[["mean", "std"]], [e[2:] for e in expected], rtol=1e-12)
