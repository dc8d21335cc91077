"""Figures of dense weights: their parts, a token, an edge; beside, over and minus a baseline."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mudd_interp import viz
from mudd_interp.analysis import WeightDistributionAnalysis, sweep, token_weights
from mudd_interp.protocol import ModelInfo
from mudd_interp.viz.theme import BASELINE, STREAM_STYLES, robust_limit
from tests.parity.family import FAMILY, random_model, random_tokens
from tests.unit.analysis.fakes import EdgeModel, FakeModel

TOKENS = torch.tensor([[7, 3]])
WEIGHTS = {
    (0, "v"): [[0.5, 2.0], [-1.0, 3.0]],
    (1, "r"): [[0.0, -0.5, 1.0], [1.0, 0.5, 2.0]],
}
# Norms 5, 5, 5 at the first token; 1, 2, 3 at the second.
SOURCES = {j: [[3.0, 4.0], [0.0, 1.0 + j]] for j in range(3)}
NAN = np.nan


def named(model, name):
    model.info = ModelInfo(name=name, digest="abcdef0123456789")
    return model


def hand_made():
    return named(EdgeModel(WEIGHTS, SOURCES), "mudd <b>")


def plain(n_layers=2):
    model = FakeModel(lambda _: sources, n_layers=n_layers)
    sources = {each.hook: torch.tensor([[[0.0, 4.0]] * 2]) for each in model.wiring.sources}
    return named(model, "plain")


@pytest.fixture(scope="module")
def tokens():
    return token_weights(hand_made(), TOKENS)


@pytest.fixture(scope="module")
def plain_tokens():
    return token_weights(plain(), TOKENS)


@pytest.fixture(scope="module")
def corpus():
    """Dense weights and distribution of the model, and of the baseline."""
    analyses = ["dense_weights", "weight_distribution"]
    return sweep(hand_made(), [TOKENS], analyses), sweep(plain(), [TOKENS], analyses)


def subtitle(figure):
    return figure.layout.title.subtitle.text


def grids(figure):
    return [np.asarray(trace.z) for trace in figure.data if trace.type == "heatmap"]


def test_static_and_dynamic_parts_by_hand(corpus):
    figure: Any = viz.weights_figure(corpus[0][0], False, ["static", "dynamic"])
    expected = [
        [[0.25, 1.0, NAN], [NAN] * 3],
        [[0.0, 1.0, NAN], [0.0, -0.5, 1.0]],
        [[-0.5, 1.5, NAN], [NAN] * 3],
        [[0.0, 0.0, NAN], [0.5, 0.5, 0.5]],
    ]
    np.testing.assert_array_equal(grids(figure), expected)
    titles = [annotation.text for annotation in figure.layout.annotations]
    assert titles == [f"{stream}, {part}" for part in ("static", "dynamic") for stream in NAMES]
    assert [trace.name for trace in figure.data] == titles
    assert "dynamic: mean over tokens − static part; colours" in subtitle(figure)


NAMES = ("V · value", "R · residual")


def test_mean_and_std_are_the_default_and_do_not_mention_parts(corpus):
    figure: Any = viz.weights_figure(corpus[0][0])
    assert [trace.name.split(", ")[1] for trace in figure.data] == ["mean", "mean", "std", "std"]
    assert "norm of the source; over tokens, static part included; colours" in subtitle(figure)
    assert figure.layout.height == 600


def test_all_four_statistics_make_a_higher_figure(corpus):
    figure: Any = viz.weights_figure(corpus[0][0], True, ["mean", "std", "static", "dynamic"])
    assert len(figure.data) == 8
    assert figure.layout.height > 900


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize(
    ("statistic", "expected"),
    [
        ("total", [[[-1, 3, NAN], [NAN] * 3], [[0, 1, NAN], [1, 0.5, 2]]]),
        ("static", [[[0.25, 1, NAN], [NAN] * 3], [[0, 1, NAN], [0, -0.5, 1]]]),
        ("dynamic", [[[-1.25, 2, NAN], [NAN] * 3], [[0, 0, NAN], [1, 1, 1]]]),
    ],
)
def test_a_token_by_hand(tokens, statistic, expected, rectified):
    figure: Any = viz.token_weights_figure(tokens, 1, statistic, rectified)
    norms = np.array([1.0, 2.0, 3.0]) if rectified else 1.0
    np.testing.assert_array_equal(grids(figure), np.array(expected) * norms)
    assert "token 1 “3”" in figure.layout.title.text
    assert ("rectified" in figure.layout.title.text) == rectified


def test_the_scale_of_a_token_is_that_of_every_token_and_can_be_shared(tokens, plain_tokens):
    figures: list[Any] = [viz.token_weights_figure(tokens, t) for t in (0, 1)]
    limit = viz.token_weights_limit([tokens])
    # Of 0.5 0.5 0.5 1 1 1 1 1 2 2 3, the non-zero magnitudes: 0.98 of ten steps up.
    assert limit == pytest.approx(2.8)
    for figure in figures:
        assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (-limit, limit)
        assert "(98% of non-zero values at all tokens)" in subtitle(figure)
    shared = viz.token_weights_limit([tokens, plain_tokens], "total", rectified=True)
    for each in (tokens, plain_tokens):
        figure: Any = viz.token_weights_figure(each, 0, rectified=True, limit=shared)
        assert figure.layout.coloraxis.cmax == shared
        assert "(a common scale)" in subtitle(figure)


def test_the_limit_is_of_the_statistic_that_is_drawn(tokens):
    assert viz.token_weights_limit([tokens], "dynamic") < viz.token_weights_limit([tokens])
    everything = tokens.frame_at(0), tokens.frame_at(1)
    values = np.concatenate([f["dynamic"] * f["source_norm"] for f in everything])
    limit = viz.token_weights_limit([tokens], "dynamic", rectified=True)
    assert limit == robust_limit(values)


def test_differences_have_the_numbers_of_their_tables_and_a_scale_of_their_own(
    corpus, tokens, plain_tokens
):
    figure: Any = viz.weights_difference_figure(corpus[0][0], corpus[1][0], False, ["mean"])
    expected = [
        [[-0.25, 1.5, NAN], [NAN] * 3],
        [[0, 0, NAN], [0.5, 0, 0.5]],
    ]
    np.testing.assert_array_equal(grids(figure), expected)
    token: Any = viz.token_weights_difference_figure(tokens, plain_tokens, 1)
    expected = [[[-1, 2, NAN], [NAN] * 3], [[0, 0, NAN], [1, 0.5, 1]]]
    np.testing.assert_array_equal(grids(token), expected)
    for each in (figure, token):
        assert each.layout.title.text.endswith(": mudd &lt;b&gt; − plain")
        assert each.layout.coloraxis.colorbar.title.text.startswith("difference")
        assert "mudd &lt;b&gt; − plain, weight, dimensionless" in subtitle(each)


def test_a_baseline_over_a_model_is_a_cross_on_its_newest_source(corpus, tokens, plain_tokens):
    over_corpus: Any = viz.weights_figure(corpus[0][0], True, ["mean"], baseline=corpus[1][0])
    at_token: Any = viz.token_weights_figure(tokens, 0, baseline=plain_tokens)
    for figure in (over_corpus, at_token):
        crosses = figure.data[2:]
        assert [trace.x.tolist() for trace in crosses] == [[1], [1, 2]]
        assert [trace.y.tolist() for trace in crosses] == [[0], [0, 1]]
        assert all(trace.marker.color == BASELINE.colour for trace in crosses)
        assert "×: what plain (baseline) reads most" in subtitle(figure)
    spread: Any = viz.weights_figure(corpus[0][0], True, ["std"], baseline=corpus[1][0])
    assert [len(trace.x) for trace in spread.data[2:]] == [0, 0]


def test_another_model_with_four_streams_is_held_against_each():
    model = random_model(FAMILY["MUDDFormer"])
    result, other = (
        sweep(each, [random_tokens(model.config)], ["dense_weights"])[0]
        for each in (model, random_model(FAMILY["MUDDFormer"], seed=1))
    )
    figure: Any = viz.weights_figure(result, False, ["mean"], baseline=other)
    for stream, trace in zip("qkvr", figure.data[4:], strict=True):
        rows = other.frame[other.frame["stream"] == stream]
        largest = rows.loc[rows["mean"].abs().groupby(rows["layer"]).idxmax()]
        assert trace.y.tolist() == largest["layer"].tolist()
        assert trace.x.tolist() == largest["source"].tolist()


def test_models_of_other_depths_stand_side_by_side_only(corpus, tokens):
    deep = token_weights(plain(n_layers=3), TOKENS)
    with pytest.raises(ValueError, match="2 layers and the baseline 3: take two of one depth"):
        viz.token_weights_figure(tokens, 0, baseline=deep)
    with pytest.raises(ValueError, match="2 layers and the baseline 3: take two of one depth"):
        viz.token_weights_difference_figure(tokens, deep, 0)


def test_an_edge_over_the_tokens_by_hand(tokens, plain_tokens):
    figure: Any = viz.edge_figure(tokens, "v", 0, 1, position=1, baseline=plain_tokens)
    static, total, baseline, ring = figure.data
    assert static.y.tolist() == [1.0, 1.0]
    assert static.line.dash == "dot"
    assert total.y.tolist() == [2.0, 3.0]
    assert total.customdata.tolist() == [1.0, 2.0]
    assert (total.mode, total.line.color) == ("lines+markers", STREAM_STYLES["v"].colour)
    assert baseline.y.tolist() == [1.0, 1.0]
    assert (baseline.line.color, baseline.line.dash) == (BASELINE.colour, "dash")
    assert (list(ring.x), list(ring.y)) == ([1], [3.0])
    assert figure.layout.shapes[0].x0 == figure.layout.shapes[0].x1 == 1
    assert figure.layout.xaxis.ticktext == ("7", "3")
    assert figure.layout.xaxis.tickvals == (0, 1)
    assert figure.layout.yaxis.range == (1.0 - 0.1, 3.0 + 0.1)
    assert total.name == "mudd &lt;b&gt;"


def test_a_rectified_edge_has_the_norms_of_its_tokens(tokens):
    figure: Any = viz.edge_figure(tokens, "r", 1, 2, rectified=True)
    assert figure.data[0].y.tolist() == [5.0, 3.0]
    assert figure.data[1].y.tolist() == [5.0, 6.0]


def test_two_edge_figures_can_share_a_scale(tokens, plain_tokens):
    limits = viz.edge_limits([tokens, plain_tokens], "v", 0, 1)
    figures: list[Any] = [
        viz.edge_figure(tokens, "v", 0, 1, limits=limits),
        viz.edge_figure(plain_tokens, "v", 0, 1, limits=limits, as_baseline=True),
    ]
    assert [figure.layout.yaxis.range for figure in figures] == [limits, limits]
    assert figures[1].data[1].line.color == BASELINE.colour
    assert "stream R of layer 0" in figures[1].layout.title.text


def test_tokens_are_escaped_equal_ones_kept_apart_and_long_sequences_thinned(tokens):
    few: Any = viz.edge_figure(replace(tokens, tokens=("<b>", "<b>")), "v", 0, 1)
    assert few.layout.xaxis.ticktext == ("&lt;b&gt;", "&lt;b&gt;")
    assert few.layout.xaxis.tickvals == (0, 1)
    assert few.layout.xaxis.title.text == "token"
    long = replace(
        tokens,
        tokens=tuple(str(i) for i in range(128)),
        token_ids=np.arange(128),
        weights=np.repeat(tokens.weights, 64, axis=-1),
        source_norm=np.repeat(tokens.source_norm, 64, axis=-1),
    )
    many: Any = viz.edge_figure(long, "v", 0, 1)
    # 890 pixels, 14 for each text: every third.
    assert many.layout.xaxis.tickvals == tuple(range(0, 128, 3))
    assert many.layout.xaxis.ticktext[:2] == ("0", "3")
    assert many.layout.xaxis.title.text == "token; one in 3 is named"
    assert len(many.data[1].y) == 128


def test_what_does_not_exist_is_named(tokens, corpus):
    with pytest.raises(ValueError, match=r"position must lie in 0\.\.1, got 2"):
        viz.token_weights_figure(tokens, 2)
    with pytest.raises(ValueError, match=r"position must lie in 0\.\.1, got -1"):
        viz.edge_figure(tokens, "v", 0, 1, position=-1)
    with pytest.raises(ValueError, match=r"source of layer 0 must lie in 0\.\.1, got 2"):
        viz.edge_figure(tokens, "v", 0, 2)
    weights, distribution = corpus[0]
    with pytest.raises(ValueError, match=r"layer of stream r must lie in 0\.\.1, got 5"):
        viz.edge_distribution_figure(distribution, weights, "r", 5, 0)
    flipped = token_weights(plain(), TOKENS.flip(1))
    with pytest.raises(ValueError, match="position 0 is '7' for the one, '3' for the other"):
        viz.edge_figure(tokens, "v", 0, 1, baseline=flipped)


@pytest.mark.parametrize(("rectified", "factor"), [(False, 1.0), (True, 3.5)])
def test_a_distribution_by_hand(corpus, rectified, factor):
    (weights, distribution), (baseline, _) = corpus
    figure: Any = viz.edge_distribution_figure(
        distribution, weights, "v", 0, 1, rectified=rectified, baseline=baseline
    )
    bars, mean, static, theirs = figure.data
    # The weights are 2 and 3; source 1 has norms 5 and 2, in the baseline 4.
    filled = np.asarray(bars.y) > 0
    np.testing.assert_allclose(np.asarray(bars.x)[filled], factor * np.array([2.01, 3.01]))
    np.testing.assert_allclose(np.asarray(bars.y)[filled], [0.5, 0.5])
    np.testing.assert_allclose(bars.width, factor * 0.02)
    assert np.asarray(bars.customdata)[filled].tolist() == [1, 1]
    assert bars.hovertext[0] == f"{2 * factor:.4g} to {2.02 * factor:.4g}"
    assert list(mean.x) == [2.5 * factor] * 2
    assert list(static.x) == [1.0 * factor] * 2
    assert list(theirs.x) == [4.0 if rectified else 1.0] * 2
    assert mean.name == f"mean ± std: {2.5 * factor:.3g} ± {0.5 * factor:.3g}"
    assert theirs.name == f"plain (baseline): always {4 if rectified else 1}"
    assert (theirs.line.color, theirs.line.dash) == (BASELINE.colour, "dash")
    band = figure.layout.shapes[0]
    assert (band.x0, band.x1) == (2.0 * factor, 3.0 * factor)
    low, high = figure.layout.xaxis.range
    assert low < 1.0 * factor
    assert 3.02 * factor < high < 3.2 * factor
    assert "hatched" not in subtitle(figure)


def test_what_lies_beyond_the_histogram_is_one_hatched_bin_of_the_same_area():
    weights, _ = sweep(hand_made(), [TOKENS], ["dense_weights", "weight_distribution"])
    distribution = sweep(hand_made(), [TOKENS], [WeightDistributionAnalysis(1.0, 4)])[0]
    figure: Any = viz.edge_distribution_figure(distribution, weights, "v", 0, 1)
    (bar,) = figure.data[0].y
    # Both tokens lie in [1, 3]: four bins of 0.5 at a quarter each.
    assert bar == 0.25
    assert (figure.data[0].x[0], figure.data[0].width[0]) == (2.0, 2.0)
    assert figure.data[0].marker.pattern.shape == ("/",)
    assert "hatched: 2 tokens (100.0%) beyond ±1, in one bin" in subtitle(figure)


def test_a_plain_transformer_is_a_spike(corpus):
    weights, distribution = corpus[1]
    figure: Any = viz.edge_distribution_figure(distribution, weights, "v", 0, 1, as_baseline=True)
    assert np.asarray(figure.data[0].y).tolist() == [1.0]
    low, high = figure.layout.xaxis.range
    assert high - low >= 40 * 0.02
    assert figure.data[0].marker.color == BASELINE.colour


def test_a_distribution_and_weights_of_other_tokens_are_refused(corpus):
    weights, _ = sweep(hand_made(), [TOKENS.flip(1)], ["dense_weights", "weight_distribution"])
    with pytest.raises(
        ValueError, match="one model on the same tokens, got mudd <b> and mudd <b> on 2"
    ):
        viz.edge_distribution_figure(corpus[0][1], weights, "v", 0, 1)


def test_every_figure_says_on_what(corpus, tokens, plain_tokens):
    (weights, distribution), (baseline, _) = corpus
    figures: list[Any] = [
        viz.weights_difference_figure(weights, baseline),
        viz.token_weights_figure(tokens, 0, baseline=plain_tokens),
        viz.token_weights_difference_figure(tokens, plain_tokens, 0),
        viz.edge_figure(tokens, "v", 0, 1, baseline=plain_tokens),
        viz.edge_distribution_figure(distribution, weights, "v", 0, 1, baseline=baseline),
    ]
    for figure in figures:
        text = subtitle(figure)
        assert "mudd &lt;b&gt; (abcdef01, float32) and plain (abcdef01, float32)" in text
        assert "2 tokens in 1 sequence" in text
        assert "<b>" not in figure.to_json().replace("\\u003c", "<")
