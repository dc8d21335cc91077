"""One run over a text: everything that the pages average over it, and the losses of both models.

It goes on in the script of a session, and ends between two batches when something is clicked, for
then Streamlit raises in the progress bar. What it says of itself is in a :class:`Run`, which is
changed in place: so the next script finds how far it came.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import streamlit as st
from streamlit.runtime.scriptrunner_utils.script_run_context import get_run_yield_check

import caches
import state
from mudd_interp.catalog import FIGURES
from mudd_interp.data import Batches, count_sequences
from mudd_interp.files import sha256
from mudd_interp.request import Part, Request, canonical
from mudd_interp.study import Study
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
class Pass:
    """One pass over the text.

    Attributes:
        name: What it finds.
        part: In whose tokens the text is read.
        keys: Those of its results.
        start: Computes what is missing of them.
    """

    name: str
    part: Part
    keys: tuple[str, ...]
    start: Callable[[], Any]


@dataclass
class Run:
    """How far a run is.

    Attributes:
        title: Of what it is.
        stage: ``asked`` until it begins; one that a later script finds ``running`` was stopped.
        sequences: How many were seen, over all passes.
        total: How many there are.
        message: What went wrong.
    """

    title: str
    stage: Literal["asked", "running", "done"] = "asked"
    sequences: int = 0
    total: int = 0
    message: str = ""


def of_corpus(request: Request) -> Request:
    """The request with averages over the text, whatever the other pages average over."""
    return replace(request, scope="corpus")


def passes(study: Study) -> list[Pass]:
    """The passes of a run: all that any figure averages for each model, and the losses."""
    needs = [each for kind in FIGURES.values() for each in kind.needs(study.request)]
    found = [
        Pass(
            f"the averages of {study.name(part)}",
            part,
            tuple(dict.fromkeys(study.result_key(part, each) for each in needs)),
            partial(study.prepare, needs, [part]),
        )
        for part in study.parts
    ]
    if "baseline" in study.parts:
        keys = (study.comparison_key(),)
        found.append(Pass("the losses of both", "model", keys, study.comparison))
    return found


def missing(study: Study, plan: Sequence[Pass]) -> list[Pass]:
    """The passes whose results are not all there."""
    return [each for each in plan if len(study.found(each.keys)) < len(each.keys)]


def name_of(plan: Sequence[Pass]) -> str:
    """The name under which a run is kept: a sha256."""
    return sha256(canonical([each.keys for each in plan]).encode())


def are_kept(plan: Sequence[Pass]) -> bool:
    """Whether all results are on disk."""
    keys = {key for each in plan for key in each.keys}
    return any(keys == entry.files.keys() for entry in caches.shelf().entries()[0])


def can_be_kept(study: Study) -> bool:
    """Whether results can be found again: weights without a digest may be others next time."""
    return all(model.info.digest for model in study.models.values())


def go(request: Request, run: Run) -> None:
    """Compute what is missing, pass by pass, and keep it after each; what fails is in ``run``."""
    with caches.failing(partial(setattr, run, "message")):
        _go(request, run)
    run.stage = "done"


def _go(request: Request, run: Run) -> None:
    study = caches.study(request)
    plan = passes(study)
    todo = missing(study, plan)
    with st.spinner("Counting the sequences"):
        parts: set[Part] = {each.part for each in todo}
        counts = {part: count_sequences(_endable(study.batches(part))) for part in parts}
        run.total = sum(counts[each.part] for each in todo)

    with bar(lambda: run.total, state.plain(run.title)) as report:

        def saw(sequences: int, tokens: int) -> None:
            run.sequences = sequences
            report(sequences, tokens)

        study = caches.study(request, saw)
        for each in passes(study):
            each.start()
            if can_be_kept(study):
                _keep(study, plan, run)


def _endable(batches: Batches) -> Batches:
    """The same batches; a script that nobody waits for ends between two of them."""

    def walk() -> Iterator[Any]:
        stop = get_run_yield_check() or (lambda: None)
        for batch in batches:
            stop()
            yield batch

    return replace(batches, source=walk)


def _keep(study: Study, plan: Sequence[Pass], run: Run) -> None:
    """Write what is finished to the disk; where that fails, it is in memory all the same."""
    finished = [each for each in plan if each not in missing(study, plan)]
    view = {name: value for name, value in state.view().items() if name in FIELDS}
    try:
        caches.shelf().keep(
            name_of(plan),
            study.found(key for each in finished for key in each.keys),
            state.encode(state.default_view() | view),
            [study.name(part) for part in study.parts],
            [each.name for each in finished],
        )
    except OSError as error:
        run.message = f"The results are there, but they cannot be kept on disk: {error}."


def open_view(entry: Entry) -> None:
    """Make the view that of a kept run: its models, text and sequences."""
    view = state.decode(entry.link).view
    state.put(**{name: view[name] for name in FIELDS})
