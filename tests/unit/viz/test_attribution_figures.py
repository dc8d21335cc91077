"""Figures of contributions: what they draw is what the analyses found."""

from typing import Any

import numpy as np
import pytest

from mudd_interp import viz
from mudd_interp.analysis import (
    direct_logit_attribution,
    logit_lens,
    path_coefficients,
    routes,
    stream_decomposition,
)
from mudd_interp.viz.lens import SHOWN
from tests.parity.family import FAMILY, random_model, random_tokens
from tests.unit.viz.test_stream_figures import subtitle

MODEL = random_model(FAMILY["MUDDFormer"])
PLAIN = random_model(FAMILY["Transformer++"])
TOKENS = random_tokens(MODEL.config, 1, 20)


def test_the_bars_of_a_logit_sum_to_it():
    found = [direct_logit_attribution(model, TOKENS, answer=5) for model in (MODEL, PLAIN)]
    figure: Any = viz.logit_attribution_figure(*found)
    bars, maps = figure.data[:2], figure.data[2:]
    for each, bar, heads in zip(found, bars, maps, strict=True):
        assert sum(bar.x) == pytest.approx(each.logit)
        assert f"{each.logit:.3f}" in subtitle(figure)
        np.testing.assert_array_equal(heads.z, each.heads)
    assert figure.layout.yaxis.ticktext[:2] == ("embed", "attn 0")


def test_two_logits_of_different_tokens_are_refused():
    found = [direct_logit_attribution(m, TOKENS, answer=a) for m, a in ((MODEL, 5), (PLAIN, 6))]
    with pytest.raises(ValueError, match="answer is '5' for one model and '6' for the other"):
        viz.logit_attribution_figure(*found)


def test_the_bars_of_a_stream_sum_to_one():
    figure: Any = viz.stream_decomposition_figure(stream_decomposition(MODEL, TOKENS, 2, "k"), 4)
    assert sum(figure.data[0].x) == pytest.approx(1)
    assert len(figure.data[0].x) == 5


def test_triangles_of_path_coefficients_show_the_frame_and_name_their_columns():
    found = path_coefficients(MODEL, TOKENS)
    figure: Any = viz.path_coefficients_figure(found, 4)
    for panel, coefficients in zip(figure.data, found.coefficient, strict=True):
        np.testing.assert_array_equal(panel.z, coefficients[..., 4])
    assert {axis.title.text for axis in figure.select_xaxes()} == {
        None,
        "written by: 0 embedding, j block j − 1",
    }


def test_routes_are_drawn_by_rank_above_the_baselines_only_one():
    found = routes(MODEL, TOKENS, source=1, k=3)
    figure: Any = viz.routes_figure(found)
    *drawn, plain = figure.data
    assert [tuple(each.x[:-1]) for each in drawn] == [each.sources for each in found.routes]
    assert [each.y[0] for each in drawn] == list(range(len(drawn), 0, -1))
    assert (tuple(plain.x), plain.line.dash) == ((1, 2, 3, 4), "dash")
    assert f"total coefficient {found.total:+.3g}" in subtitle(figure)


def test_the_lens_shows_the_last_positions_and_frames_the_first_lead():
    found = logit_lens(MODEL, TOKENS)
    figure: Any = viz.logit_lens_figure(found, 15)
    (drawn, _), frames = figure.data, figure.layout.shapes
    assert drawn.x.tolist() == list(range(16 - SHOWN, 16))
    rows = [*found.rows("x"), len(found.kinds) - 1]
    np.testing.assert_array_equal(drawn.z, found.top_probability[rows, 16 - SHOWN : 16])
    assert len(frames) == SHOWN
    for frame in frames:
        depth, position = int(frame.y0 + 0.5), int(frame.x0 + 0.5)
        ranks = found.answer_rank[rows, position]
        assert ranks[depth] == 1
        assert (ranks[:depth] > 1).all()
