"""Mean and spread of the dense weights against the whole cache, for every kind of model."""

import numpy as np
import pytest
import torch

from mudd_interp.analysis import dense_weights
from mudd_interp.analysis.moments import Moments
from tests.parity.family import FAMILY, random_model, random_tokens

COLUMNS = ["stream", "layer", "source", "mean", "std", "static", "source_norm"]


def cached(caches, name):
    """All values of a hook, ``[token, last axis]``."""
    return torch.cat([cache[name].detach().flatten(0, 1) for cache in caches]).numpy()


def expected_rows(model, batches):
    """The table, straight from its definition."""
    n_layers = model.cfg.n_layers
    caches = [model.run_with_cache(tokens)[1] for tokens in batches]
    for stream in model.wiring.streams:
        for layer in range(n_layers) if stream == "r" else range(n_layers - 1):
            read = model.wiring.row(stream, layer)
            static, name = model.wiring.static(read).numpy(), model.wiring.gate(read)
            values = static[None] if name is None else cached(caches, name)
            for column, source in enumerate(model.wiring.columns(read)):
                multiplied = model.wiring.multiplied(model.wiring.sources[source])
                norms = np.linalg.norm(cached(caches, multiplied), axis=1)
                of_edge = values[:, column]
                numbers = of_edge.mean(), of_edge.std(), static[column], norms.mean()
                yield stream, layer, source, *numbers


@pytest.mark.parametrize("name", FAMILY)
def test_the_table_is_that_of_the_whole_cache(name):
    model = random_model(FAMILY[name])
    batches = [random_tokens(model.config, 2, 7), random_tokens(model.config, 1, 3, seed=2)]
    frame = dense_weights(model, batches).frame
    expected = list(expected_rows(model, batches))
    assert list(frame.columns) == COLUMNS
    labels = list(zip(frame["stream"], frame["layer"], frame["source"], strict=True))
    assert labels == [row[:3] for row in expected]
    found = frame[COLUMNS[3:]].to_numpy()
    values = np.array([row[3:] for row in expected])
    np.testing.assert_allclose(found, values, rtol=1e-12, atol=1e-14)


def test_a_plain_transformer_reads_the_newest_source():
    model = random_model(FAMILY["Transformer++"])
    frame = dense_weights(model, [random_tokens(model.config)]).frame
    newest = frame["source"] == frame["layer"] + 1
    assert frame["stream"].unique().tolist() == ["r"]
    assert frame["layer"].unique().tolist() == [0, 1, 2]
    assert frame["mean"].tolist() == newest.tolist()
    assert frame["static"].tolist() == newest.tolist()
    assert frame["std"].tolist() == [0.0] * len(frame)


def test_a_stream_without_dense_connections_is_one_hot():
    model = random_model(FAMILY["MUDDFormer - V dense"])
    frame = dense_weights(model, [random_tokens(model.config)]).frame
    rows = frame[frame["stream"] == "v"]
    assert rows["mean"].tolist() == (rows["source"] == rows["layer"] + 1).tolist()
    assert rows["std"].tolist() == [0.0] * len(rows)
    assert frame.loc[frame["stream"] == "q", "std"].to_numpy().min() > 0


def test_static_weights_do_not_vary():
    model = random_model(FAMILY["+ Multiway Static Dense"])
    frame = dense_weights(model, [random_tokens(model.config)]).frame
    np.testing.assert_allclose(frame["mean"], frame["static"], rtol=1e-15)
    assert frame["std"].to_numpy().max() < 1e-15


def test_moments_by_hand():
    both = Moments.of(np.array([[1.0], [3.0]])).merge(Moments.of(np.array([[8.0]])))
    assert (both.count, both.mean.item(), both.m2.item()) == (3, 4.0, 26.0)


def test_moments_keep_their_digits_far_from_zero():
    # Sums of squares would lose all of a variance of 2/3 beside a mean of 1e9.
    values = 1e9 + np.array([[0.0], [1.0], [2.0]])
    moments = Moments.empty(1)
    for value in values:
        moments = moments.merge(Moments.of(value[None]))
    assert moments.m2.item() / 3 == pytest.approx(2 / 3, rel=1e-6)
