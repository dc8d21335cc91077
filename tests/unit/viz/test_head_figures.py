"""Figures of heads: sink rules, scores, entropy, one pattern, and the difference of two models."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mudd_interp import viz
from mudd_interp.analysis import (
    HeadActivityAnalysis,
    SinkSensitivityAnalysis,
    head_inputs,
    head_scores,
    sweep,
)
from mudd_interp.protocol import ModelInfo
from mudd_interp.viz import theme
from tests.parity.family import FAMILY, random_model, random_tokens
from tests.unit.viz.test_figures import pattern_of, subtitle

ANALYSES = [SinkSensitivityAnalysis([1, 2], 4), "head_entropy", HeadActivityAnalysis([1, 2])]


def results(family, name):
    model = random_model(FAMILY[family])
    model.info = ModelInfo(name=name, digest="abcdef0123456789")
    found = sweep(model, [random_tokens(model.config, 3, 9)], ANALYSES)
    return (*found, head_scores(model, length=5, repeats=3, n_sequences=2))


@pytest.fixture(scope="module")
def mudd():
    return results("MUDDFormer", "mudd <b>1</b>")


@pytest.fixture(scope="module")
def plain():
    return results("Transformer++", "plain")


def with_options(result, **options):
    provenance = result.provenance
    changed = replace(provenance, options={**provenance.options, **options})
    return replace(result, provenance=changed)


def test_sensitivity_is_two_curves_for_each_model(mudd, plain):
    figure: Any = viz.sink_sensitivity_figure(mudd[0], plain[0])
    assert len(figure.data) == 4
    curves = iter(figure.data)
    for result in (mudd[0], plain[0]):
        frame = result.mean_frame
        for is_sink in (True, False):
            curve, rows = next(curves), frame[frame["sink_tokens"] == is_sink]
            assert curve.x.tolist() == [0, 1, 2, 3, 4]
            assert curve.y.tolist() == rows["active"].tolist()
    assert [curve.line.dash for curve in figure.data] == ["solid", "dot", "dash", "dot"]
    colours = [curve.line.color for curve in figure.data]
    assert colours == [theme.MUDD.colour] * 2 + [theme.BASELINE.colour] * 2
    low, high = figure.layout.yaxis.range
    assert low < min(curve.y.min() for curve in figure.data)
    assert high > 1
    assert figure.layout.shapes[0].x0 == figure.layout.shapes[0].x1 == 2
    assert "sink tokens: ids 1, 2" in subtitle(figure)


def test_the_papers_rule_is_marked_only_where_it_was_tried(mudd):
    few = replace(mudd[0], active_count=mudd[0].active_count[:, :2].copy())
    figure: Any = viz.sink_sensitivity_figure(few)
    assert not figure.layout.shapes
    assert len(figure.data) == 2


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ((None, None), "(ids 1, 2)"),
        ((["<bos>", "\n"], ["<bos>", "\n"]), "(“&lt;bos&gt;” “⏎”)"),
        (
            (["<bos>", "\n"], None),
            "(mudd &lt;b&gt;1&lt;/b&gt;: “&lt;bos&gt;” “⏎”; plain: ids 1, 2)",
        ),
    ],
)
def test_sinks_are_given_by_their_texts_and_for_each_model_where_they_differ(
    mudd, plain, texts, words
):
    ours, theirs = (
        with_options(each[2], sink_texts=text)
        for each, text in zip((mudd, plain), texts, strict=True)
    )
    for draw in (
        viz.head_activity_figure,
        viz.head_heatmap_figure,
        viz.activity_difference_figure,
    ):
        assert words in subtitle(draw(ours, theirs)).replace("<br>", " ")


def test_many_sinks_are_counted_and_none_is_said(mudd):
    many = with_options(mudd[2], sink_token_ids=list(range(7)))
    assert "a sink token (7 tokens)" in subtitle(viz.head_activity_figure(many))
    none = with_options(mudd[2], sink_token_ids=[])
    assert "a sink token (none)" in subtitle(viz.head_activity_figure(none))


@pytest.mark.parametrize("by", ["previous_token", "induction", "entropy"])
def test_scores_are_maps_on_one_scale_and_sorted_curves(mudd, plain, by):
    pair = [each[1] if by == "entropy" else each[3] for each in (mudd, plain)]
    figure: Any = viz.head_scores_figure(*pair, by=by)
    maps, ranks, curves = figure.data[0:4:2], figure.data[1:4:2], figure.data[4:]
    highest = 0.0
    for drawn, rank, curve, result in zip(maps, ranks, curves, pair, strict=True):
        values = result.frame[by].to_numpy()
        assert np.asarray(drawn.z).ravel().tolist() == values.tolist()
        assert curve.y.tolist() == sorted(values, reverse=True)
        where = zip(rank.y, rank.x, strict=True)
        assert [drawn.z[layer, head] for layer, head in where] == curve.y[:5].tolist()
        assert rank.text[0] == "<b>1</b>"
        layer, head = curve.customdata[0]
        assert drawn.z[layer, head] == values.max()
        highest = max(highest, values.max())
    scale = figure.layout.coloraxis
    assert (scale.cmin, scale.cmax) == (0, highest if by == "entropy" else 1)
    assert [curve.line.dash for curve in curves] == ["solid", "dash"]


def test_a_score_that_a_result_does_not_have_is_refused(mudd):
    with pytest.raises(ValueError, match="a HeadEntropy has no 'induction', only entropy"):
        viz.head_scores_figure(mudd[1])
    with pytest.raises(ValueError, match="a HeadScores has no 'entropy', only previous_token"):
        viz.head_scores_figure(mudd[3], by="entropy")


def test_a_pattern_is_one_large_map(mudd):
    pattern = pattern_of(heads=1, positions=6)[0]
    tokens = ["<b>", "a", "a", "\n", " ", "b"]
    figure: Any = viz.pattern_figure(pattern, tokens, layer=3, head=7, model="m")
    (trace,) = figure.data
    expected = np.where(np.tri(6, dtype=bool), pattern.numpy(), np.nan)
    np.testing.assert_array_equal(trace.z, expected)
    assert (trace.zmin, trace.zmax) == (0, 1)
    assert figure.layout.yaxis.autorange == "reversed"
    # Equal tokens stay apart: the axis is of positions.
    for axis in (figure.layout.xaxis, figure.layout.yaxis):
        assert axis.tickvals == (0, 1, 2, 3, 4, 5)
        assert axis.ticktext == ("&lt;b&gt;", "a", "a", "⏎", "·", "b")
    assert trace.text[5][0] == "head 7<br>query 5 b<br>key 0 &lt;b&gt;"
    assert figure.layout.title.text == "Attention of layer 3, head 7"


def test_long_patterns_have_few_labels_and_are_pooled():
    figure: Any = viz.pattern_figure(
        pattern_of(1, 1000)[0], [f"{i}" for i in range(1000)], layer=0, head=0, model="m"
    )
    assert np.asarray(figure.data[0].z).shape == (500, 500)
    labels = figure.layout.xaxis.ticktext
    assert 30 < len(labels) < 70
    assert [int(label) for label in labels] == [2 * at for at in figure.layout.xaxis.tickvals]
    assert "the largest of 2 × 2 weights" in subtitle(figure)


def test_a_pattern_needs_one_text_for_each_position():
    with pytest.raises(ValueError, match="each of 4 positions and a square pattern, got 1 texts"):
        viz.pattern_figure(torch.eye(4), ["a"], layer=0, head=0, model="m")


def test_a_difference_is_bars_around_zero_in_the_colour_of_the_more_active(mudd, plain):
    figure: Any = viz.activity_difference_figure(mudd[2], plain[2])
    (bars,) = figure.data
    expected = mudd[2].layer_frame["active"] - plain[2].layer_frame["active"]
    assert bars.y.tolist() == expected.tolist()
    ours, theirs = theme.MUDD.colour, theme.BASELINE.colour
    assert list(bars.marker.color) == [ours if each >= 0 else theirs for each in expected]
    low, high = figure.layout.yaxis.range
    assert -low == high > expected.abs().max()
    assert figure.layout.title.text == "Head activity by layer: mudd &lt;b&gt;1&lt;/b&gt; − plain"


def test_a_difference_of_nothing_is_drawn(mudd):
    figure: Any = viz.activity_difference_figure(mudd[2], mudd[2])
    assert figure.layout.yaxis.range == (-1, 1)


def test_every_figure_says_on_what_and_escapes_it(mudd, plain):
    figures: list[Any] = [
        viz.sink_sensitivity_figure(mudd[0], plain[0]),
        viz.head_scores_figure(mudd[1], plain[1], by="entropy"),
        viz.activity_difference_figure(mudd[2], plain[2]),
        viz.head_scores_figure(mudd[3], plain[3]),
        viz.pattern_figure(torch.eye(1), ["a"], layer=0, head=0, model="mudd <b>1</b>"),
    ]
    for figure in figures:
        assert "mudd <b>" not in figure.to_json().replace("\\u003c", "<")
    for figure in figures[:3]:
        assert "27 tokens in 3 sequences" in subtitle(figure).replace("<br>", " ")
    assert "5 random tokens, 3 times over (seed 0)" in subtitle(figures[3]).replace("<br>", " ")


def test_lines_that_do_not_fit_are_broken_and_make_room(mudd):
    short: Any = viz.head_activity_figure(mudd[2])
    named = replace(mudd[2], provenance=replace(mudd[2].provenance, model="long name " * 20))
    long: Any = viz.head_activity_figure(named)
    lines = subtitle(long).split("<br>")
    assert max(map(len, lines)) <= 155
    extra = len(lines) - len(subtitle(short).split("<br>"))
    assert extra >= 1
    assert long.layout.height - short.layout.height == 15 * extra
    assert long.layout.margin.t - short.layout.margin.t == 15 * extra


def test_the_curve_against_depth_goes_through_the_highest_head_of_each_layer(mudd, plain):
    figure: Any = viz.head_depth_figure(mudd[3], plain[3])
    for curve, points, result in zip(
        figure.data[::2], figure.data[1::2], (mudd[3], plain[3]), strict=True
    ):
        frame = result.frame
        assert list(curve.y) == frame.groupby("layer")["induction"].max().tolist()
        assert sorted(points.y) == sorted(frame["induction"])
        layer, head = frame.loc[frame["induction"].idxmax(), ["layer", "head"]].astype(int)
        assert f"head {layer}.{head}" in curve.text


def test_activity_against_depth_is_of_all_heads_and_ticks_reach_the_deeper_model(mudd, plain):
    shallow = replace(mudd[2], active_count=mudd[2].active_count[:2])
    figure: Any = viz.head_depth_figure(shallow, plain[2], by="activity")
    assert sorted(figure.data[3].y) == sorted(plain[2].frame["active"])
    assert max(figure.layout.xaxis.tickvals) == len(plain[2].active_count) - 1


def test_what_writes_a_heads_inputs_is_drawn_largest_first_and_sums_to_one():
    model = random_model(FAMILY["MUDDPythia"])
    found = head_inputs(model, [random_tokens(model.config, 3, 9)], layer=2, head=1)
    figure: Any = viz.head_inputs_figure(found, shown=4)
    for place, stream in enumerate("qkv"):
        direct, chain, mark = figure.data[3 * place : 3 * place + 3]
        totals = found.frame.loc[found.frame["stream"] == stream, "total"].to_numpy()
        assert sum(direct.x) + sum(chain.x) == pytest.approx(1)
        sizes = np.abs(mark.x[:-1])
        assert (np.diff(sizes) <= 0).all()
        assert sizes[0] == np.abs(totals).max()
        assert direct.hovertext[-1] == "all others"
