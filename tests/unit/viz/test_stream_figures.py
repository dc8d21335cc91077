"""Cosines, matrices and norms as figures: the numbers, the scales, and differences around 0."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mudd_interp import viz
from mudd_interp.analysis import (
    norms_difference,
    similarity_difference,
    similarity_matrix_difference,
    sweep,
)
from mudd_interp.viz import theme
from mudd_interp.viz.curves import spread
from tests.parity.family import FAMILY, random_model, random_tokens

ANALYSES = ["layer_similarity", "similarity_matrix", "stream_norms"]


def results(family):
    model = random_model(FAMILY[family])
    return sweep(model, [random_tokens(model.config, 3, 9)], ANALYSES)


@pytest.fixture(scope="module")
def mudd():
    return results("MUDDFormer")


@pytest.fixture(scope="module")
def plain():
    return results("Transformer++")


def subtitle(figure):
    return figure.layout.title.subtitle.text


def assert_curves_show(curves, frame, column):
    assert len(curves) == 4
    for stream, curve in zip("qkvr", curves, strict=True):
        rows = frame[frame["stream"] == stream]
        assert curve.name.split(" · ")[0].endswith(stream.upper())
        assert curve.x.tolist() == rows["layer"].tolist()
        assert curve.y.tolist() == rows[column].tolist()


def test_two_similarity_figures_share_an_axis_and_the_baseline_keeps_its_style(mudd, plain):
    limits = viz.similarity_limits([mudd[0], plain[0]])
    left: Any = viz.similarity_figure(mudd[0], limits=limits)
    right: Any = viz.similarity_figure(plain[0], limits=limits, as_baseline=True)
    assert left.layout.yaxis.range == right.layout.yaxis.range == limits
    both = np.concatenate([each[0].frame["cosine"] for each in (mudd, plain)])
    assert limits[0] < both.min()
    assert limits[1] > 1
    (curve,) = right.data
    assert (curve.line.color, curve.line.dash) == ("#4C6A92", "dash")
    assert curve.name == "random weights (baseline)"
    assert right.layout.annotations == ()


def test_a_similarity_difference_is_around_0(mudd, plain):
    figure: Any = viz.similarity_difference_figure(mudd[0], plain[0])
    frame = similarity_difference(mudd[0], plain[0])
    assert_curves_show(figure.data, frame, "cosine")
    low, high = figure.layout.yaxis.range
    assert low == -high
    assert high == pytest.approx(1.1 * frame["cosine"].abs().max())
    assert figure.layout.yaxis.zeroline
    assert figure.layout.title.text.endswith(
        f": {mudd[0].provenance.model} − {plain[0].provenance.model}"
    )


def test_a_norms_difference_is_around_0(mudd, plain):
    figure: Any = viz.norms_difference_figure(mudd[2], plain[2])
    assert_curves_show(figure.data, norms_difference(mudd[2], plain[2]), "mean")
    low, high = figure.layout.yaxis.range
    assert low == -high < 0
    assert figure.layout.title.text.endswith(
        f": {mudd[0].provenance.model} − {plain[0].provenance.model}"
    )


def test_the_difference_of_a_model_from_itself_has_an_axis_too(mudd):
    figure: Any = viz.similarity_difference_figure(mudd[0], mudd[0])
    assert figure.layout.yaxis.range == (-1, 1)
    matrix: Any = viz.similarity_matrix_difference_figure(mudd[1], mudd[1])
    assert matrix.layout.coloraxis.cmax == 1


def test_matrices_are_a_square_for_each_stream_and_the_baseline_on_one_scale(mudd, plain):
    figure: Any = viz.similarity_matrix_figure(mudd[1], plain[1])
    assert [trace.name for trace in figure.data] == [
        "Q · query",
        "K · key",
        "V · value",
        "R · residual",
        "random weights (baseline)",
    ]
    titles = [annotation.text for annotation in figure.layout.annotations]
    assert titles == [trace.name for trace in figure.data]
    grids = [*mudd[1].cosine_sum, *plain[1].cosine_sum]
    for number, (trace, sums) in enumerate(zip(figure.data, grids, strict=True), start=1):
        np.testing.assert_allclose(trace.z, sums / 27, rtol=1e-15)
        assert trace.coloraxis == "coloraxis"
        name = "" if number == 1 else number
        assert figure.layout[f"yaxis{name}"].autorange is None  # upwards
        assert figure.layout[f"yaxis{name}"].scaleanchor == f"x{name}"  # square cells


@pytest.mark.parametrize(
    ("sign", "ends", "scale", "words"),
    [(1, (0, 1), "Viridis", "0..1, as no value is negative"), (-1, (-1, 1), "RdBu_r", "−1..1")],
)
def test_the_scale_of_cosines_is_signed_where_one_is_negative(mudd, sign, ends, scale, words):
    sums = np.abs(mudd[1].cosine_sum)
    sums[2, 0, 1] *= sign
    figure: Any = viz.similarity_matrix_figure(replace(mudd[1], cosine_sum=sums))
    axis = figure.layout.coloraxis
    assert (axis.cmin, axis.cmax) == ends
    expected: Any = viz.similarity_matrix_figure(mudd[1]).update_coloraxes(colorscale=scale)
    assert axis.colorscale == expected.layout.coloraxis.colorscale
    assert subtitle(figure).split("<br>")[0].endswith(f"colours {words}")


def test_a_matrix_difference_has_a_symmetric_scale_of_its_own(mudd, plain):
    figure: Any = viz.similarity_matrix_difference_figure(mudd[1], plain[1])
    cosines = similarity_matrix_difference(mudd[1], plain[1])["cosine"].to_numpy()
    shown = np.stack([trace.z for trace in figure.data])
    np.testing.assert_array_equal(shown, cosines.reshape(4, 3, 3))
    axis = figure.layout.coloraxis
    assert axis.cmax == -axis.cmin == theme.robust_limit(cosines)
    assert axis.colorbar.title.text.startswith("difference")
    assert f"±{axis.cmax:.3g} (98% of non-zero values)" in subtitle(figure)


def test_streams_stand_in_the_same_places_with_and_without_the_baseline(mudd, plain):
    figures: list[Any] = [
        viz.similarity_matrix_figure(mudd[1], plain[1]),
        viz.similarity_matrix_figure(mudd[1]),
        viz.similarity_matrix_difference_figure(mudd[1], plain[1]),
    ]
    for name in ("xaxis", "yaxis", "xaxis3", "yaxis3", "xaxis4", "yaxis4"):
        assert len({figure.layout[name].domain for figure in figures}) == 1


def test_norms_are_curves_in_bands_of_one_std(mudd, plain):
    figure: Any = viz.norms_figure(mudd[2], plain[2])
    bands, curves = figure.data[:5], figure.data[5:]
    assert_curves_show(curves[:4], mudd[2].frame, "mean")
    assert curves[4].y.tolist() == plain[2].frame["mean"].tolist()
    assert (curves[4].line.color, curves[4].line.dash) == ("#4C6A92", "dash")
    for curve, band in zip(curves, bands, strict=True):
        assert (band.fillcolor, band.legendgroup) == (curve.line.color, curve.legendgroup)
        n = len(curve.x)
        np.testing.assert_array_equal(band.x, [*curve.x, *curve.x[::-1]])
        assert (band.y[:n] <= curve.y).all()
        assert (band.y[n:] >= curve.y[::-1]).all()
    frame = plain[2].frame
    np.testing.assert_allclose(bands[4].y[:4], frame["mean"] - frame["std"], rtol=1e-12)
    np.testing.assert_allclose(bands[4].y[4:][::-1], frame["mean"] + frame["std"], rtol=1e-12)


def test_norms_of_one_order_are_drawn_from_0(plain):
    figure: Any = viz.norms_figure(plain[2])
    axis = figure.layout.yaxis
    assert axis.type is None
    assert axis.range[0] == 0
    assert axis.range[1] > (plain[2].frame["mean"] + plain[2].frame["std"]).max()
    assert axis.title.text == "mean L2 norm, units of the residual stream"


def test_norms_that_lie_far_apart_get_a_logarithmic_axis_and_bands_above_its_end(plain):
    mean, std = np.array([[1.0, 3.0, 10.0, 200.0]]), np.array([[0.1, 5.0, 1.0, 60.0]])
    wide = replace(plain[2], mean=mean, m2=27 * std**2)
    figure: Any = viz.norms_figure(wide)
    low, high = viz.norms_limits([wide])
    axis = figure.layout.yaxis
    assert (axis.type, "(log scale)" in axis.title.text) == ("log", True)
    np.testing.assert_allclose(axis.range, np.log10([low, high]))
    assert 0 < low < 1
    assert high > 260
    np.testing.assert_allclose(figure.data[0].y[:4], [0.9, low, 9, 140])
    assert {1, 2, 5, 10, 200} <= set(axis.tickvals)
    (letter,) = figure.layout.annotations
    assert letter.y == pytest.approx(np.log10(200))


def test_two_norms_figures_share_an_axis(mudd, plain):
    limits = viz.norms_limits([mudd[2], plain[2]])
    figures: list[Any] = [
        viz.norms_figure(mudd[2], limits=limits),
        viz.norms_figure(plain[2], limits=limits, as_baseline=True),
    ]
    assert figures[0].layout.yaxis == figures[1].layout.yaxis
    assert figures[1].data[1].line.dash == "dash"


def test_other_depths_are_refused_by_every_difference(mudd):
    shorter = [
        replace(mudd[0], cosine_sum=mudd[0].cosine_sum[:, 1:]),
        replace(mudd[1], cosine_sum=mudd[1].cosine_sum[:, 1:, 1:]),
        replace(mudd[2], mean=mudd[2].mean[:, 1:], m2=mudd[2].m2[:, 1:]),
    ]
    figures = [
        viz.similarity_difference_figure,
        viz.similarity_matrix_difference_figure,
        viz.norms_difference_figure,
    ]
    for draw, ours, theirs in zip(figures, mudd, shorter, strict=True):
        with pytest.raises(ValueError, match="the model has 3 layers and the baseline 2"):
            draw(ours, theirs)


def test_letters_are_spread_around_their_values_and_stay_inside():
    assert spread([3.0, 1.0], 0.5, 4.0) == [3.0, 1.0]
    assert spread([1.0, 1.0], 0.5, 4.0) == [1.25, 0.75]
    assert spread([1.0, 1.0], 0.5, 1.0) == [0.5, 0.0]
