"""One run over a text: everything that the pages average over it, and the losses of both models.

It runs in the script of a session, and ends between two batches when something is clicked, because
Streamlit then raises in the progress bar. Its state is in a :class:`Run`, which is changed in
place: so the next script finds out how far it came.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import streamlit as st
from streamlit.runtime.scriptrunner_utils.script_run_context import get_run_yield_check

import caches
import state
from mudd_interp.catalog import FIGURES, FigureKind
from mudd_interp.data import Batches, count_sequences
from mudd_interp.files import sha256
from mudd_interp.request import Request, Role, canonical
from mudd_interp.study import Need, Study
from progress import bar
from shelf import Entry

FIELDS = (
    "model",
    "baseline",
    "text",
    "dataset",
    "dataset_config",
    "split",
    "column",
    "sequences",
    "context",
    "dtype",
    "device",
    "sinks",
    "sink_positions",
)
"""The values of a view that make the results of a run."""


@dataclass(frozen=True)
class Goal:
    """What a part of a run finds.

    Attributes:
        name: What it finds.
        needs: Its results.
        keys: Theirs.
    """

    name: str
    needs: tuple[Need, ...]
    keys: tuple[str, ...]


@dataclass
class Run:
    """How far a run is.

    Attributes:
        title: What it is a run of.
        stage: ``asked`` until it begins; one that a later script finds ``running`` was stopped.
        sequences: How many were seen, over all walks.
        total: How many there are.
        message: What went wrong.
        besides: Costly figures whose results are computed too.
    """

    title: str
    stage: Literal["asked", "running", "done"] = "asked"
    sequences: int = 0
    total: int = 0
    message: str = ""
    besides: Collection[str] = ()


def of_corpus(request: Request) -> Request:
    """The request with averages over the text, whatever the other pages average over."""
    return replace(request, scope="corpus")


def goals(study: Study, besides: Collection[str] = ()) -> list[Goal]:
    """The goals of a run: all that any figure averages for each model, and the losses.

    Args:
        study: What the run is of.
        besides: Costly figures, of :func:`costly`, whose results are computed too.
    """
    needs = [need for kind in FIGURES.values() for need in _needs(kind, study)]
    averages = [need for need in needs if need.most is None and need.text == "scope"]
    found = [
        _goal(study, f"the averages of {study.name(role)}", of_role(averages, role))
        for role in study.roles
    ]
    if _needs(FIGURES["loss_comparison"], study):
        found.append(_goal(study, "the losses of both", [study.comparison()]))
    found += [_goal(study, FIGURES[name].title, _needs(FIGURES[name], study)) for name in besides]
    return found


def costly(study: Study) -> list[str]:
    """Those figures that can be drawn and run a model many times for each sequence."""
    kinds = FIGURES.values()
    return [kind.name for kind in kinds if any(need.most for need in _needs(kind, study))]


def _needs(kind: FigureKind, study: Study) -> Sequence[Need]:
    """What a figure is drawn from; nothing if it cannot be drawn for this view."""
    try:
        of_any_mode = study.with_request(replace(study.request, mode=None))
        kind.check(of_any_mode.request)
        kind.check_models(of_any_mode)
        return kind.needs(study)
    except ValueError:
        return ()


def of_role(needs: Iterable[Need], role: Role) -> list[Need]:
    """Those of one model."""
    return [need for need in needs if need.role == role]


def _goal(study: Study, name: str, needs: Iterable[Need]) -> Goal:
    by_key = {study.key(need): need for need in needs}
    return Goal(name, tuple(by_key.values()), tuple(by_key))


def missing(study: Study, plan: Sequence[Goal]) -> list[Goal]:
    """The goals that lack a result."""
    return [each for each in plan if len(study.found(each.keys)) < len(each.keys)]


def name_of(plan: Sequence[Goal]) -> str:
    """The name under which a run is kept: a sha256."""
    return sha256(canonical([each.keys for each in plan]).encode())


def are_kept(plan: Sequence[Goal]) -> bool:
    """Whether all results are on disk."""
    keys = {key for each in plan for key in each.keys}
    return any(keys == entry.files.keys() for entry in caches.shelf().entries()[0])


def can_be_kept(study: Study) -> bool:
    """Whether results can be found again: weights without a digest may differ next time."""
    return all(model.info.digest for model in study.models.values())


def go(request: Request, run: Run) -> None:
    """Compute what is missing, goal by goal, and keep it after each; what fails is in ``run``."""
    with caches.failing(partial(setattr, run, "message")):
        _go(request, run)
    run.stage = "done"


def _go(request: Request, run: Run) -> None:
    study = caches.study(request)
    plan = goals(study, run.besides)
    with st.spinner("Counting the sequences"):
        run.total = _to_see(study, missing(study, plan))

    with bar(lambda: run.total, state.plain(run.title)) as report:

        def saw(sequences: int, tokens: int) -> None:
            run.sequences = sequences
            report(sequences, tokens)

        study = caches.study(request, saw)
        for each in plan:
            study.prepare(each.needs)
            if can_be_kept(study):
                _keep(study, plan, run)


def _to_see(study: Study, todo: Iterable[Goal]) -> int:
    """How many sequences the walks of some goals see; each text is counted once."""
    counts: dict[tuple[Role, int | None], int] = {}
    total = 0
    for each in todo:
        for walk in study.walks(each.needs):
            need = next(iter(walk.values()))
            text = need.role, need.most
            if text not in counts:
                counts[text] = count_sequences(_endable(study.walked(need)))
            total += counts[text]
    return total


def _endable(batches: Batches) -> Batches:
    """The same batches; a script that nobody waits for ends between two of them."""

    def walk() -> Iterator[Any]:
        stop = get_run_yield_check() or (lambda: None)
        for batch in batches:
            stop()
            yield batch

    return replace(batches, source=walk)


def _keep(study: Study, plan: Sequence[Goal], run: Run) -> None:
    """Write what is finished to the disk; if that fails, it is still in memory."""
    finished = [each for each in plan if each not in missing(study, plan)]
    view = {name: value for name, value in state.view().items() if name in FIELDS}
    try:
        caches.shelf().keep(
            name_of(plan),
            study.found(key for each in finished for key in each.keys),
            state.encode(state.default_view() | view),
            [study.name(role) for role in study.roles],
            [each.name for each in finished],
        )
    except OSError as error:
        run.message = f"The results are there, but they cannot be kept on disk: {error}."


def open_view(entry: Entry) -> None:
    """Set the view to that of a kept run: its models, text and sequences."""
    view = state.decode(entry.link).view
    state.put(**{name: view[name] for name in FIELDS})
