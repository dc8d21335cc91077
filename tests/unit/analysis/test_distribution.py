"""Histograms of the weights: by hand, against the whole cache, merged and saved."""

import numpy as np
import pytest
import torch

from mudd_interp.analysis import (
    WeightDistribution,
    WeightDistributionAnalysis,
    dense_weights,
    sweep,
    weight_distribution,
)
from tests.parity.family import FAMILY, random_model, random_tokens
from tests.unit.analysis.fakes import EdgeModel

TOKENS = torch.zeros(1, 4, dtype=torch.int64)
# Source 0: below, on the lowest edge, inside, on an inner edge. Source 1: on the upper edge.
WEIGHTS = {
    (0, "v"): [[-1.5, 0.125], [-1.0, 0.125], [0.25, 0.75], [0.5, 1.0]],
    (1, "r"): [[0.0, 0.0, 0.0]] * 4,
}


@pytest.fixture
def distribution():
    return weight_distribution(EdgeModel(WEIGHTS), [TOKENS], limit=1.0, bins=4)


def test_a_histogram_by_hand(distribution):
    frame = distribution.edge_frame("v", 0, 0)
    assert frame.columns.tolist() == ["low", "high", "count", "share"]
    inf = float("inf")
    assert frame["low"].tolist() == [-inf, -1, -0.5, 0, 0.5, 1]
    assert frame["high"].tolist() == [-1, -0.5, 0, 0.5, 1, inf]
    assert frame["count"].tolist() == [1, 1, 0, 1, 1, 0]
    assert frame["share"].tolist() == [0.25, 0.25, 0, 0.25, 0.25, 0]
    assert distribution.edge_frame("v", 0, 1)["count"].tolist() == [0, 0, 0, 2, 1, 1]


def test_the_summary_by_hand(distribution):
    frame = distribution.frame
    labels = ["stream", "layer", "source", "count", "minimum", "maximum"]
    quantiles = ["quantile_05", "quantile_50", "quantile_95"]
    assert frame.columns.tolist() == labels + quantiles
    first = frame.iloc[0]
    assert first[labels].tolist() == ["v", 0, 0, 4, -1.5, 0.5]
    # The lowest bin is cut at the minimum, [-1.5, -1); then [-1, -0.5); the top one at 0.5.
    assert first[quantiles].tolist() == [-1.25, -0.75, 0.5]
    assert frame.loc[1, quantiles].tolist() == [0.3125, 0.3125, 1.0]


def test_a_plain_stream_is_a_spike_on_the_newest_source(distribution):
    rows = distribution.frame.query("stream == 'r' and layer == 0")
    for name in ("minimum", "maximum", "quantile_05", "quantile_50", "quantile_95"):
        assert rows[name].tolist() == [0.0, 1.0]
    assert rows["count"].tolist() == [4, 4]
    assert distribution.edge_frame("r", 0, 1)["count"].tolist() == [0, 0, 0, 0, 0, 4]


@pytest.mark.parametrize("name", ["MUDDFormer - K dense", "PrePostDANorm, R only", "GPT-NeoX"])
def test_histograms_are_those_of_the_whole_cache(name):
    model = random_model(FAMILY[name])
    batches = [random_tokens(model.config, 2, 7), random_tokens(model.config, 1, 3, seed=2)]
    distribution = weight_distribution(model, batches, limit=2.0, bins=32)
    hooks = [name for name in model.hook_dict if "weights" in name] or ["hook_embed"]
    caches = [model.run_with_cache(tokens, names_filter=hooks)[1] for tokens in batches]
    # 1/8 is exact in binary: both ways put a value that is on an edge into the same bin.
    ends = np.array([-np.inf, *np.arange(-2, 2.01, 0.125), np.inf])
    for row in distribution.frame.to_dict("records"):
        stream, layer, source = row["stream"], row["layer"], row["source"]
        hook = model.wiring.gate(model.wiring.row(stream, layer))
        if hook is None:
            values = np.full(17, float(source == layer + 1))
        else:
            shown = [cache[hook].detach().flatten(0, 1) for cache in caches]
            values = torch.cat(shown)[:, source].numpy()
        found = distribution.edge_frame(stream, layer, source)["count"]
        assert found.tolist() == np.histogram(values, ends)[0].tolist()
        assert (row["minimum"], row["maximum"]) == (values.min(), values.max())
        if np.abs(values).max() < 2:
            median = np.quantile(values, 0.5, method="inverted_cdf")
            assert abs(row["quantile_50"] - median) <= 2.0 / 32


def test_edges_are_those_of_the_dense_weights():
    model = random_model(FAMILY["MUDDFormer - V dense"])
    batches = [random_tokens(model.config)]
    weights, distribution = sweep(model, batches, ["dense_weights", "weight_distribution"])
    labels = ["stream", "layer", "source"]
    assert distribution.frame[labels].equals(weights.frame[labels])
    means = weights.frame["mean"].to_numpy()
    assert np.all(distribution.frame["minimum"].to_numpy() <= means)
    assert np.all(means <= distribution.frame["maximum"].to_numpy())
    assert weights.frame.equals(dense_weights(model, batches).frame)


def test_merged_histograms_are_those_of_one_run_bit_for_bit():
    model = random_model(FAMILY["MUDDFormer - K dense"])
    first, second = [random_tokens(model.config, 2, 7)], [random_tokens(model.config, 1, 3, seed=2)]
    whole = weight_distribution(model, [*first, *second])
    merged = weight_distribution(model, first).merge(weight_distribution(model, second))
    assert merged.provenance == whole.provenance
    assert merged.frame.equals(whole.frame)
    assert np.array_equal(merged.counts, whole.counts)


def test_other_bins_do_not_merge(distribution):
    with pytest.raises(ValueError, match="options differs"):
        distribution.merge(weight_distribution(EdgeModel(WEIGHTS), [TOKENS], limit=1.0, bins=5))


def test_save_and_load_lose_nothing(distribution, tmp_path):
    distribution.save(tmp_path / "d")
    loaded = WeightDistribution.load(tmp_path / "d")
    assert loaded.frame.equals(distribution.frame)
    assert loaded.edge_frame("v", 0, 0).equals(distribution.edge_frame("v", 0, 0))


def test_edges_that_do_not_exist_are_named(distribution):
    with pytest.raises(ValueError, match=r"source of layer 0 must lie in 0\.\.1, got 2"):
        distribution.edge_frame("v", 0, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0.0}, "limit must be a positive number, got 0.0"),
        ({"limit": float("inf")}, "limit must be a positive number, got inf"),
        ({"limit": float("nan")}, "limit must be a positive number, got nan"),
        ({"bins": 0}, "bins must be at least 1, got 0"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        WeightDistributionAnalysis(**options)


@pytest.mark.parametrize(("value", "what"), [("nan", "is NaN"), ("inf", "is infinite")])
def test_what_is_not_finite_is_named(value: str, what: str):
    weights = {**WEIGHTS, (0, "v"): [[float(value), 0.0]] * 4}
    with pytest.raises(ValueError, match=f"(?s){what}.*check the (model's )?parameters"):
        weight_distribution(EdgeModel(weights), [TOKENS])
