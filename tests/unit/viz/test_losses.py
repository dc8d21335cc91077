"""Figures of losses and predictions show the numbers of the frames, in the agreed colours."""

from typing import Any

import numpy as np
import pytest
import torch

from mudd_interp import viz
from mudd_interp.analysis import compare_losses, loss_difference, predictions
from mudd_interp.viz import theme
from tests.unit.analysis.fakes import Vocabulary, markov

WORDS = Vocabulary("a", " b", "\n", "<i>")
MUDD = markov(
    [[0.6, 0.2, 0.1, 0.1], [0.1, 0.6, 0.2, 0.1], [0.05, 0.05, 0.8, 0.1], [0.1, 0.2, 0.3, 0.4]],
    name="mudd <b>1</b>",
    tokenizer=WORDS,
)
PLAIN = markov([[0.4, 0.3, 0.2, 0.1]] * 4, name="plain", tokenizer=WORDS)


def pair(n):
    ids = torch.arange(n) * 7 % 5 % 4
    return predictions(MUDD, ids, k=3), predictions(PLAIN, ids, k=3)


def subtitle(figure):
    return figure.layout.title.subtitle.text


def cells(figure, axis):
    """What the traces on one colour axis show together, line after line."""
    traces = [trace for trace in figure.data if trace.coloraxis == axis]
    return np.concatenate([np.asarray(trace.z, dtype=float) for trace in traces], axis=1)


@pytest.mark.parametrize(
    ("n", "lines", "wide"), [(9, 1, 9), (32, 1, 32), (100, 4, 32), (128, 4, 32), (256, 4, 64)]
)
def test_strips_are_the_losses_line_by_line(n, lines, wide):
    result, baseline = pair(n)
    figure: Any = viz.loss_strip_figure(result, baseline)
    frame = loss_difference(result, baseline)
    losses, difference = cells(figure, "coloraxis"), cells(figure, "coloraxis2")
    np.testing.assert_array_equal(losses[0], frame["loss"])
    np.testing.assert_array_equal(losses[1], frame["baseline_loss"])
    np.testing.assert_array_equal(difference[2], frame["difference"])
    assert np.isnan(losses[2]).all()
    assert np.isnan(difference[:2]).all()
    axes = list(figure.select_xaxes())
    assert len(axes) == lines
    for line, axis in enumerate(axes):
        shown = range(line * wide, min(n, (line + 1) * wide))
        assert list(axis.range) == [line * wide - 0.5, (line + 1) * wide - 0.5]
        assert list(axis.tickvals) == list(shown)
        assert list(axis.ticktext) == [theme.visible(result.tokens[t]) for t in shown]


def test_both_models_share_a_scale_from_0_and_the_difference_has_its_own():
    result, baseline = pair(40)
    figure: Any = viz.loss_strip_figure(result, baseline)
    losses, difference = figure.layout.coloraxis, figure.layout.coloraxis2
    assert losses.cmin == 0
    assert losses.cmax == theme.robust_limit(np.concatenate([result.loss, baseline.loss]))
    assert difference.cmin == -difference.cmax
    assert difference.cmax == theme.robust_limit(result.loss - baseline.loss)
    assert difference.colorbar.title.text == "…&lt;b&gt;1&lt;/b&gt; − plain, nats"
    assert f"{losses.cmax:.3g} nats, of the difference at ±{difference.cmax:.3g}" in subtitle(
        figure
    )
    rows = list(figure.layout.yaxis.ticktext)
    assert rows == ["mudd &lt;b&gt;1&lt;/b&gt;", "plain", "…&lt;b&gt;1&lt;/b&gt; − plain"]
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]


def test_hovering_shows_both_losses():
    result, baseline = pair(9)
    figure: Any = viz.loss_strip_figure(result, baseline)
    for trace in figure.data:
        for row in trace.text:
            assert row[4] == (
                f"4 &lt;i&gt;<br>mudd &lt;b&gt;1&lt;/b&gt;: {result.loss[4]:.4f}"
                f"<br>plain: {baseline.loss[4]:.4f}"
                f"<br>…&lt;b&gt;1&lt;/b&gt; − plain: {result.loss[4] - baseline.loss[4]:+.4f}"
            )


def test_one_model_is_one_strip():
    result, _ = pair(9)
    figure: Any = viz.loss_strip_figure(result)
    (trace,) = figure.data
    np.testing.assert_array_equal(trace.z, result.loss[None])
    assert "difference" not in subtitle(figure)


def test_long_sequences_leave_the_labels_out():
    figure: Any = viz.loss_strip_figure(*pair(600))
    assert len(list(figure.select_xaxes())) == 10
    assert not any(axis.showticklabels for axis in figure.select_xaxes())
    assert "hover for the tokens" in subtitle(figure)
    assert figure.layout.height < 1200


def test_lines_are_the_losses_in_the_two_styles():
    result, baseline = pair(200)
    figure: Any = viz.loss_lines_figure(result, baseline)
    mudd, plain = figure.data
    np.testing.assert_array_equal(mudd.y, result.loss)
    np.testing.assert_array_equal(plain.y, baseline.loss)
    assert (mudd.line.color, mudd.line.dash) == ("#C8641B", "solid")
    assert (plain.line.color, plain.line.dash) == ("#4C6A92", "dash")
    assert list(figure.layout.xaxis.tickvals) == list(range(0, 200, 3))
    assert "one in 3 is named" in figure.layout.xaxis.title.text
    alone: Any = viz.loss_lines_figure(result)
    assert len(alone.data) == 1


def test_next_tokens_stand_side_by_side_on_one_scale():
    result, baseline = pair(9)
    figure: Any = viz.next_tokens_figure(result, 4, baseline)
    assert [tuple(axis.range) for axis in figure.select_xaxes()] == [(0, 1), (0, 1)]
    for bars, each, colour in zip(
        figure.data, (result, baseline), ("#C8641B", "#4C6A92"), strict=True
    ):
        frame = each.top_frame(4)
        assert list(bars.x) == frame["probability"].tolist()
        assert bars.marker.color == colour
        outlined = [width > 0 for width in bars.marker.line.width]
        assert outlined == [token == result.token_ids[5] for token in frame["token_id"]]
    assert list(figure.layout.yaxis.ticktext) == ["&lt;i&gt;", "⏎", "·b"]
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]


def test_the_heading_says_what_came_next_even_if_it_is_not_among_the_likeliest():
    result = predictions(MUDD, torch.tensor([1, 2, 3, 0]), k=3)
    figure: Any = viz.next_tokens_figure(result, 2)
    heading = figure.layout.annotations[0].text
    assert "rank 4, probability 0.100 for what came next: <b>a</b>" in heading
    assert f"entropy {result.next_entropy[2]:.2f} nats" in heading
    assert "mudd &lt;b&gt;1&lt;/b&gt;" in heading
    assert not any(figure.data[0].marker.line.width)
    assert "after “·b⏎&lt;i&gt;”" in subtitle(figure)
    last: Any = viz.next_tokens_figure(result, 3)
    assert "the sequence ends here" in last.layout.annotations[0].text


def test_the_histogram_is_that_of_the_comparison_with_the_mean_and_its_interval():
    batches = [torch.randint(4, (8, 20), generator=torch.Generator().manual_seed(0))]
    comparison = compare_losses(MUDD, PLAIN, batches)
    figure: Any = viz.loss_comparison_figure(comparison)
    counts = sum(sum(trace.y) for trace in figure.data)
    assert counts == comparison.summary.tokens == 152
    better, worse = figure.data
    assert max(better.x) < 0 < min(worse.x)
    assert sum(better.y) == 152 * comparison.summary.model_better
    lines = {shape.x0 for shape in figure.layout.shapes if shape.type == "line"}
    assert lines == {0, comparison.summary.difference}
    (band,) = (shape for shape in figure.layout.shapes if shape.type == "rect")
    assert (band.x0, band.x1) == comparison.summary.interval
    text = figure.layout.annotations[0].text
    assert f"mean {comparison.summary.difference:+.4f}".replace("-", "−") in text
    assert "over 8 sequences" in text
    names = f"{better.name} {worse.name} {subtitle(figure)}"
    assert "mudd &lt;b&gt;1&lt;/b&gt;" in names
    assert "plain" in worse.name
    assert "lie outside" not in names


def test_what_lies_outside_the_histogram_is_counted():
    sure, unsure = (markov([[p, 1 - p], [0.5, 0.5]]) for p in (1 - 1e-9, 1e-9))
    figure: Any = viz.loss_comparison_figure(
        compare_losses(sure, unsure, [torch.tensor([[0, 0, 1, 0]])])
    )
    assert "2 of 3 tokens lie outside" in subtitle(figure)
    assert "one sequence: no interval" in figure.layout.annotations[0].text
    assert not any(shape.type == "rect" for shape in figure.layout.shapes)


def test_every_figure_says_on_what():
    result, baseline = pair(9)
    figures: list[Any] = [
        viz.loss_strip_figure(result, baseline),
        viz.loss_lines_figure(result, baseline),
        viz.next_tokens_figure(result, 3, baseline),
    ]
    for figure in figures:
        assert "the prompt, 9 tokens in 1 sequence ·" in subtitle(figure)
        assert "<b>1" not in figure.to_json().replace("\\u003c", "<")


def test_what_cannot_be_drawn_is_named():
    result, _ = pair(9)
    with pytest.raises(ValueError, match="at least two tokens"):
        viz.loss_strip_figure(predictions(MUDD, torch.tensor([1])))
    for position in (-1, 9):
        with pytest.raises(ValueError, match=rf"position must lie in 0\.\.8, got {position}"):
            viz.next_tokens_figure(result, position)
    for draw in (viz.loss_strip_figure, viz.loss_lines_figure):
        with pytest.raises(ValueError, match="split the text into the same tokens"):
            draw(result, pair(8)[1])
    with pytest.raises(ValueError, match="split the text into the same tokens"):
        viz.next_tokens_figure(result, 1, pair(8)[1])
