"""What every figure of the catalog says of itself."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from mudd_interp.analysis import Analysis, Provenance
from mudd_interp.protocol import Trait, why_not
from mudd_interp.request import Mode, Request, Role
from mudd_interp.study import Need, Study

MODELS = ("model", "baseline", "dtype", "device")
TEXT = (
    "text",
    "dataset",
    "dataset_config",
    "split",
    "column",
    "sequences",
    "context",
    "batch_size",
    "images",
    "resize",
)
PROMPT = ("prompt", "prompt_ids", "image", *TEXT)
"""Without a prompt the first tokens of the text stand in for one."""
SCOPED = ("scope", *PROMPT)

USUAL_SOURCE = 1
"""The earlier output that is looked at if none is asked for: the first block's."""

ONE_PICTURE: dict[Mode, str] = {
    "side_by_side": "both models are in one picture",
    "difference": "it is the distance of the two curves",
}
"""Why curves of two models are drawn in one way only."""


@dataclass(frozen=True)
class Drawn:
    """A figure and the numbers behind it.

    Attributes:
        figure: A Plotly figure.
        frame: A tidy table.
        computed_on: The provenance of each text that the numbers are of, by model.
    """

    figure: Any
    frame: pd.DataFrame
    computed_on: Mapping[Role, Sequence[Provenance]] = field(
        default_factory=dict[Role, Sequence[Provenance]]
    )


Needs = Callable[[Study], Sequence[Need]]
"""The results of walks that a figure is drawn from."""


def of_models(*analyses: Analysis[Any] | Callable[[Request], Analysis[Any]]) -> Needs:
    """Analyses of every model; one that depends on the request is given as a function of it."""

    def needs(study: Study) -> list[Need]:
        made = [each if isinstance(each, Analysis) else each(study.request) for each in analyses]
        return [Need(role, each) for role in study.roles for each in made]

    return needs


def _nothing(_: Study) -> Sequence[Need]:
    return ()


@dataclass(frozen=True, eq=False, kw_only=True)
class FigureKind:
    """One figure that can be drawn of a study.

    Attributes:
        name: By which it is asked for; the stem of its files.
        title: What it shows, with the paper's figure.
        draw: Makes it.
        needs: All walks that it reads, so that several figures share one, and none begins unasked.
        uses: The values of a request that it depends on, besides the models.
        modes: How it can show two models, its own way first.
        why_not: Why it cannot be drawn in another mode.
        single: Whether side by side it shows one of the models, the request's ``of``.
        of_baseline: Whether there must be a baseline.
        of_prompt: Whether it shows the prompt, and averages over the scope's text besides.
        standard: Whether it is made when no figure is named.
        requires: What it requires of a model, besides what the analyses of ``needs`` do.
        of_models: Whether it is of the request's models, and not of results that ship.
    """

    name: str
    title: str
    draw: Callable[[Study], Drawn]
    needs: Needs = _nothing
    uses: tuple[str, ...]
    modes: tuple[Mode, ...] = ("side_by_side",)
    why_not: Mapping[Mode, str] = field(default_factory=dict[Mode, str])
    single: bool = False
    of_baseline: bool = False
    of_prompt: bool = False
    standard: bool = False
    requires: frozenset[Trait] = frozenset()
    of_models: bool = True

    def depends_on(self, request: Request) -> tuple[str, ...]:
        """Values of a request that change the figure: an average over a corpus has no prompt."""
        of = ("of",) if self.single else ()
        mode = ("mode",) if len(self.modes) > 1 else ()
        averaged = "scope" in self.uses and request.scope == "corpus" and not self.of_prompt
        unused = ("prompt", "prompt_ids", "image") if averaged else ()
        models = MODELS if self.of_models else ()
        return tuple(n for n in (*models, *self.uses, *mode, *of) if n not in unused)

    def mode(self, request: Request) -> Mode:
        """How two models share the figure.

        Raises:
            ValueError: If the request asks for a mode in which it cannot be drawn.
        """
        mode = self.modes[0] if request.mode is None else request.mode
        if mode not in self.modes:
            reason = self.why_not.get(mode, f"it can be {' or '.join(self.modes)}")
            raise ValueError(f"{self.name} cannot be drawn in mode {mode}: {reason}.")
        return mode

    def check(self, request: Request) -> None:
        """Refuse a request that the figure cannot be drawn from.

        Raises:
            ValueError: If it needs a baseline and there is none, or the mode is not one of its.
        """
        lacking = request.baseline is None
        if lacking and (self.of_baseline or self.mode(request) == "difference"):
            raise ValueError(f"{self.name} needs a baseline: name one with --baseline.")
        if lacking and self.single and request.of == "baseline":
            raise ValueError(f"{self.name} of the baseline needs one: name it with --baseline.")
        self.mode(request)

    def unfit(self, study: Study) -> str | None:
        """Why it cannot be drawn of a study's models, in one sentence; ``None`` where it can."""
        asked = study.request.mode
        mode = asked if asked in self.modes else self.modes[0]
        alone = self.single and mode == "side_by_side"
        roles = (study.request.of,) if alone else study.roles
        reason = _reason(study, [(role, self.requires) for role in roles])
        if reason is None:  # what is needed can be asked only of a model that it is for
            reason = _reason(study, _required(self.needs(study)))
        return None if reason is None else f"{self.name} is {reason}."

    def check_models(self, study: Study) -> None:
        """Refuse models that the figure is not for.

        Raises:
            ValueError: If a model lacks what the figure, or an analysis that it needs, requires.
        """
        reason = self.unfit(study)
        if reason is not None:
            raise ValueError(reason)


def _required(needs: Iterable[Need]) -> Iterator[tuple[Role, frozenset[Trait]]]:
    """What the analyses of needs require, and of which model."""
    for need in needs:
        if need.after is not None:
            yield from _required([need.after])
        if isinstance(need.analysis, Analysis):
            yield need.role, need.analysis.required


def _reason(study: Study, required: Iterable[tuple[Role, frozenset[Trait]]]) -> str | None:
    reasons = (why_not(study.models[role], traits) for role, traits in required)
    return next((reason for reason in reasons if reason is not None), None)


def of_both(
    study: Study, frame: Callable[[Role], pd.DataFrame], roles: Iterable[Role] | None = None
) -> pd.DataFrame:
    """One table of both models, or of one of them, the model's name in front."""
    roles = study.roles if roles is None else roles
    tables = [frame(role).assign(model=study.name(role)) for role in roles]
    table = pd.concat(tables, ignore_index=True)
    return table.reindex(columns=["model", *tables[0].columns.drop("model")])


def results(study: Study, analysis: Analysis[Any]) -> tuple[Any, Any]:
    """An analysis of the model, and of the baseline or ``None``."""
    found = [study.result(role, analysis) for role in study.roles]
    return found[0], found[1] if len(found) > 1 else None
