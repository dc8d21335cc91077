"""The figures of images, on every door that the figures of text have."""

from dataclasses import asdict, replace
from typing import Any

import pytest

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
