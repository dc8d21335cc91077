"""What do these edits do, to this prompt and to a sample?"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64

from mudd_interp.analysis import (
    AblationAnalysis,
    DenseWeights,
    DenseWeightsAnalysis,
    Predictions,
    loss_difference,
    predictions,
)
from mudd_interp.analysis.inputs import NEXT_TOKEN
from mudd_interp.axes import Stream
from mudd_interp.catalog.interventions import CUT_SEQUENCES
from mudd_interp.catalog.kind import ONE_PICTURE, SCOPED, Drawn, FigureKind, of_both
from mudd_interp.edits import Edit, as_edits, edit_hooks, edited, edits_text
from mudd_interp.protocol import HookedModel
from mudd_interp.request import Mode, Role
from mudd_interp.study import Need, Study
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
    """

    edits: tuple[Edit, ...]
    left_out: tuple[str, ...]
    means: Need | None


@dataclass(frozen=True)
class _AnyMeans:
    """Stands in for mean weights where the only question is whether an edit can be done."""

    streams: tuple[Stream, ...]
    mean: Float64[np.ndarray, "stream layer source"]

    @classmethod
    def of(cls, model: HookedModel) -> "_AnyMeans":
        wiring = model.wiring
        shape = (len(wiring.streams), wiring.n_rows, len(wiring.sources))
        return cls(wiring.streams, np.zeros(shape))


def _plan(study: Study, role: Role) -> _Plan:
    """The edits of a request, in one of the models.

    Raises:
        ValueError: If there are none, or one cannot be done in the model; the baseline may lack
            what some of them are about, but not what all are about.
    """
    edits = as_edits(study.request.edits or "")
    if not edits:
        raise ValueError("there are no edits: give some, such as `cut v 5<-2; cut head 7.2`.")
    model, done, left_out = study.models[role], list[Edit](), list[str]()
    for edit in edits:
        try:
            edit_hooks(model, edit, _AnyMeans.of(model))
        except ValueError as error:
            if role == "model":
                raise
            left_out.append(f"not done in {study.name(role)}: {error}")
        else:
            done.append(edit)
    if not done:
        raise ValueError(" ".join(left_out))
    asks = any(edit.action == "mean" for edit in done)
    return _Plan(tuple(done), tuple(left_out), Need(role, DenseWeightsAnalysis()) if asks else None)


def _plans(study: Study) -> tuple[dict[Role, _Plan], list[str]]:
    """The plan of each model in which an edit has a meaning, and what is left out."""
    plans, left_out = dict[Role, _Plan](), list[str]()
    for role in study.roles:
        try:
            plans[role] = _plan(study, role)
        except ValueError as error:
            if role == "model":
                raise
            left_out.append(str(error))
        else:
            left_out += plans[role].left_out
    return plans, left_out


def edited_predictions(
    model: HookedModel, tokens: Any, edits: str, means: DenseWeights | None
) -> Predictions:
    """The predictions of a model with edits, given as text."""
    with edited(model, edits, means):
        return predictions(model, tokens)


def _renamed(found: Predictions, name: str) -> Predictions:
    return replace(found, provenance=replace(found.provenance, model=name))


def _before_and_after(study: Study, plan: _Plan) -> tuple[Predictions, Predictions]:
    """One model's predictions on the prompt, without and with the edits."""
    role = study.request.of
    means = None if plan.means is None else study.of(plan.means)
    before = study.of_prompt(role, predictions)
    edits = edits_text(plan.edits)
    after = study.of_prompt(role, edited_predictions, edits=edits, means=means)
    name = study.name(role)
    return _renamed(before, f"{name} unedited"), _renamed(after, f"{name} edited")


def _means(study: Study) -> list[Need]:
    """The mean weights, where an edit asks for them."""
    means = _plan(study, study.request.of).means
    return [] if means is None else [means]


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
        difference="edited − unedited",
    )
    return Drawn(figure, loss_difference(after, before))


def _effects(study: Study) -> Drawn:
    """Each edit alone, and all of them together, on every model in which they have a meaning."""
    plans, left_out = _plans(study)
    found: dict[Role, Any] = {
        role: study.of(_effects_of(role, plan)) for role, plan in plans.items()
    }
    figure = edit_effects_figure(found["model"], found.get("baseline"), left_out)
    return Drawn(figure, of_both(study, lambda role: found[role].frame, found))


def _effects_of(role: Role, plan: _Plan) -> Need:
    groups = [str(edit) for edit in plan.edits]
    groups += [edits_text(plan.edits)] if len(groups) > 1 else []
    analysis = AblationAnalysis(tuple(groups))
    return Need(role, analysis, most=CUT_SEQUENCES, after=plan.means)


KINDS = (
    FigureKind(
        name="edited_next_tokens",
        title="What comes next, with and without edits",
        draw=_next_tokens,
        needs=_means,
        uses=(*SCOPED, "position", "edits"),
        why_not=ONE_MODEL,
        single=True,
        of_prompt=True,
        requires=NEXT_TOKEN,
    ),
    FigureKind(
        name="edited_losses",
        title="What each token costs, with and without edits",
        draw=_losses,
        needs=_means,
        uses=(*SCOPED, "edits"),
        why_not=ONE_MODEL,
        single=True,
        of_prompt=True,
        requires=NEXT_TOKEN,
    ),
    FigureKind(
        name="edit_effects",
        title="What edits do on a text, with intervals",
        draw=_effects,
        needs=lambda study: [_effects_of(*each) for each in _plans(study)[0].items()],
        uses=(*SCOPED, "edits"),
        why_not={**ONE_PICTURE, "difference": "an edit of one model is not the edit of the other"},
        modes=("overlay",),
    ),
)
