"""What happens if it is cut?"""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import torch

from mudd_interp.analysis import (
    AblationSweep,
    EdgePatch,
    ablation_sweep,
    edge_attribution,
    edge_patch,
    edge_sizes,
    in_context_loss,
    static_vs_dynamic,
    token_texts,
    weight_contribution_cause,
)
from mudd_interp.analysis.logit_attribution import token_id
from mudd_interp.catalog.kind import ONE_PICTURE, PROMPT, SCOPED, Drawn, FigureKind, of_both
from mudd_interp.request import Mode
from mudd_interp.study import Study
from mudd_interp.texts import corrupted_of
from mudd_interp.viz import (
    causes_figure,
    edge_effects_figure,
    edge_patch_figure,
    first_order_figure,
    in_context_figure,
    static_dynamic_figure,
)

FEW = 16
"""Sequences that a sweep over all edges takes where the request does not say how many."""

_OTHERWISE = f"; {FEW} sequences unless told otherwise"

ONE_MODELS_EDGES: dict[Mode, str] = {
    "difference": "it shows the edges of one model",
    "overlay": "it shows the edges of one model",
}


def _of_model(study: Study, compute: Callable[..., Any]) -> Any:
    return study.of_text("model", compute, most=FEW)


def _every_edge_cut(study: Study) -> AblationSweep:
    return study.of_text("model", ablation_sweep, most=FEW, resumable=True)


def _edge_effects(study: Study) -> Drawn:
    sweep = _every_edge_cut(study)
    return Drawn(edge_effects_figure(sweep), sweep.frame)


def _causes(study: Study) -> Drawn:
    sizes, sweep = _of_model(study, edge_sizes), _every_edge_cut(study)
    return Drawn(causes_figure(sizes, sweep), weight_contribution_cause(sizes, sweep))


def _first_order(study: Study) -> Drawn:
    sizes, attribution = _of_model(study, edge_sizes), _of_model(study, edge_attribution)
    sweep = _every_edge_cut(study)
    table = weight_contribution_cause(sizes, sweep, attribution)
    return Drawn(first_order_figure(sizes, sweep, attribution), table)


def _static_dynamic(study: Study) -> Drawn:
    sweep = _of_model(study, static_vs_dynamic)
    return Drawn(static_dynamic_figure(sweep), sweep.frame)


def _in_context(study: Study) -> Drawn:
    found = {part: study.of_text(part, in_context_loss) for part in study.parts}
    figure = in_context_figure(found["model"], found.get("baseline"))
    return Drawn(figure, of_both(study, lambda part: found[part].frame))


def _edge_patch(study: Study) -> Drawn:
    request, model = study.request, study.models["model"]
    corrupted = corrupted_of(request, model, list(study.models.values()))
    options = {"answer": request.answer, "against": request.against}
    found = study.of_prompt("model", _patched, corrupted=corrupted.tolist(), **options)
    first, second = token_texts(model, torch.from_numpy(found.answers[0].copy()))
    frame = pd.concat([found.frame, found.stream_frame], ignore_index=True)
    return Drawn(edge_patch_figure(found, (first, second)), frame)


def _patched(
    model: Any,
    clean: Any,
    *,
    corrupted: Sequence[Sequence[int]],
    answer: str | None,
    against: str | None,
) -> EdgePatch:
    """Edges of the prompt's run as in the corrupted one; tokens not given are the likeliest.

    Raises:
        ValueError: As for :func:`edge_patch`; if both tokens are one, with its text.
    """
    other = torch.tensor(corrupted)
    chosen = [
        _likeliest(model, tokens) if token is None else token_id(model, token)
        for token, tokens in ((answer, clean), (against, other))
    ]
    # Prompts that cannot be compared at all are for edge_patch to refuse.
    if chosen[0] == chosen[1] and clean.shape == other.shape:
        text = token_texts(model, other.new_tensor(chosen))[0]
        raise ValueError(
            f"the logits of two tokens are compared, and both are {text!r}: give two different "
            "tokens, as answer and against. One that is not given is the likeliest, of the prompt "
            "(answer) or of the corrupted one (against)."
        )
    return edge_patch(model, clean, other, torch.tensor([chosen]))


@torch.no_grad()
def _likeliest(model: Any, tokens: Any) -> int:
    return int(model(tokens, return_type="logits")[0, -1].argmax())


KINDS = (
    FigureKind(
        name="edge_effects",
        title=f"What cutting each edge does{_OTHERWISE}",
        draw=_edge_effects,
        uses=SCOPED,
        why_not=ONE_MODELS_EDGES,
    ),
    FigureKind(
        name="weight_contribution_cause",
        title=f"Weight, contribution and cause of every edge{_OTHERWISE}",
        draw=_causes,
        uses=SCOPED,
        why_not=ONE_MODELS_EDGES,
    ),
    FigureKind(
        name="first_order",
        title=f"First-order estimate and exact effect of every edge{_OTHERWISE}",
        draw=_first_order,
        uses=SCOPED,
        why_not=ONE_MODELS_EDGES,
    ),
    FigureKind(
        name="static_dynamic",
        title=f"What the dynamic weights are worth{_OTHERWISE}",
        draw=_static_dynamic,
        uses=SCOPED,
        why_not=dict.fromkeys(("overlay", "difference"), "a Transformer has no dynamic weights"),
    ),
    FigureKind(
        name="edge_patch",
        title="Which edges carry what differs between a prompt and a corrupted one",
        draw=_edge_patch,
        uses=(*PROMPT, "corrupted", "answer", "against"),
        why_not=ONE_MODELS_EDGES,
    ),
    FigureKind(
        name="in_context_loss",
        title="Loss by position in the sequence",
        draw=_in_context,
        uses=SCOPED,
        modes=("overlay",),
        why_not=ONE_PICTURE,
    ),
)
