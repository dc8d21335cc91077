"""What is not for a model is refused on every door, in one sentence, and nothing else is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import mudd_interp as mi
from mudd_interp.catalog import FIGURES, choose
from mudd_interp.checkpoints import save_model
from mudd_interp.model import HookedMUDDTransformer
from mudd_interp.request import Request
from mudd_interp.study import Study
from tests.bundled import load
from tests.kinds import OF_IMAGES, OF_STREAMS
from tests.unit.command import run

SHORT: dict[str, Any] = {"sequences": 1, "context": 16}

OF_NEXT_TOKENS = {
    "next_tokens",
    "token_losses",
    "loss_comparison",
    "logit_attribution",
    "logit_lens",
    "edited_next_tokens",
    "edited_losses",
    "edit_effects",
    "edge_effects",
    "weight_contribution_cause",
    "first_order",
    "frozen_live",
    "static_dynamic",
    "edge_patch",
    "state_patch",
    "in_context_loss",
}
OF_CAUSAL_ATTENTION = {
    "head_activity",
    "head_activity_by_head",
    "sink_sensitivity",
    "head_scores",
    "head_scores_by_depth",
    "head_composition",
}


def bidirectional() -> HookedMUDDTransformer:
    """A bundled model whose positions see all others."""
    causal = load("mudd-tiny")
    model = HookedMUDDTransformer(replace(causal.config, attention_dir="bidirectional"))
    model.load_state_dict(causal.state_dict())
    model.tokenizer = causal.tokenizer
    model.info = replace(causal.info, name="sees all")
    return model


def test_a_figure_says_what_model_it_is_not_for():
    model, request = bidirectional(), Request(baseline=None, edits="cut mlp 1", **SHORT)
    study = Study(request, lambda *_, **__: model)
    both = Study(replace(request, baseline="mudd-tiny"), lambda name, **_: load(name))
    unfit = {name for name, kind in FIGURES.items() if not kind.of_baseline and kind.unfit(study)}
    others = {*OF_IMAGES, *OF_STREAMS}
    assert unfit == OF_NEXT_TOKENS - {"loss_comparison"} | OF_CAUSAL_ATTENTION | others
    assert {name for name, kind in FIGURES.items() if kind.unfit(both)} == others
    for kind in FIGURES.values():
        if kind.name in unfit:
            reason = "predict the next token|see later ones|reads no images|mixes no|no hyper-conn"
            assert f"{kind.name} is not for sees all, because it" in str(kind.unfit(study))
            with pytest.raises(ValueError, match=reason):
                kind.check_models(study)


def test_with_no_figure_named_those_that_are_not_for_the_models_are_left_out():
    model, request = bidirectional(), Request(baseline=None, **SHORT)
    study = Study(request, lambda *_, **__: model)
    every, fit = choose((), request), choose((), request, study)
    assert {kind.name for kind in every} - {kind.name for kind in fit} == {
        "head_activity",
        "head_activity_by_head",
    }
    with pytest.raises(ValueError, match=r"^head_activity is not for sees all, because its pos"):
        choose(("head_activity",), request, study)


def test_draw_draws_what_is_for_a_model_and_refuses_the_rest():
    model = bidirectional()
    drawn = mi.draw("layer_similarity", model=model, baseline=None, **SHORT)
    assert len(drawn.frame)
    with pytest.raises(ValueError, match=r"next_tokens is not for sees all, because it does"):
        mi.draw("next_tokens", model=model, baseline=None, prompt="x = 1")
    with pytest.raises(ValueError, match=r"loss_comparison is not for sees all"):
        mi.draw("loss_comparison", model="mudd-tiny", baseline=model, **SHORT)


@pytest.mark.slow
def test_the_command_says_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    folder = save_model(bidirectional(), tmp_path / "all")
    short = ("--model", folder, "--baseline", "none", "--sequences", 1, "--context", 16)

    def asked(out: str, *figures: str) -> int:
        return run("figures", *short, "--out", tmp_path / out, *figures, monkeypatch=monkeypatch)

    assert asked("one", "--only", "stream_norms,head_activity") != 0
    assert f"head_activity is not for {folder}, because its positions see later ones" in (
        " ".join(capsys.readouterr().err.split())
    )
    assert not (tmp_path / "one").exists()
    assert asked("standard") == 0
    drawn = {path.stem for path in (tmp_path / "standard").glob("*.html")}
    assert {"layer_similarity", "dense_weights", "attention_maps"} <= drawn
    assert not drawn & (OF_NEXT_TOKENS | OF_CAUSAL_ATTENTION)
