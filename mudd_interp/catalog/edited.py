"""What do these edits do, to this prompt and to a sample?"""

from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from mudd_interp.analysis import (
    AblationSweep,
    DenseWeightsAnalysis,
    Predictions,
    ablation_sweep,
    loss_difference,
    predictions,
)
from mudd_interp.catalog.interventions import FEW
from mudd_interp.catalog.kind import ONE_PICTURE, SCOPED, Drawn, FigureKind, of_both
from mudd_interp.edits import Edit, as_edits, edit_hooks, edited, edits_text
from mudd_interp.request import Mode, Part
from mudd_interp.study import Study
from mudd_interp.viz import edit_effects_figure, loss_strip_figure, next_tokens_figure

ONE_MODEL: dict[Mode, str] = {
    "difference": "it holds a model against itself, edited",
    "overlay": "it holds a model against itself, edited",
}


@dataclass(frozen=True)
class _Plan:
    """What is done to one of the models.

    Attributes:
        edits: Those that have a meaning in it.
        left_out: A sentence for each of the others.
        means: The mean weights over the text, if an edit asks for them.
        known_by: By what the means are known.
    """

    edits: tuple[Edit, ...]
    left_out: tuple[str, ...]
    means: Any
    known_by: str | None


def _plan(study: Study, part: Part) -> _Plan:
    """The edits of a request, in one of the models.

    Raises:
        ValueError: If there are none, or one cannot be done in the model; the baseline may lack
            what some of them are about, but not what all are about.
    """
    edits = as_edits(study.request.edits or "")
    if not edits:
        raise ValueError("there are no edits: give some, such as `cut v 5<-2; cut head 7.2`.")
    means = known_by = None
    if any(edit.action == "mean" for edit in edits):
        analysis = DenseWeightsAnalysis()
        means, known_by = study.result(part, analysis), study.result_key(part, analysis)
    done, left_out = list[Edit](), list[str]()
    for edit in edits:
        try:
            edit_hooks(study.models[part], edit, means)
        except ValueError as error:
            if part == "model":
                raise
            left_out.append(f"not done in {study.name(part)}: {error}")
        else:
            done.append(edit)
    if not done:
        raise ValueError(" ".join(left_out))
    return _Plan(tuple(done), tuple(left_out), means, known_by)


def _renamed(found: Predictions, name: str) -> Predictions:
    return replace(found, provenance=replace(found.provenance, model=name))


def _before_and_after(study: Study, plan: _Plan) -> tuple[Predictions, Predictions]:
    """One model's predictions on the prompt, as it is and with the edits."""
    part = study.request.of

    def with_edits(model: Any, tokens: Any, **_: Any) -> Predictions:
        with edited(model, plan.edits, plan.means):
            return predictions(model, tokens)

    before = study.of_prompt(part, predictions)
    after = study.of_prompt(part, with_edits, edits=edits_text(plan.edits), means=plan.known_by)
    name = study.name(part)
    return _renamed(before, f"{name} as it is"), _renamed(after, f"{name} edited")


def _next_tokens(study: Study) -> Drawn:
    before, after = _before_and_after(study, _plan(study, study.request.of))
    position = study.position(study.request.of)
    tables = [
        each.top_frame(position).assign(model=each.provenance.model) for each in (before, after)
    ]
    frame = pd.concat(tables, ignore_index=True)
    return Drawn(next_tokens_figure(before, position, after), frame)


def _losses(study: Study) -> Drawn:
    plan = _plan(study, study.request.of)
    before, after = _before_and_after(study, plan)
    figure = loss_strip_figure(
        after,
        before,
        title=f"Loss of each token with edits: {edits_text(plan.edits)}",
        difference="edited − as it is",
    )
    return Drawn(figure, loss_difference(after, before))


def _effects(study: Study) -> Drawn:
    """Each edit alone, and all of them together, on every model in which they have a meaning."""
    found: dict[Part, AblationSweep] = {}
    left_out = list[str]()
    for part in study.parts:
        try:
            plan = _plan(study, part)
        except ValueError as error:
            if part == "model":
                raise
            left_out.append(str(error))
        else:
            left_out += plan.left_out
            found[part] = _effects_on(study, part, plan)
    figure = edit_effects_figure(found["model"], found.get("baseline"), left_out)
    return Drawn(figure, of_both(study, lambda part: found[part].frame, found))


def _effects_on(study: Study, part: Part, plan: _Plan) -> AblationSweep:
    groups = [str(edit) for edit in plan.edits]
    groups += [edits_text(plan.edits)] if len(groups) > 1 else []

    def sweep(model: Any, batches: Any, *, means_of: Any, **how: Any) -> AblationSweep:  # noqa: ARG001 (means_of is in the key)
        return ablation_sweep(model, batches, means=plan.means, **how)

    return study.of_text(part, sweep, most=FEW, edits=groups, means_of=plan.known_by)


KINDS = (
    FigureKind(
        name="edited_next_tokens",
        title="What comes next, as it is and with edits",
        draw=_next_tokens,
        uses=(*SCOPED, "position", "edits"),
        why_not=ONE_MODEL,
        single=True,
        of_prompt=True,
    ),
    FigureKind(
        name="edited_losses",
        title="What each token costs, as it is and with edits",
        draw=_losses,
        uses=(*SCOPED, "edits"),
        why_not=ONE_MODEL,
        single=True,
        of_prompt=True,
    ),
    FigureKind(
        name="edit_effects",
        title="What edits do on a text, with intervals",
        draw=_effects,
        uses=(*SCOPED, "edits"),
        why_not={**ONE_PICTURE, "difference": "an edit of one model is not the edit of the other"},
        modes=("overlay",),
    ),
)
