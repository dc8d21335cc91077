"""What does each stream read?"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd

from mudd_interp.analysis import (
    DeltaWeightsAnalysis,
    DenseWeightsAnalysis,
    StreamMixingAnalysis,
    WeightDistributionAnalysis,
    counterpart,
    delta_difference,
    stream_weights,
    token_weights,
    token_weights_difference,
    weights_difference,
)
from mudd_interp.analysis.inputs import MIXING, NUMBERS, SEVERAL
from mudd_interp.catalog.kind import (
    ONE_PICTURE,
    PROMPT,
    SCOPED,
    USUAL_SOURCE,
    Drawn,
    FigureKind,
    of_both,
    of_models,
    results,
)
from mudd_interp.protocol import why_not
from mudd_interp.request import Mode, Request, Role
from mudd_interp.study import Need, Study
from mudd_interp.viz import (
    delta_difference_figure,
    delta_weights_figure,
    edge_distribution_figure,
    edge_figure,
    stream_mixing_figure,
    stream_weights_figure,
    token_weights_difference_figure,
    token_weights_figure,
    token_weights_limit,
    weights_difference_figure,
    weights_figure,
    weights_limit,
)

TRIANGLES: tuple[Mode, ...] = ("side_by_side", "overlay", "difference")
EDGE = ("layer", "stream", "source")


def _statistics(request: Request) -> tuple[Any, ...]:
    """The statistics of the weights over a text that are drawn.

    Raises:
        ValueError: If the request asks for what exists at one token only.
    """
    if request.statistic == "total":
        raise ValueError("total is the weight at one token: ask for the figure token_weights.")
    return ("mean", "std") if request.statistic is None else (request.statistic,)


def _dense_weights(study: Study) -> Drawn:
    request = study.request
    statistics, rectified = _statistics(request), not request.raw
    model, baseline = results(study, DenseWeightsAnalysis())
    if request.mode == "difference":
        figure = weights_difference_figure(model, baseline, rectified, statistics)
        return Drawn(figure, weights_difference(model, baseline, rectified))
    if request.mode == "overlay":
        figure = weights_figure(model, rectified, statistics, baseline=baseline)
        return Drawn(
            figure, of_both(study, lambda role: study.result(role, DenseWeightsAnalysis()).frame)
        )
    # The baseline is drawn on the model's scale.
    limit = None if request.of == "model" else weights_limit([model], rectified, statistics)
    shown = model if request.of == "model" else baseline
    return Drawn(weights_figure(shown, rectified, statistics, limit), shown.frame)


def _delta_weights(study: Study) -> Drawn:
    statistic = _delta_statistic(study.request)
    model, baseline = results(study, DeltaWeightsAnalysis())
    if study.request.mode == "difference":
        figure = delta_difference_figure(model, baseline, statistic)
        return Drawn(figure, delta_difference(model, baseline))
    table = of_both(study, lambda role: study.result(role, DeltaWeightsAnalysis()).frame)
    return Drawn(delta_weights_figure(model, baseline, statistic), table)


def _mixing(study: Study) -> list[Role]:
    """The model, and the baseline if it mixes streams too."""
    mixing: list[Role] = ["model"]
    if "baseline" in study.roles and why_not(study.models["baseline"], MIXING) is None:
        mixing.append("baseline")
    return mixing


def _stream_mixing(study: Study) -> Drawn:
    roles = _mixing(study)
    found = {role: study.result(role, StreamMixingAnalysis()) for role in roles}
    figure = stream_mixing_figure(found["model"], found.get("baseline"))
    return Drawn(figure, of_both(study, lambda role: found[role].frame, roles))


def _stream_weights(study: Study) -> Drawn:
    role = study.request.of
    found = study.of_prompt(role, stream_weights, position=study.position(role))
    return Drawn(stream_weights_figure(found), found.frame)


def _delta_statistic(request: Request) -> Any:
    """The statistic of W in the delta basis that is drawn.

    Raises:
        ValueError: If the request asks for what composed weights have not.
    """
    if request.statistic not in (None, "mean", "std"):
        raise ValueError(
            f"what is composed over all paths has no {request.statistic} part: choose mean or std."
        )
    return request.statistic or "mean"


def _fixed(**values: Any) -> Callable[[Study], Drawn]:
    """The dense weights with some values of the request fixed."""
    return lambda study: _dense_weights(study.with_request(replace(study.request, **values)))


def _token_statistic(request: Request) -> Any:
    """The part of the weights at a token that is drawn.

    Raises:
        ValueError: If the request asks for what exists over many tokens only.
    """
    if request.statistic in ("mean", "std"):
        raise ValueError(
            f"one token has no {request.statistic}: choose total, static or dynamic, or ask for "
            "the figure dense_weights."
        )
    return request.statistic or "total"


def _token_weights(study: Study) -> Drawn:
    request, position = study.request, study.position("model")
    statistic, rectified = _token_statistic(request), not request.raw
    found = {role: study.of_prompt(role, token_weights) for role in study.roles}
    model, baseline = found["model"], found.get("baseline")
    if baseline is not None and request.mode == "difference":
        figure = token_weights_difference_figure(model, baseline, position, statistic, rectified)
        return Drawn(figure, token_weights_difference(model, baseline, position, rectified))
    if request.mode == "overlay":
        figure = token_weights_figure(model, position, statistic, rectified, baseline=baseline)
        return Drawn(figure, of_both(study, lambda role: found[role].frame_at(position)))
    limit = None if request.of == "model" else token_weights_limit([model], statistic, rectified)
    shown, position = found[request.of], study.position(request.of)
    figure = token_weights_figure(shown, position, statistic, rectified, limit)
    return Drawn(figure, shown.frame_at(position))


def edge_place(study: Study, role: Role = "model") -> tuple[int, int]:
    """Row and source of the edge that is looked at; where none is asked for, those that are there.

    A stream may end before the usual layer, and a row need not read the usual source.
    """
    request, wiring = study.request, study.models[role].wiring
    stream = counterpart(request.stream, wiring.streams)
    layer = study.row(role)
    if request.layer is None:
        rows = [read.row for read in wiring.rows if read.stream == stream]
        layer = max((row for row in rows if row <= layer), default=rows[0])
    if request.source is not None:
        return layer, request.source
    read = wiring.columns(wiring.row(stream, layer))
    return layer, USUAL_SOURCE if USUAL_SOURCE in read else read[0]


def _edge(study: Study) -> Drawn:
    request, (layer, source) = study.request, edge_place(study)
    found = {role: study.of_prompt(role, token_weights) for role in study.roles}
    figure = edge_figure(
        found["model"],
        request.stream,
        layer,
        source,
        position=study.position("model"),
        rectified=not request.raw,
        baseline=found.get("baseline"),
    )

    def table(role: Role) -> pd.DataFrame:
        own = counterpart(request.stream, found[role].streams)
        return found[role].edge_frame(own, layer, source)

    return Drawn(figure, of_both(study, table))


def _edge_distribution(study: Study) -> Drawn:
    request = study.request
    place = (request.stream, *edge_place(study))
    distribution = study.result("model", WeightDistributionAnalysis())
    model, baseline = results(study, DenseWeightsAnalysis())
    figure = edge_distribution_figure(
        distribution, model, *place, rectified=not request.raw, baseline=baseline
    )

    def table(role: Role) -> pd.DataFrame:
        """The bins, and beside each the values that are lines in the figure."""
        own = counterpart(request.stream, study.models[role].wiring.streams)
        edge = study.result(role, DenseWeightsAnalysis()).edge(own, *place[1:])
        bins = study.result(role, WeightDistributionAnalysis()).edge_frame(own, *place[1:])
        return bins.assign(**edge)

    return Drawn(figure, of_both(study, table))


KINDS = (
    FigureKind(
        name="dense_weights",
        title="What each stream reads, rectified (Figs. 12, 13)",
        draw=_dense_weights,
        needs=of_models(DenseWeightsAnalysis()),
        uses=(*SCOPED, "statistic", "raw"),
        modes=TRIANGLES,
        single=True,
        standard=True,
    ),
    FigureKind(
        name="dense_weights_raw",
        title="The dense weights as they are",
        draw=_fixed(raw=True),
        needs=of_models(DenseWeightsAnalysis()),
        uses=(*SCOPED, "statistic"),
        modes=TRIANGLES,
        single=True,
        standard=True,
    ),
    FigureKind(
        name="dense_weights_baseline",
        title="The baseline as the degenerate case",
        draw=_fixed(of="baseline", mode="side_by_side"),
        needs=of_models(DenseWeightsAnalysis()),
        uses=(*SCOPED, "statistic", "raw"),
        why_not=dict.fromkeys(("overlay", "difference"), "it shows the baseline alone"),
        of_baseline=True,
        standard=True,
    ),
    FigureKind(
        name="delta_weights",
        title="What every sublayer reads of every sublayer, in any two architectures",
        draw=_delta_weights,
        needs=of_models(DeltaWeightsAnalysis()),
        uses=(*SCOPED, "statistic"),
        modes=("side_by_side", "difference"),
        why_not={"overlay": "one triangle would hide the other"},
    ),
    FigureKind(
        name="stream_mixing",
        title="Whether mixing washes the streams of hyper-connections out",
        draw=_stream_mixing,
        needs=lambda study: [Need(role, StreamMixingAnalysis()) for role in _mixing(study)],
        uses=SCOPED,
        modes=("overlay",),
        why_not=ONE_PICTURE,
    ),
    FigureKind(
        name="stream_weights",
        title="What passes through each stream of hyper-connections, at one token",
        draw=_stream_weights,
        uses=(*PROMPT, "position"),
        why_not=dict.fromkeys(
            ("overlay", "difference"), "streams of two models have only names in common"
        ),
        single=True,
        requires=NUMBERS | SEVERAL,
    ),
    FigureKind(
        name="token_weights",
        title="What each stream reads at one token",
        draw=_token_weights,
        uses=(*PROMPT, "position", "statistic", "raw"),
        modes=TRIANGLES,
        single=True,
    ),
    FigureKind(
        name="edge",
        title="The weight of one edge at every token of the prompt",
        draw=_edge,
        uses=(*PROMPT, *EDGE, "position", "raw"),
        modes=("overlay",),
        why_not=ONE_PICTURE,
    ),
    FigureKind(
        name="edge_distribution",
        title="The weight of one edge over a text",
        draw=_edge_distribution,
        needs=of_models(DenseWeightsAnalysis(), WeightDistributionAnalysis()),
        uses=(*SCOPED, *EDGE, "raw"),
        modes=("overlay",),
        why_not={
            "side_by_side": "a line in the picture is the baseline's weight, which is constant",
            "difference": "the baseline's weight is constant: subtract the line from all",
        },
    ),
)
