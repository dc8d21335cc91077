"""What happens if it is cut?"""

from collections.abc import Callable
from typing import Any

import pandas as pd
import torch

from mudd_interp.analysis import (
    AblationAnalysis,
    Analysis,
    DenseWeightsAnalysis,
    EdgeAttributionAnalysis,
    EdgePatch,
    EdgeSizesAnalysis,
    InContextLossAnalysis,
    StatePatch,
    check_same_vocabulary,
    edge_patch,
    state_patch,
    static_edits,
    token_texts,
    weight_contribution_cause,
)
from mudd_interp.analysis.inputs import NEXT_TOKEN, STATES
from mudd_interp.analysis.logit_attribution import token_id
from mudd_interp.catalog.kind import (
    ONE_PICTURE,
    PROMPT,
    SCOPED,
    Drawn,
    FigureKind,
    of_both,
    of_models,
    results,
)
from mudd_interp.request import Mode, Role
from mudd_interp.study import Need, Study
from mudd_interp.texts import corrupted_of
from mudd_interp.viz import (
    causes_figure,
    edge_effects_figure,
    edge_patch_figure,
    first_order_figure,
    frozen_live_figure,
    in_context_figure,
    state_patch_figure,
    static_dynamic_figure,
)

CUT_SEQUENCES = 16
"""Sequences that a sweep over edits takes where the request does not say how many."""

_OTHERWISE = f"; {CUT_SEQUENCES} sequences unless told otherwise"

ONE_MODELS_EDGES: dict[Mode, str] = {
    "difference": "it shows the edges of one model",
    "overlay": "it shows the edges of one model",
}

ONE_MODELS_STATE: dict[Mode, str] = {
    "difference": "a layer of one model does not do what that of the other does",
    "overlay": "one picture would hide the other",
}


def _few(analysis: Analysis[Any], **how: Any) -> Need:
    """An analysis of all edges of the model, on few sequences."""
    return Need("model", analysis, most=CUT_SEQUENCES, **how)


_SIZES, _CUT, _FROZEN, _ESTIMATES = (
    _few(each)
    for each in (
        EdgeSizesAnalysis(),
        AblationAnalysis(),
        AblationAnalysis(frozen=True),
        EdgeAttributionAnalysis(),
    )
)


def _edge_effects(study: Study) -> Drawn:
    effects = study.of(_CUT)
    return Drawn(edge_effects_figure(effects), effects.frame)


def _causes(study: Study) -> Drawn:
    sizes, effects = study.of(_SIZES), study.of(_CUT)
    return Drawn(causes_figure(sizes, effects), weight_contribution_cause(sizes, effects))


def _frozen_live(study: Study) -> Drawn:
    sizes, live, frozen = (study.of(each) for each in (_SIZES, _CUT, _FROZEN))
    table = weight_contribution_cause(sizes, live, frozen=frozen)
    return Drawn(frozen_live_figure(sizes, live, frozen), table)


def _first_order(study: Study) -> Drawn:
    sizes, effects, estimates = (study.of(each) for each in (_SIZES, _CUT, _ESTIMATES))
    table = weight_contribution_cause(sizes, effects, estimates)
    return Drawn(first_order_figure(sizes, effects, estimates), table)


def _without_dynamics(study: Study) -> Need:
    """Its means are over the same few sequences."""
    edits = tuple(map(str, static_edits(study.models["model"])))
    return _few(AblationAnalysis(edits), after=_few(DenseWeightsAnalysis()))


def _static_dynamic(study: Study) -> Drawn:
    effects = study.of(_without_dynamics(study))
    return Drawn(static_dynamic_figure(effects), effects.frame)


def _in_context(study: Study) -> Drawn:
    model, baseline = results(study, InContextLossAnalysis())
    frame = of_both(study, lambda role: study.result(role, InContextLossAnalysis()).frame)
    return Drawn(in_context_figure(model, baseline), frame)


def _edge_patch(study: Study) -> Drawn:
    found = _against_corrupted(study, "model", _edges)
    answers = _words(study, "model", found)
    frame = pd.concat([found.frame, found.stream_frame], ignore_index=True)
    return Drawn(edge_patch_figure(found, answers), frame)


def _state_patch(study: Study) -> Drawn:
    role = study.request.of
    found = _against_corrupted(study, role, _states)
    figure = state_patch_figure(found, _words(study, role, found), study.token_texts(role))
    return Drawn(figure, found.frame)


def _words(study: Study, role: Role, found: EdgePatch | StatePatch) -> tuple[str, str]:
    """The two tokens whose logits are compared."""
    first, second = token_texts(study.models[role], torch.from_numpy(found.answers[0].copy()))
    return first, second


def _against_corrupted(study: Study, role: Role, compute: Callable[..., Any]) -> Any:
    """The prompt compared with the corrupted one; both models are asked for the same tokens.

    If one is not given, it is the one that the model expects most.
    """
    request, chooser = study.request, role
    if role == "baseline" and (request.answer is None or request.against is None):
        check_same_vocabulary(study.models["model"], study.models["baseline"])
        chooser: Role = "model"
    given = {"answer": request.answer, "against": request.against}
    answers = study.of_prompt(chooser, _answers, corrupted=_corrupted(study, chooser), **given)
    how = {"corrupted": _corrupted(study, role), "answers": answers}
    return study.of_prompt(role, compute, **how)


def _corrupted(study: Study, role: Role) -> list[list[int]]:
    models = study.models
    return corrupted_of(study.request, models[role], list(models.values())).tolist()


def _edges(model: Any, clean: Any, *, corrupted: Any, answers: list[int]) -> EdgePatch:
    return edge_patch(model, clean, torch.tensor(corrupted), torch.tensor([answers]))


def _states(model: Any, clean: Any, *, corrupted: Any, answers: list[int]) -> StatePatch:
    return state_patch(model, clean, torch.tensor(corrupted), torch.tensor([answers]))


def _answers(
    model: Any, clean: Any, *, corrupted: Any, answer: str | None, against: str | None
) -> list[int]:
    """The two tokens that are compared; those that are not given are the likeliest.

    Raises:
        ValueError: If both are the same token, with its text.
    """
    other = torch.tensor(corrupted)
    chosen = [
        _likeliest(model, tokens) if token is None else token_id(model, token)
        for token, tokens in ((answer, clean), (against, other))
    ]
    # Prompts that cannot be compared at all are refused by the patching itself.
    if chosen[0] == chosen[1] and clean.shape == other.shape:
        text = token_texts(model, other.new_tensor(chosen))[0]
        raise ValueError(
            f"the logits of two tokens are compared, and both are {text!r}: give two different "
            "tokens, as answer and against. One that is not given is the likeliest, of the prompt "
            "(answer) or of the corrupted one (against)."
        )
    return chosen


@torch.no_grad()
def _likeliest(model: Any, tokens: Any) -> int:
    return int(model(tokens, return_type="logits")[0, -1].argmax())


KINDS = (
    FigureKind(
        name="edge_effects",
        title=f"What cutting each edge does{_OTHERWISE}",
        draw=_edge_effects,
        needs=lambda _: [_CUT],
        uses=SCOPED,
        why_not=ONE_MODELS_EDGES,
    ),
    FigureKind(
        name="weight_contribution_cause",
        title=f"Weight, contribution and cause of every edge{_OTHERWISE}",
        draw=_causes,
        needs=lambda _: [_SIZES, _CUT],
        uses=SCOPED,
        why_not=ONE_MODELS_EDGES,
    ),
    FigureKind(
        name="frozen_live",
        title=f"Every edge with later weights held, and live{_OTHERWISE}",
        draw=_frozen_live,
        needs=lambda _: [_SIZES, _CUT, _FROZEN],
        uses=SCOPED,
        why_not=ONE_MODELS_EDGES,
    ),
    FigureKind(
        name="first_order",
        title=f"First-order estimate and exact effect of every edge{_OTHERWISE}",
        draw=_first_order,
        needs=lambda _: [_SIZES, _CUT, _ESTIMATES],
        uses=SCOPED,
        why_not=ONE_MODELS_EDGES,
    ),
    FigureKind(
        name="static_dynamic",
        title=f"What the dynamic weights are worth{_OTHERWISE}",
        draw=_static_dynamic,
        needs=lambda study: [_without_dynamics(study)],
        uses=SCOPED,
        why_not=dict.fromkeys(("overlay", "difference"), "a Transformer has no dynamic weights"),
    ),
    FigureKind(
        name="edge_patch",
        title="Which edges carry what differs between a prompt and a corrupted one",
        draw=_edge_patch,
        uses=(*PROMPT, "corrupted", "answer", "against"),
        why_not=ONE_MODELS_EDGES,
        requires=NEXT_TOKEN,
    ),
    FigureKind(
        name="state_patch",
        title="From which layer on, and at which token, two prompts differ",
        draw=_state_patch,
        uses=(*PROMPT, "corrupted", "answer", "against"),
        why_not=ONE_MODELS_STATE,
        single=True,
        requires=NEXT_TOKEN | STATES,
    ),
    FigureKind(
        name="in_context_loss",
        title="Loss by position in the sequence",
        draw=_in_context,
        needs=of_models(InContextLossAnalysis()),
        uses=SCOPED,
        modes=("overlay",),
        why_not=ONE_PICTURE,
    ),
)
