"""The figures of images, on every door that the figures of text have."""

from dataclasses import asdict, replace
from typing import Any

import pytest
import torch

from mudd_interp.catalog import FIGURES, draw_kind
from mudd_interp.request import Request
from mudd_interp.study import Study
from tests.kinds import OF_IMAGES
from tests.unit import seeing

SHORT = Request(model="see", baseline="see-plain", sequences=3, layer=1, image=1)
KEPT: dict[str, Any] = {}


@pytest.mark.parametrize("scope", ["corpus", "prompt"])
@pytest.mark.parametrize("name", OF_IMAGES)
def test_every_mode_is_drawn_from_the_walks_among_its_needs_or_refused(
    name: str, scope: Any, monkeypatch: pytest.MonkeyPatch
):
    kind = FIGURES[name]
    for mode in ("overlay", "side_by_side", "difference"):
        request = Request.of_values(asdict(SHORT) | {"scope": scope, "mode": mode})
        if mode not in kind.modes:
            with pytest.raises(ValueError, match=f"cannot be drawn in mode {mode}"):
                kind.check(request)
            continue
        this = Study(request, seeing.load, KEPT)
        this.prepare(kind.needs(this))
        with monkeypatch.context() as patch:
            patch.setattr("mudd_interp.study.sweep_over_ranks", None)
            drawn = draw_kind(kind, this)
        assert drawn.figure.data
        assert len(drawn.frame)
        assert drawn.frame.select_dtypes("number").notna().to_numpy().any(0).all()


@pytest.mark.parametrize("name", OF_IMAGES)
def test_a_model_alone_is_drawn_too(name: str):
    study = Study(replace(SHORT, baseline=None), seeing.load, KEPT)
    assert len(draw_kind(FIGURES[name], study).frame)


OTHER: dict[str, Any] = {
    "sequences": 1,
    "scope": "prompt",
    "of": "baseline",
    "image": 2,
    "position": 1,
    "layer": 0,
    "head": 1,
    "stream": "q",
    "source": 2,
    "raw": True,
    "answer": "Bag",
    "against": "Coat",
}


@pytest.mark.parametrize("name", OF_IMAGES)
def test_a_figure_depends_on_nothing_but_what_it_says(name: str):
    uses = FIGURES[name].depends_on(SHORT)
    others = {other: value for other, value in OTHER.items() if other not in uses}
    first, second = (
        draw_kind(FIGURES[name], Study(replace(SHORT, **values), seeing.load, KEPT)).figure
        for values in ({}, others)
    )
    assert first.to_json() == second.to_json()


def test_the_patch_that_is_looked_at_is_the_one_in_the_middle():
    assert Study(SHORT, seeing.load).position("model") == 10  # row 2, column 2 of 4 x 4
    fine = seeing.vision_model("see-fine")
    study = Study(replace(SHORT, model="see-fine", baseline=None), lambda *_, **__: fine)
    assert study.position("model") == 24  # row 3, column 3 of 7 x 7


def test_a_row_that_feeds_a_block_is_drawn_where_no_layer_is_asked_for():
    request = replace(SHORT, layer=None, stream="q")
    frame = draw_kind(FIGURES["weights_over_image"], Study(request, seeing.load)).frame
    assert set(frame["layer"]) == {1}  # of three layers: the last one feeds the final norm


def test_a_class_is_asked_for_by_name_or_number_and_told_by_both_models():
    kind = FIGURES["class_attribution"]
    frames = [
        draw_kind(kind, Study(replace(SHORT, answer=answer), seeing.load)).frame
        for answer in ("Bag", "8")
    ]
    assert frames[0].equals(frames[1])
    assert set(frames[0]["model"]) == {"see", "see-plain"}
    with pytest.raises(ValueError, match="no class `Bagg`; did you mean `Bag`"):
        draw_kind(kind, Study(replace(SHORT, answer="Bagg"), seeing.load))
    likeliest = draw_kind(kind, Study(SHORT, seeing.load))
    with torch.no_grad():
        best = seeing.vision_model()(seeing.seen(1, 1))[0].argmax()
    assert seeing.vision_model().class_names[best] in likeliest.figure.layout.title.text
    deep = seeing.vision_model(pre_logits=True)
    with pytest.raises(NotImplementedError, match="layer with tanh before its classes"):
        draw_kind(kind, Study(replace(SHORT, baseline=None), lambda *_, **__: deep))
