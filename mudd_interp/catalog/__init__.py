"""The figures by name: the command line, Python and the dashboard draw them through one function.

Each module holds the figures that answer one question; :data:`FIGURES` lists them all.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mudd_interp.axes import unknown_name
from mudd_interp.catalog import (
    attribution,
    edited,
    experiments,
    heads,
    interventions,
    losses,
    similarity,
    vision,
    weights,
)
from mudd_interp.catalog.kind import Drawn as Drawn
from mudd_interp.catalog.kind import FigureKind as FigureKind
from mudd_interp.checkpoints import load_model
from mudd_interp.edits import as_edits
from mudd_interp.protocol import HookedModel
from mudd_interp.request import ROLES, Request, command_line, python_lines
from mudd_interp.study import Study

FIGURES: dict[str, FigureKind] = {
    kind.name: kind
    for module in (
        losses,
        similarity,
        weights,
        heads,
        attribution,
        edited,
        interventions,
        vision,
        experiments,
    )
    for kind in module.KINDS
}
"""Every figure by name, in the order in which they are listed."""


def draw(name: str, **values: Any) -> Drawn:
    """Compute and draw one figure.

    Args:
        name: The figure, one of :data:`FIGURES`.
        **values: The fields of ``mudd_interp.request.Request``: models, text, prompt, place. A
            model itself may be given instead of its name: then it is not loaded again.

    Returns:
        The figure and its numbers, those of ``mudd-interp figures --only NAME``.

    Raises:
        ValueError: If there is no such figure, a value's name is unknown, a value is of another
            type or out of bounds, or it cannot be drawn from these values or of these models.
    """
    kind, given = find(name), dict[str, HookedModel]()
    for role in ROLES:
        if isinstance(model := values.get(role), HookedModel):
            values[role] = f"{model.info.name} ({role})"
            given[values[role]] = model
    request = Request.of_values(values)
    kind.check(request)
    return draw_kind(
        kind, Study(request, lambda name, **how: given.get(name) or load_model(name, **how))
    )


def draw_kind(kind: FigureKind, study: Study) -> Drawn:
    """Draw one figure of a study.

    Raises:
        ValueError: If it cannot be drawn from the study's request, or is not for its models.
    """
    kind.check(study.request)
    kind.check_models(study)
    study.prepare(kind.needs(study))
    with study.noting() as noted:
        drawn = kind.draw(study)
    return replace(drawn, computed_on=noted)


def find(name: str) -> FigureKind:
    """The figure of a name.

    Raises:
        ValueError: If there is none, with the nearest names.
    """
    if name not in FIGURES:
        raise ValueError(unknown_name("figure", name, FIGURES))
    return FIGURES[name]


def choose(
    names: Sequence[str], request: Request, study: Study | None = None
) -> tuple[FigureKind, ...]:
    """The figures of a list of names; for an empty list the standard ones that can be drawn.

    Args:
        names: The figures.
        request: What they are to be drawn from.
        study: Its study, where the models are loaded: then they too are asked.

    Raises:
        ValueError: If one is unknown, cannot be drawn from the request or is not for its models, or
            the edits are not valid, whether or not a figure uses them.
    """
    as_edits(request.edits or "")
    if not names:
        lacking = request.baseline is None
        standard = [kind for kind in FIGURES.values() if kind.standard]
        drawable = [kind for kind in standard if not (lacking and kind.of_baseline)]
        return tuple(kind for kind in drawable if study is None or kind.unfit(study) is None)
    kinds = tuple(find(name) for name in dict.fromkeys(names))
    for kind in kinds:
        kind.check(request)
        if study is not None:
            kind.check_models(study)
    return kinds


def shell_command(kind: FigureKind, request: Request) -> str:
    """The command that makes a figure and its numbers."""
    return command_line(kind.name, request, kind.depends_on(request))


def python_code(kind: FigureKind, request: Request) -> str:
    """The Python lines that make a figure and its numbers."""
    return python_lines(kind.name, request, kind.depends_on(request))
