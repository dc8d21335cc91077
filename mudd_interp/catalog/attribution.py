"""What wrote this prediction, and by which route?"""

from typing import Any

from mudd_interp.analysis import (
    check_same_vocabulary,
    direct_logit_attribution,
    logit_lens,
    path_coefficients,
    routes,
    stream_decomposition,
)
from mudd_interp.analysis.inputs import NEXT_TOKEN, SEVERAL, STATES
from mudd_interp.axes import Stream
from mudd_interp.catalog.kind import PROMPT, USUAL_SOURCE, Drawn, FigureKind, of_both
from mudd_interp.request import Mode, Role
from mudd_interp.study import Study
from mudd_interp.viz import (
    logit_attribution_figure,
    logit_lens_figure,
    path_coefficients_figure,
    routes_figure,
    stream_decomposition_figure,
    stream_lens_figure,
)

NO_LAYER_AGAINST_LAYER: dict[Mode, str] = {
    "difference": "a component of one model does not do what its namesake in the other does",
    "overlay": "one picture would hide the other",
}


def _attribution(study: Study) -> Drawn:
    """Both models on one token: if none is asked for, the one that the model expects most."""
    request = study.request
    options: dict[str, Any] = {"answer": request.answer, "against": request.against}
    found = {"model": _attributed(study, "model", options)}
    if "baseline" in study.roles:
        if request.answer is None:
            check_same_vocabulary(study.models["model"], study.models["baseline"])
            options["answer"] = found["model"].answer_id
        found["baseline"] = _attributed(study, "baseline", options)
    figure = logit_attribution_figure(found["model"], found.get("baseline"))
    return Drawn(figure, of_both(study, lambda role: found[role].divisions))


def _attributed(study: Study, role: Role, options: dict[str, Any]) -> Any:
    position = study.position(role)
    return study.of_prompt(role, direct_logit_attribution, position=position, **options)


def _path_coefficients(study: Study) -> Drawn:
    role = study.request.of
    found, position = study.of_prompt(role, path_coefficients), study.position(role)
    figure = path_coefficients_figure(found, position, rectified=not study.request.raw)
    return Drawn(figure, found.frame_at(position))


def _place(study: Study, role: Role) -> dict[str, Any]:
    """Block and stream that are looked at; the block behind the last one is the final norm."""
    layer = study.block(role)
    final: Stream = "r"
    is_final = layer == study.models[role].cfg.n_layers
    return {"layer": layer, "stream": final if is_final else study.request.stream}


def _stream_decomposition(study: Study) -> Drawn:
    found = {
        role: study.of_prompt(role, stream_decomposition, **_place(study, role))
        for role in study.roles
    }
    position = study.position("model")
    figure = stream_decomposition_figure(found["model"], position, found.get("baseline"))
    frame = of_both(study, lambda role: found[role].divisions_at(study.position(role)))
    return Drawn(figure, frame)


def _routes(study: Study) -> Drawn:
    role, given = study.request.of, study.request.source
    source = USUAL_SOURCE if given is None else given
    place, position = _place(study, role), study.position(role)
    found = study.of_prompt(role, routes, source=source, position=position, **place)
    return Drawn(routes_figure(found), found.frame)


def _lens(study: Study) -> Drawn:
    found = {role: study.of_prompt(role, logit_lens) for role in study.roles}
    figure = logit_lens_figure(found["model"], study.position("model"), found.get("baseline"))
    return Drawn(figure, of_both(study, lambda role: found[role].frame))


def _stream_lens(study: Study) -> Drawn:
    role = study.request.of
    found = study.of_prompt(role, logit_lens)
    frame: Any = found.frame
    shown = frame[frame["kind"].isin(found.carried)].reset_index(drop=True)
    return Drawn(stream_lens_figure(found, study.position(role)), shown)


KINDS = (
    FigureKind(
        name="logit_attribution",
        title="What wrote this prediction: components and heads",
        draw=_attribution,
        uses=(*PROMPT, "position", "answer", "against"),
        why_not=NO_LAYER_AGAINST_LAYER,
        requires=NEXT_TOKEN,
    ),
    FigureKind(
        name="path_coefficients",
        title="How much of each component is in each stream, over all paths",
        draw=_path_coefficients,
        uses=(*PROMPT, "position", "raw"),
        why_not=NO_LAYER_AGAINST_LAYER,
        single=True,
    ),
    FigureKind(
        name="stream_decomposition",
        title="What one stream of a block is made of",
        draw=_stream_decomposition,
        uses=(*PROMPT, "position", "block", "layer", "stream"),
        why_not=NO_LAYER_AGAINST_LAYER,
    ),
    FigureKind(
        name="routes",
        title="The strongest routes from a component to a stream",
        draw=_routes,
        uses=(*PROMPT, "position", "block", "layer", "stream", "source"),
        why_not=NO_LAYER_AGAINST_LAYER,
        single=True,
        requires=STATES,
    ),
    FigureKind(
        name="logit_lens",
        title="What every output would predict",
        draw=_lens,
        uses=(*PROMPT, "position"),
        why_not=NO_LAYER_AGAINST_LAYER,
        requires=NEXT_TOKEN,
    ),
    FigureKind(
        name="stream_lens",
        title="What each stream of hyper-connections would predict by itself",
        draw=_stream_lens,
        uses=(*PROMPT, "position"),
        why_not=NO_LAYER_AGAINST_LAYER,
        single=True,
        requires=NEXT_TOKEN | SEVERAL,
    ),
)
