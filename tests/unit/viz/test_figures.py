"""Figures show the numbers of the frame, in the colours and directions that were agreed."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from plotly import graph_objects as go

from mudd_interp import viz
from mudd_interp.analysis import HeadActivityAnalysis, sweep
from mudd_interp.protocol import ModelInfo
from mudd_interp.viz import theme
from mudd_interp.viz.attention import pooled
from tests.parity.family import FAMILY, random_model, random_tokens

ANALYSES = ["layer_similarity", "dense_weights", HeadActivityAnalysis([1, 2])]


def results(family, name):
    model = random_model(FAMILY[family])
    model.info = ModelInfo(name=name, digest="abcdef0123456789")
    return sweep(model, [random_tokens(model.config, 3, 9)], ANALYSES)


@pytest.fixture(scope="module")
def mudd():
    return results("MUDDFormer", "mudd <b>1</b>")


@pytest.fixture(scope="module")
def plain():
    return results("Transformer++", "plain")


def subtitle(figure):
    return figure.layout.title.subtitle.text


def test_similarity_is_a_curve_for_each_stream_and_the_baseline(mudd, plain):
    figure: Any = viz.similarity_figure(mudd[0], plain[0])
    frame, curves = mudd[0].frame, figure.data
    assert len(curves) == 5
    for stream, curve in zip("qkvr", curves, strict=False):
        rows = frame[frame["stream"] == stream]
        assert curve.x.tolist() == rows["layer"].tolist()
        assert curve.y.tolist() == rows["cosine"].tolist()
        assert f": {stream.upper()} · " in curve.name
        assert curve.line.dash == "solid"
    assert curves[4].y.tolist() == plain[0].frame["cosine"].tolist()
    assert (curves[4].line.color, curves[4].line.dash) == ("#4C6A92", "dash")
    assert len({curve.marker.symbol for curve in curves}) == 5
    letters = sorted(annotation.text for annotation in figure.layout.annotations)
    assert letters == ["<b>K</b>", "<b>Q</b>", "<b>R</b>", "<b>V</b>"]


def test_letters_at_the_ends_of_curves_keep_apart_and_inside(mudd):
    figure: Any = viz.similarity_figure(mudd[0])
    low, high = figure.layout.yaxis.range
    heights = sorted(annotation.y for annotation in figure.layout.annotations)
    assert len(heights) == 4
    assert max(heights) < high
    assert np.diff(heights).min() >= 0.054 * (high - low)


@pytest.mark.parametrize("rectified", [True, False])
def test_weights_are_eight_triangles_on_one_symmetric_scale(mudd, rectified):
    figure: Any = viz.weights_figure(mudd[1], rectified)
    assert len(figure.data) == 8
    frame = mudd[1].frame
    for trace, (statistic, stream) in zip(
        figure.data, [(t, s) for t in ("mean", "std") for s in "qkvr"], strict=True
    ):
        rows = frame[frame["stream"] == stream]
        expected = rows[statistic] * (rows["source_norm"] if rectified else 1)
        grid = np.asarray(trace.z)
        assert grid[rows["layer"], rows["source"]].tolist() == expected.tolist()
        assert np.isfinite(grid).sum() == len(rows)
        assert trace.coloraxis == "coloraxis"
    axis = figure.layout.coloraxis
    assert axis.cmin == -axis.cmax < 0
    assert axis.cmax == viz.weights_limit([mudd[1]], rectified)
    assert f"±{axis.cmax:.3g} (98% of non-zero values)" in subtitle(figure)
    assert all(figure.layout[f"yaxis{i}"].autorange is None for i in ("", *range(2, 9)))


def test_a_plain_transformer_is_one_diagonal(plain):
    figure: Any = viz.weights_figure(plain[1], rectified=False, statistics=["mean"])
    (trace,) = figure.data
    expected = np.where(np.tri(3, 4, 1, dtype=bool), np.eye(3, 4, 1), np.nan)
    np.testing.assert_array_equal(trace.z, expected)


def test_two_models_can_share_a_scale(mudd, plain):
    limit = viz.weights_limit([mudd[1], plain[1]])
    figures: list[Any] = [viz.weights_figure(each[1], limit=limit) for each in (mudd, plain)]
    assert [figure.layout.coloraxis.cmax for figure in figures] == [limit, limit]
    assert all("a common scale" in subtitle(figure) for figure in figures)


def test_the_robust_limit_leaves_zeros_and_nan_out():
    values = np.array([np.nan, 0.0, 0.0, *range(-100, 0)])
    assert theme.robust_limit(values, 0.5) == 50.5
    assert theme.robust_limit(np.zeros(3)) == 1.0


def test_activity_is_the_mean_over_heads_with_the_heads_beside_it(mudd, plain):
    figure: Any = viz.head_activity_figure(mudd[2], plain[2])
    heads, mean, _, baseline = figure.data
    assert heads.y.tolist() == mudd[2].frame["active"].tolist()
    expected = mudd[2].frame.groupby("layer")["active"].mean()
    np.testing.assert_allclose(mean.y, expected, rtol=1e-15)
    np.testing.assert_allclose(baseline.y, plain[2].layer_frame["active"], rtol=1e-15)
    assert (mean.line.color, mean.line.dash) == ("#C8641B", "solid")
    assert (baseline.line.color, baseline.line.dash) == ("#4C6A92", "dash")
    assert "first 2 positions" in subtitle(figure)
    assert "ids 1, 2" in subtitle(figure)


def test_head_heatmaps_share_a_scale_from_0_to_1(mudd, plain):
    figure: Any = viz.head_heatmap_figure(mudd[2], plain[2])
    for trace, each in zip(figure.data, (mudd, plain), strict=True):
        assert np.asarray(trace.z).ravel().tolist() == each[2].frame["active"].tolist()
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (0, 1)


def test_every_figure_says_on_what_and_escapes_it(mudd, plain):
    figures: list[Any] = [
        viz.similarity_figure(mudd[0], plain[0]),
        viz.weights_figure(mudd[1]),
        viz.head_activity_figure(mudd[2], plain[2]),
        viz.head_heatmap_figure(mudd[2], plain[2]),
    ]
    for figure in figures:
        assert "token ids, 27 tokens in 3 sequences" in subtitle(figure)
        assert "mudd &lt;b&gt;1&lt;/b&gt; (abcdef01, float64)" in subtitle(figure)
        assert figure.layout.title.text
        assert (figure.layout.width, figure.layout.height) == (1000, 600)
        assert "<b>1" not in figure.to_json().replace("\\u003c", "<")


def test_results_on_other_tokens_are_told_apart(mudd):
    model = random_model(FAMILY["Transformer++"])
    other = sweep(model, [random_tokens(model.config, 1, 5)], ANALYSES)
    text = subtitle(viz.similarity_figure(mudd[0], other[0]))
    assert "27 tokens in 3 sequences; random weights (float64) on token ids, 5 tokens in 1" in text


def test_a_model_of_one_block_has_no_similarity_to_draw(mudd):
    empty = replace(mudd[0], cosine_sum=mudd[0].cosine_sum[:, :0])
    with pytest.raises(ValueError, match="at least two blocks"):
        viz.similarity_figure(empty)


def test_html_needs_no_network_and_is_always_the_same(mudd):
    figure: Any = viz.similarity_figure(mudd[0])
    page = viz.figure_html(figure)
    assert page == viz.figure_html(viz.similarity_figure(mudd[0]))
    assert '<script src="' not in page
    assert "cdn.plot" not in page.split("plotly.js v")[0]


def test_a_missing_browser_is_named(monkeypatch):
    monkeypatch.setenv("BROWSER_PATH", "/no/such/browser")
    with pytest.raises(ValueError, match=r"BROWSER_PATH is '/no/such/browser'.*install Chromium"):
        viz.figure_images([(go.Figure(), "png")])


def test_tokens_are_shown_escaped():
    assert theme.visible(" a\n") == "·a⏎"
    assert theme.visible("<b>&") == "&lt;b&gt;&amp;"
    assert theme.visible("$x$") == "&#36;x&#36;"
    assert theme.visible("\t\x00") == "⇥\\x00"
    assert theme.visible("a" * 20) == "a" * 11 + "…"


def pattern_of(heads, positions):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(heads, positions, positions, generator=generator)
    future = torch.ones(positions, positions, dtype=torch.bool).triu(1)
    return scores.masked_fill(future, -torch.inf).softmax(-1)


def draw(pattern, **options) -> Any:
    tokens = [f"<{i}>" for i in range(pattern.shape[-1])]
    return viz.attention_figure(pattern, tokens, layer=1, model="m", **options)


def test_attention_maps_stand_in_a_grid_of_one_trace():
    pattern = pattern_of(heads=5, positions=6)
    figure: Any = draw(pattern, columns=3)
    (trace,) = figure.data
    canvas = np.asarray(trace.z)
    assert canvas.dtype == np.float32
    # 6 cells per map, 1 of gutter between columns, 1 above each row of maps.
    assert canvas.shape == (2 * (6 + 1), 3 * (6 + 1) - 1)
    for head, values in enumerate(pattern.numpy()):
        row, column = divmod(head, 3)
        found = canvas[1 + 7 * row : 7 + 7 * row, 7 * column : 7 * column + 6]
        np.testing.assert_array_equal(found, np.where(np.tri(6, dtype=bool), values, np.nan))
    assert np.isfinite(canvas).sum() == 5 * 21
    assert (trace.zmin, trace.zmax) == (0, 1)
    assert figure.layout.yaxis.autorange == "reversed"
    assert [a.text for a in figure.layout.annotations] == [f"head {i}" for i in range(5)]
    assert trace.text[1 + 7 + 2][7 + 1] == "head 4<br>query 2 &lt;2&gt;<br>key 1 &lt;1&gt;"
    assert figure.layout.xaxis.ticktext[0] == "&lt;0&gt;"


def test_nothing_is_blank_where_positions_see_later_ones():
    pattern = torch.rand(2, 5, 5).softmax(-1)
    canvas = np.asarray(draw(pattern, columns=2, causal=False).data[0].z)
    np.testing.assert_array_equal(canvas[1:, :5], pattern[0])
    figure: Any = viz.pattern_figure(
        pattern[1], ["a"] * 5, layer=0, head=1, model="m", causal=False
    )
    np.testing.assert_array_equal(figure.data[0].z, pattern[1])


def test_thirty_two_heads_are_four_rows_of_eight():
    canvas = np.asarray(draw(pattern_of(32, 10)).data[0].z)
    assert canvas.shape == (4 * (10 + 2), 8 * (10 + 1) - 1)


def test_long_sequences_are_pooled_by_the_largest_weight():
    maps = np.arange(25, dtype=np.float32).reshape(1, 5, 5)
    expected = [[[6, 8, 9], [16, 18, 19], [21, 23, 24]]]
    assert pooled(maps, 2).tolist() == expected
    figure: Any = draw(pattern_of(1, 600))
    assert np.nanmax(figure.data[0].z) == 1
    assert np.asarray(figure.data[0].z).shape[1] == 300
    assert "the largest of 2 × 2 weights" in subtitle(figure)


def test_half_precision_patterns_can_be_drawn():
    assert np.nanmax(draw(pattern_of(2, 4).to(torch.bfloat16)).data[0].z) == 1


def test_one_text_for_each_position():
    with pytest.raises(ValueError, match="each of 4 positions and a square pattern, got 1 texts"):
        viz.attention_figure(pattern_of(2, 4), ["a"], layer=0, model="m")
