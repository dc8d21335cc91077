"""Maps over a picture: numbers where their patches stand, and the picture as it is."""

import base64
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mudd_interp import viz
from mudd_interp.analysis import (
    attention_rollout,
    class_attribution,
    depth_frame,
    patch_sinks,
    path_coefficients,
    relative_offsets,
    token_weights,
)
from mudd_interp.images import bundled_images
from mudd_interp.study import attention_pattern
from tests.unit import seeing
from tests.unit.viz.seen import picture


def pattern_of(name: str = "see") -> Any:
    return attention_pattern(seeing.vision_model(name), seeing.seen(1), layer=1).numpy()


def subtitle(figure: Any) -> str:
    return figure.layout.title.subtitle.text.replace("<br>", " ")


def draw(**changes: Any) -> Any:
    given: dict[str, Any] = {"layer": 1, "model": "<m>", "source": "here"} | changes
    return viz.attention_over_image_figure(pattern_of(), picture(), 6, **given)


def test_the_picture_is_every_pixel_of_the_image_as_a_square():
    found = picture()
    written = found.source.removeprefix("data:image/png;base64,")
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(written))))
    assert image.shape == (448, 448)
    np.testing.assert_array_equal(image[::16, ::16], found.pixels[..., 0])
    assert (image.reshape(28, 16, 28, 16) == image[::16, ::16][:, None, :, None]).all()
    colours = np.arange(28 * 28 * 3, dtype=np.uint32).reshape(28, 28, 3).astype(np.uint8)
    rgb = viz.Picture(colours, "", 4).source.removeprefix("data:image/png;base64,")
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(rgb))))
    np.testing.assert_array_equal(shown[::16, ::16], colours)


def test_each_head_s_row_stands_over_the_picture_and_its_patch_is_outlined():
    figure, pattern = draw(), pattern_of()
    assert len(figure.data) == len(pattern)
    for trace, rows in zip(figure.data, pattern, strict=True):
        np.testing.assert_array_equal(np.asarray(trace.z), rows[6].reshape(4, 4))
    # Patch 6 of 4 × 4 is in row 1 and column 2, and rows go downwards.
    assert len(figure.layout.shapes) == len(figure.layout.images) == 1 + len(pattern)
    for shape in figure.layout.shapes:
        assert (shape.x0, shape.x1, shape.y0, shape.y1) == (1.5, 2.5, 0.5, 1.5)
    assert figure.layout.yaxis2.range == (3.5, -0.5)
    assert figure.layout.coloraxis.cmax == pattern.max()
    assert "patch 6 (row 1, column 2)" in figure.layout.title.text
    assert figure.layout.annotations[0].text == "the image: Ankle boot"


def test_the_slider_has_the_row_of_each_patch():
    figure, pattern = draw(), pattern_of()
    (slider,) = figure.layout.sliders
    assert slider.active == 6
    assert [step.label for step in slider.steps[:6]] == ["0,0", "0,1", "0,2", "0,3", "1,0", "1,1"]
    for query, step in enumerate(slider.steps):
        drawn, changed = step.args
        np.testing.assert_array_equal(drawn["z"], pattern[:, query].reshape(-1, 4, 4))
        corners = [changed[f"shapes[2].{corner}"] for corner in ("x0", "x1", "y0", "y1")]
        row, column = divmod(query, 4)
        assert corners == [column - 0.5, column + 0.5, row - 0.5, row + 0.5]
        assert "&lt;m&gt;" in changed["title.text"]
    assert slider.steps[6].args[1]["title.text"] == figure.layout.title.text


def test_panels_are_squares_within_the_figure():
    for count in (1, 2, 4, 6, 12):
        pattern = torch.rand(count, 16, 16).softmax(-1).numpy()
        figure: Any = viz.attention_over_image_figure(
            pattern, picture(), 0, layer=0, model="m", source=""
        )
        layout = figure.layout
        width = layout.width - layout.margin.l - layout.margin.r
        height = layout.height - layout.margin.t - layout.margin.b
        places = ["", *range(2, count + 2)]
        for place in places:
            across = np.diff(layout[f"xaxis{place}"].domain) * width
            down = np.diff(layout[f"yaxis{place}"].domain) * height
            assert across == pytest.approx(down, abs=1)
            assert across > 80


def test_weights_and_depths_stand_where_their_patches_are():
    found = token_weights(seeing.vision_model(), seeing.seen(1)[0])
    figure: Any = viz.weights_over_image_figure(found, picture(), "k", 1, 0, rectified=True)
    frame = depth_frame(found, "k", 1, 0, rectified=True)
    for trace, column in zip(figure.data, ("weight", "depth"), strict=True):
        np.testing.assert_array_equal(np.ravel(trace.z), frame[column])
    assert figure.layout.coloraxis.cmin == -figure.layout.coloraxis.cmax
    assert (figure.layout.coloraxis2.cmin, figure.layout.coloraxis2.cmax) == (0, 2)
    assert figure.layout.title.text == "What K · key of block 2 reads of the image, see"
    last: Any = viz.weights_over_image_figure(found, picture(), "r", 2, 0)
    assert last.layout.title.text == "What the final norm reads of the image, see"


def test_contributions_to_a_class_stand_over_the_picture_and_by_component():
    found = [
        class_attribution(seeing.vision_model(name), seeing.seen(1), "Bag", "Coat")
        for name in ("see", "see-plain")
    ]
    figure: Any = viz.class_attribution_figure(found[0], picture(), found[1])
    maps, bars = figure.data[:2], figure.data[2:]
    for each, trace, bar in zip(found, maps, bars, strict=True):
        np.testing.assert_array_equal(np.ravel(trace.z), each.by_patch)
        np.testing.assert_array_equal(bar.y, each.by_component)
        assert np.sum(bar.y) == pytest.approx(each.logit, abs=1e-12)
        assert f"{each.logit:.4f}" in figure.layout.title.subtitle.text
    end = max(np.abs(each.by_patch).max() for each in found)
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (-end, end)
    assert figure.layout.title.text == "What spoke for “Bag” − “Coat”"
    assert len(figure.layout.xaxis4.ticktext) == 8
    other = class_attribution(seeing.vision_model("see-plain"), seeing.seen(1), "Coat")
    with pytest.raises(ValueError, match="answer is 'Bag' for one model and 'Coat' for the other"):
        viz.class_attribution_figure(found[0], picture(), other)


def test_rollout_stands_beside_the_coefficients_that_it_takes_for_one():
    for name in ("see", "see-plain"):
        model, image = seeing.vision_model(name), seeing.seen(1)
        found, exact = attention_rollout(model, image), path_coefficients(model, image)
        figure: Any = viz.rollout_figure(found, exact, picture())
        rollout, embed, bars, line = figure.data
        np.testing.assert_array_equal(np.ravel(rollout.z), found.mean_row)
        np.testing.assert_array_equal(np.ravel(embed.z), exact.coefficient[-1, -1, 0])
        np.testing.assert_array_equal(bars.y, exact.coefficient[-1, -1].mean(1))
        assert list(line.y) == [1, 1]
        assert (np.ravel(embed.z) == 1).all() == (name == "see-plain")
        assert "assumes a plain residual" in figure.layout.title.text


def test_offsets_stand_around_the_patch_itself_and_the_strongest_is_outlined():
    found: Any = relative_offsets(seeing.vision_model(), seeing.batches(2))
    figure: Any = viz.relative_offsets_figure(found, 2)
    best = found.strongest.query("layer == 2")
    for head, (trace, shape) in enumerate(zip(figure.data, figure.layout.shapes, strict=True)):
        np.testing.assert_array_equal(trace.z, found.score[2, head])
        assert list(trace.x) == list(trace.y) == list(range(-3, 4))
        dy, dx = best[["dy", "dx"]].to_numpy()[head]
        assert (shape.x0, shape.x1, shape.y0, shape.y1) == (dx - 0.5, dx + 0.5, dy - 0.5, dy + 0.5)
        assert f"{best['score'].to_numpy()[head]:.3f}" in figure.layout.annotations[head].text
    assert figure.layout.yaxis.range == (3.5, -3.5)
    with pytest.raises(ValueError, match=r"layer must lie in 0\.\.2, got 3"):
        viz.relative_offsets_figure(found, 3)


def test_the_strongest_offset_of_each_head_is_written_on_its_cell():
    found: Any = relative_offsets(seeing.vision_model(), seeing.batches(2))
    figure: Any = viz.relative_offset_scores_figure(found)
    heads, words = figure.data
    best = found.strongest
    np.testing.assert_array_equal(np.ravel(heads.z), best["score"])
    for word, x, y, at in zip(words.text, words.x, words.y, best.itertuples(), strict=True):
        assert (x, y) == (at.head, at.layer)
        numbers = [int(part) for part in word.strip("()").replace("−", "-").split(", ")]
        assert numbers == [at.dy, at.dx]


def test_sinks_are_maps_of_four_measures_and_none_found_is_said():
    noise = torch.rand(2, 1, 28, 28, dtype=torch.float64) * 2 - 1
    results = [
        patch_sinks(seeing.vision_model(name), [noise.clone()]) for name in ("see", "see-plain")
    ]
    figure: Any = viz.patch_sinks_figure(*results)
    measures = ("to_outliers", "to_blanks", "entropy", "distance")
    for place, trace in enumerate(figure.data):
        frame = results[place // 4].frame
        np.testing.assert_array_equal(np.ravel(trace.z), frame[measures[place % 4]])
    some = replace(results[0], outliers=np.array([0, 3, 2]))
    none = replace(results[1], outliers=np.array([0, 0, 0]))
    text = subtitle(viz.patch_sinks_figure(some, none))
    assert "see: of 32 patches 0 to 3 outliers in a layer, 0.0% blank" in text
    assert "see-plain: of 32 patches no outlier in any layer, 0.0% blank" in text


def test_what_does_not_fit_the_picture_is_refused():
    other = viz.Picture(bundled_images().pixels[0], "", 7)
    found = token_weights(seeing.vision_model(), seeing.seen(1)[0])
    with pytest.raises(ValueError, match="a number for each of 49 patches, got 16"):
        viz.weights_over_image_figure(found, other, "k", 1, 0)
    with pytest.raises(ValueError, match=r"position must lie in 0\.\.15, got 16"):
        viz.attention_over_image_figure(pattern_of(), picture(), 16, layer=1, model="m", source="")
