"""The weights of every token of one sequence: by hand, against the cache, for every model."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch

from mudd_interp.analysis import dense_weights, rectify, token_weights
from tests.parity.family import FAMILY, random_model, random_tokens
from tests.unit.analysis.fakes import EdgeModel

TOKENS = torch.tensor([7, 3])
WEIGHTS = {
    (0, "v"): [[0.5, 2.0], [-1.0, 3.0]],
    (1, "r"): [[0.0, -0.5, 1.0], [1.0, 0.5, 2.0]],
}
SOURCES = {0: [[3.0, 4.0], [0.0, 1.0]], 1: [[6.0, 8.0], [0.0, 2.0]], 2: [[0.0, 0.0], [5.0, 12.0]]}


@pytest.fixture
def weights():
    return token_weights(EdgeModel(WEIGHTS, SOURCES), TOKENS)


def test_a_position_by_hand(weights):
    assert weights.frame_at(1).to_dict("split")["data"] == [
        ["v", 0, 0, 0.25, -1.25, -1.0, 1.0],
        ["v", 0, 1, 1.0, 2.0, 3.0, 2.0],
        ["r", 0, 0, 0.0, 0.0, 0.0, 1.0],
        ["r", 0, 1, 1.0, 0.0, 1.0, 2.0],
        ["r", 1, 0, 0.0, 1.0, 1.0, 1.0],
        ["r", 1, 1, -0.5, 1.0, 0.5, 2.0],
        ["r", 1, 2, 1.0, 1.0, 2.0, 13.0],
    ]
    columns = ["stream", "layer", "source", "static", "dynamic", "total", "source_norm"]
    assert weights.frame_at(0).columns.tolist() == columns


def test_an_edge_by_hand(weights):
    frame = weights.edge_frame("r", 1, 1)
    columns = ["position", "token_id", "static", "dynamic", "total", "source_norm"]
    assert frame.columns.tolist() == columns
    assert frame.to_dict("split")["data"] == [
        [0, 7, -0.5, 0.0, -0.5, 10.0],
        [1, 3, -0.5, 1.0, 0.5, 2.0],
    ]


def test_rectified_is_each_weight_times_the_norm_at_its_token(weights):
    frame = rectify(weights.edge_frame("r", 1, 1))
    assert frame[["static", "dynamic", "total"]].to_numpy().tolist() == [[-5, 0, -5], [-1, 2, 1]]
    assert frame[["position", "token_id", "source_norm"]].to_numpy().tolist() == [
        [0, 7, 10],
        [1, 3, 2],
    ]


def test_what_does_not_exist_is_nan(weights):
    exists = [[[1, 1, 0], [0, 0, 0]], [[1, 1, 0], [1, 1, 1]]]
    assert weights.present.astype(int).tolist() == exists
    assert np.array_equal(np.isfinite(weights.weights).all(-1), weights.present)


@pytest.mark.parametrize("name", FAMILY)
def test_weights_and_norms_are_those_of_the_cache(name):
    model = random_model(FAMILY[name])
    tokens = random_tokens(model.config, 1, 7)
    weights = token_weights(model, tokens)
    sources = [model.wiring.multiplied(source) for source in model.wiring.sources]
    _, cache = model.run_with_cache(tokens, names_filter=lambda n: n in sources or "weights" in n)
    assert weights.weights.dtype == np.float64
    for row in weights.frame_at(5).to_dict("records"):
        layer, source = row["layer"], row["source"]
        read = model.wiring.row(row["stream"], layer)
        hook, column = model.wiring.gate(read), model.wiring.columns(read).index(source)
        plain = float(source == layer + 1)
        assert row["total"] == (plain if hook is None else cache[hook][0, 5, column].item())
        static = model.wiring.static(read)
        assert static is not None
        assert row["static"] == static[column].item()
        norm = cache[sources[source]][0, 5].norm().item()
        assert row["source_norm"] == pytest.approx(norm, rel=1e-12)


def test_the_mean_over_the_tokens_is_that_of_the_corpus():
    model = random_model(FAMILY["MUDDFormer - K dense"])
    tokens = random_tokens(model.config, 1, 9)
    corpus = dense_weights(model, [tokens]).frame
    weights = token_weights(model, tokens[0])
    for row in corpus.to_dict("records"):
        edge = weights.edge_frame(row["stream"], row["layer"], row["source"])
        means = edge[["total", "dynamic", "source_norm"]].to_numpy().mean(axis=0)
        expected = row["mean"], row["mean"] - row["static"], row["source_norm"]
        np.testing.assert_allclose(means, expected, rtol=1e-13, atol=1e-14)


def test_a_plain_transformer_reads_the_newest_source_at_every_token():
    model = random_model(FAMILY["Transformer++"])
    frame = token_weights(model, random_tokens(model.config, 1, 4)).frame_at(2)
    newest = frame["source"] == frame["layer"] + 1
    assert frame["total"].tolist() == frame["static"].tolist() == newest.tolist()
    assert frame["dynamic"].tolist() == [0.0] * len(frame)


def test_static_connections_have_no_dynamic_part():
    model = random_model(FAMILY["+ Multiway Static Dense"]).float()
    frame = token_weights(model, random_tokens(model.config, 1, 4)).frame_at(3)
    assert frame["dynamic"].tolist() == [0.0] * len(frame)
    assert len(set(frame["static"])) == len(frame)


def test_half_precision_comes_out_as_float32():
    weights = token_weights(EdgeModel(WEIGHTS, SOURCES, torch.bfloat16), TOKENS)
    assert weights.weights.dtype == np.float32
    assert weights.frame_at(1)["total"].tolist() == [-1.0, 3.0, 0.0, 1.0, 1.0, 0.5, 2.0]


def test_a_sequence_may_be_a_batch_of_one_and_says_where_it_comes_from(weights):
    batch = token_weights(EdgeModel(WEIGHTS, SOURCES), TOKENS[None], "my prompt")
    assert batch.frame_at(0).equals(weights.frame_at(0))
    assert batch.token_ids.tolist() == [7, 3]
    assert batch.tokens == ("7", "3")
    assert batch.provenance.data == ("my prompt",)
    assert (batch.provenance.tokens, batch.provenance.sequences) == (2, 1)
    assert batch.provenance.token_digest == weights.provenance.token_digest


def test_weights_are_frozen_and_no_hook_stays(weights):
    with pytest.raises(ValueError, match="read-only"):
        weights.weights[0] = 0
    with pytest.raises(FrozenInstanceError):
        weights.streams = ()
    model = random_model(FAMILY["MUDDFormer"])
    token_weights(model, random_tokens(model.config, 1, 4))
    assert not any(hook.fwd_hooks for hook in model.hook_dict.values())


@pytest.mark.parametrize("position", [-1, 2])
def test_positions_that_do_not_exist_are_named(weights, position):
    with pytest.raises(ValueError, match=rf"position must lie in 0\.\.1, got {position}\."):
        weights.frame_at(position)


@pytest.mark.parametrize(
    ("edge", "message"),
    [
        (("q", 0, 0), r"stream must be one of v, r in this model, got 'q'\."),
        (("v", 1, 0), r"layer of stream v must lie in 0\.\.0 \(the last .* only\), got 1\."),
        (("r", 2, 0), r"layer of stream r must lie in 0\.\.1, got 2\."),
        (("r", -1, 0), r"layer of stream r must lie in 0\.\.1, got -1\."),
        (("r", 0, 2), r"source of layer 0 must lie in 0\.\.1, got 2\."),
        (("r", 1, -1), r"source of layer 1 must lie in 0\.\.2, got -1\."),
    ],
)
def test_edges_that_do_not_exist_are_named(weights, edge, message):
    with pytest.raises(ValueError, match=message):
        weights.edge_frame(*edge)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("def f():", "got a str"),
        ([1.0, 2.0], "must be integers, got a float"),
        ([True, False], "must be integers, got a bool"),
        (torch.zeros(2, 3, dtype=torch.int64), "expected one sequence, got 2"),
        (torch.zeros(3), r"got float32 of shape \[1, 3\]"),
        (torch.zeros(0, dtype=torch.int64), r"at least one token, got int64 of shape \[1, 0\]"),
    ],
)
def test_what_is_no_sequence_is_named(bad, message):
    with pytest.raises(ValueError, match=message):
        token_weights(EdgeModel(), bad)


def test_a_model_in_training_mode_is_refused():
    model = random_model(FAMILY["MUDDFormer"]).train()
    with pytest.raises(ValueError, match=r"call model\.eval\(\)"):
        token_weights(model, TOKENS)
