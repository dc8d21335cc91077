"""Which heads are awake, and what are they for?"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float32

from mudd_interp.analysis import (
    HeadActivityAnalysis,
    HeadEntropyAnalysis,
    HeadInputsAnalysis,
    HeadScores,
    HeadScoresAnalysis,
    SinkSensitivityAnalysis,
    activity_difference,
    heads_table,
)
from mudd_interp.analysis.inputs import PATTERNS
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
from mudd_interp.request import Mode, Request, Role
from mudd_interp.study import Need, Study
from mudd_interp.viz import (
    activity_difference_figure,
    attention_figure,
    head_activity_figure,
    head_depth_figure,
    head_heatmap_figure,
    head_inputs_figure,
    head_scores_figure,
    pattern_figure,
    sink_sensitivity_figure,
)

INPUT_SEQUENCES = 64
"""Sequences that the inputs of a head are averaged over where the request does not say how many."""

SINKS = ("sinks", "sink_positions")

NO_HEAD_AGAINST_HEAD: dict[Mode, str] = {
    "difference": "head h of one model has nothing to do with head h of another",
    "overlay": "one picture would hide the other",
}


def _activity_analysis(request: Request) -> HeadActivityAnalysis:
    """Head activity by the sink rule of a request."""
    return HeadActivityAnalysis(request.sinks, request.sink_positions)


def _activity(study: Study) -> Drawn:
    analysis = _activity_analysis(study.request)
    model, baseline = results(study, analysis)
    if study.request.mode == "difference":
        figure = activity_difference_figure(model, baseline)
        return Drawn(figure, activity_difference(model, baseline))
    figure = head_activity_figure(model, baseline)
    return Drawn(figure, of_both(study, lambda role: study.result(role, analysis).layer_frame))


def _heads(study: Study) -> Drawn:
    analysis = _activity_analysis(study.request)
    figure = head_heatmap_figure(*results(study, analysis))
    return Drawn(figure, of_both(study, lambda role: study.result(role, analysis).frame))


def _sensitivity(study: Study) -> Drawn:
    analysis = SinkSensitivityAnalysis(study.request.sinks)
    figure = sink_sensitivity_figure(*results(study, analysis))
    return Drawn(figure, of_both(study, lambda role: study.result(role, analysis).mean_frame))


def _scores_of(role: Role) -> Need:
    """The scores on random tokens that repeat."""
    return Need(role, HeadScoresAnalysis(), text="repeated")


def _ranking(study: Study, role: Role) -> list[Need]:
    """The results that all scores of one model's heads are read from."""
    of_text = _activity_analysis(study.request), HeadEntropyAnalysis()
    return [*(Need(role, each) for each in of_text), _scores_of(role)]


def _scored(study: Study, role: Role) -> Need:
    """The result that the score asked for is read from."""
    activity, entropy, scores = _ranking(study, role)
    return {"activity": activity, "entropy": entropy}.get(study.request.score, scores)


def _scores(study: Study) -> Drawn:
    """All scores of every head; the figure shows the one asked for."""
    score, request = study.request.score, study.request
    if score == "activity":
        figure = head_heatmap_figure(*results(study, _activity_analysis(request)))
    elif score == "entropy":
        figure = head_scores_figure(*results(study, HeadEntropyAnalysis()), by=score)
    else:
        found = [study.of(_scores_of(role)) for role in study.roles]
        figure = head_scores_figure(*found, by=score)

    def table(role: Role) -> pd.DataFrame:
        return heads_table(*(study.of(need) for need in _ranking(study, role)))

    frame = of_both(study, table)
    column = "active" if score == "activity" else score
    return Drawn(figure, frame.sort_values(column, ascending=False, kind="stable"))


def _depth(study: Study) -> Drawn:
    score = study.request.score
    found: dict[Role, Any] = {role: study.of(_scored(study, role)) for role in study.roles}
    figure = head_depth_figure(found["model"], found.get("baseline"), by=score)

    def table(role: Role) -> pd.DataFrame:
        frame = found[role].frame.rename(columns={"active": "activity"})
        return frame[["layer", "head", score]]

    return Drawn(figure, of_both(study, table))


def _composition(study: Study) -> Drawn:
    """What writes the inputs of one head."""
    found = study.of(_inputs(study))
    return Drawn(head_inputs_figure(found), found.frame)


def _inputs(study: Study) -> Need:
    """The inputs of the head asked for, or of the one with the highest induction score.

    Raises:
        ValueError: If the model has no such layer or head, or a head is given without its layer.
    """
    role, wanted = study.request.of, study.request.head
    if study.request.layer is not None:
        analysis = HeadInputsAnalysis(study.layer(role), study.head(role))
        return Need(role, analysis, most=INPUT_SEQUENCES)
    if wanted:
        raise ValueError(
            f"head_composition of head {wanted} needs its layer: give --layer too, or neither for "
            "the head with the highest induction score."
        )
    return Need(role, _InputsOfStrongest(), most=INPUT_SEQUENCES, after=_scores_of(role))


@dataclass(frozen=True)
class _InputsOfStrongest:
    """The inputs of the head with the highest induction score."""

    def given(self, result: HeadScores) -> HeadInputsAnalysis:
        scores: Any = result.frame
        layer, head = scores.loc[scores["induction"].idxmax(), ["layer", "head"]].astype(int)
        return HeadInputsAnalysis(int(layer), int(head))


def _maps(role: Role) -> Callable[[Study], Drawn]:
    def draw(study: Study) -> Drawn:
        pattern, layer = study.pattern(role), study.layer(role)
        texts, how = study.token_texts(role), _named(study, role)
        figure = attention_figure(pattern, texts, layer=layer, **how)
        return Drawn(figure, _seen(study, role, pattern.float().numpy(), layer))

    return draw


def _head(study: Study) -> Drawn:
    role = study.request.of
    layer, head = study.layer(role), study.head(role)
    pattern, texts = study.pattern(role)[head], study.token_texts(role)
    figure = pattern_figure(pattern, texts, layer=layer, head=head, **_named(study, role))
    frame = _seen(study, role, pattern[None].float().numpy(), layer)
    return Drawn(figure, frame.assign(head=head))


def _named(study: Study, role: Role) -> dict[str, Any]:
    """What a figure of attention says of a model: its name, and whether it sees what follows."""
    return {"model": study.name(role), "causal": "causal" in study.models[role].traits}


def _seen(
    study: Study, role: Role, pattern: Float32[np.ndarray, "head query key"], layer: int
) -> pd.DataFrame:
    """One row for each query and each key that it can see."""
    every, is_causal = np.ones_like(pattern), _named(study, role)["causal"]
    head, query, key = np.nonzero(np.tril(every) if is_causal else every)
    weight = pattern[head, query, key]
    columns = {"layer": layer, "head": head, "query": query, "key": key, "weight": weight}
    return pd.DataFrame(columns)


KINDS = (
    FigureKind(
        name="head_activity",
        title="Which heads are awake? (Fig. 8)",
        draw=_activity,
        needs=of_models(_activity_analysis),
        uses=(*SCOPED, *SINKS),
        modes=("overlay", "difference"),
        why_not={"side_by_side": "the heatmaps of all heads do that"},
        standard=True,
    ),
    FigureKind(
        name="head_activity_by_head",
        title="The same for each head",
        draw=_heads,
        needs=of_models(_activity_analysis),
        uses=(*SCOPED, *SINKS),
        why_not=NO_HEAD_AGAINST_HEAD,
        standard=True,
    ),
    FigureKind(
        name="sink_sensitivity",
        title="How much head activity depends on what counts as a sink",
        draw=_sensitivity,
        needs=of_models(lambda request: SinkSensitivityAnalysis(request.sinks)),
        uses=(*SCOPED, "sinks"),
        modes=("overlay",),
        why_not=ONE_PICTURE,
    ),
    FigureKind(
        name="head_scores",
        title="What the heads do: activity, entropy, and scores on repeated random tokens",
        draw=_scores,
        needs=lambda study: [need for role in study.roles for need in _ranking(study, role)],
        uses=(*SCOPED, *SINKS, "score"),
        why_not=NO_HEAD_AGAINST_HEAD,
    ),
    FigureKind(
        name="head_scores_by_depth",
        title="A score of the heads against depth, both models",
        draw=_depth,
        needs=lambda study: [_scored(study, role) for role in study.roles],
        uses=(*SCOPED, *SINKS, "score"),
        modes=("overlay",),
        why_not={**NO_HEAD_AGAINST_HEAD, "side_by_side": "the maps of all heads do that"},
    ),
    FigureKind(
        name="head_composition",
        title="What writes the inputs of a head, or of the strongest induction head",
        draw=_composition,
        needs=lambda study: [_inputs(study)],
        uses=(*SCOPED, "layer", "head"),
        why_not=NO_HEAD_AGAINST_HEAD,
        single=True,
    ),
    FigureKind(
        name="attention_maps",
        title="All heads of a layer on one sequence (Fig. 11)",
        draw=_maps("model"),
        uses=(*PROMPT, "layer"),
        why_not=NO_HEAD_AGAINST_HEAD,
        standard=True,
        requires=PATTERNS,
    ),
    FigureKind(
        name="attention_maps_baseline",
        title="The same in the baseline (Fig. 10)",
        draw=_maps("baseline"),
        uses=(*PROMPT, "layer"),
        why_not=NO_HEAD_AGAINST_HEAD,
        of_baseline=True,
        standard=True,
    ),
    FigureKind(
        name="attention_head",
        title="One head on one sequence",
        draw=_head,
        uses=(*PROMPT, "layer", "head"),
        why_not=NO_HEAD_AGAINST_HEAD,
        single=True,
        requires=PATTERNS,
    ),
)
