"""What do the paper's ablations and scaling curves come to at a small size?

These are drawn from results that ship, whatever the models of the request.
"""

from typing import Any

from mudd_interp.catalog.kind import Drawn, FigureKind
from mudd_interp.experiments.gaps import ladder_table, zoo_table
from mudd_interp.experiments.scaling import scaling_table
from mudd_interp.experiments.tables import Tables, read_tables
from mudd_interp.request import Mode
from mudd_interp.study import Study
from mudd_interp.viz import ladder_figure, scaling_figure, zoo_figure


def _ladder(_: Study) -> Drawn:
    tables = read_tables()
    table = ladder_table(tables)
    return Drawn(ladder_figure(table, _source(tables)), table)


def _scaling(_: Study) -> Drawn:
    tables = read_tables()
    table = scaling_table(tables)
    return Drawn(scaling_figure(table, _source(tables)), table)


def _zoo(_: Study) -> Drawn:
    tables = read_tables()
    table = zoo_table(tables)
    return Drawn(zoo_figure(table, _source(tables)), table)


def _source(tables: Tables) -> str:
    """What the numbers are of."""
    tokens: Any = tables.files["tokens"]
    devices = ", ".join(sorted(set(tables.runs["device"]))) or "none"
    return (
        f"{len(tables.runs)} training runs (devices: {devices}) on Python sources, vocabulary of "
        f"4,096; {int(tokens.sum()):,} held-out tokens of "
        f"{len(tables.files)} files"
    )


_WHY_NOT: dict[Mode, str] = {
    "overlay": "it is of training runs, not of the two models",
    "difference": "it is of training runs, not of the two models",
}

KINDS = (
    FigureKind(
        name="ladder",
        title="Table 5: what each step from Transformer++ to MUDDFormer is worth, ours and theirs",
        draw=_ladder,
        uses=(),
        why_not=_WHY_NOT,
        of_models=False,
    ),
    FigureKind(
        name="scaling",
        title="Figures 3 and 5: loss against compute, and the compute that MUDD is worth",
        draw=_scaling,
        uses=(),
        why_not=_WHY_NOT,
        of_models=False,
    ),
    FigureKind(
        name="zoo",
        title="What relatives of MUDDFormer are worth: DenseFormer, mHC, Attention Residuals",
        draw=_zoo,
        uses=(),
        why_not=_WHY_NOT,
        of_models=False,
    ),
)
