"""What do the paper's ablations and scaling curves come to at a small size?

These are drawn from results that ship, whatever the models of the request.
"""

from collections.abc import Callable
from typing import Any

import pandas as pd

from mudd_interp.catalog.kind import Drawn, FigureKind
from mudd_interp.experiments.gaps import ladder_table, zoo_table
from mudd_interp.experiments.scaling import scaling_table
from mudd_interp.experiments.tables import Tables, read_tables
from mudd_interp.request import Mode
from mudd_interp.study import Study
from mudd_interp.viz import ladder_figure, scaling_figure, zoo_figure


def _drawn_of(
    table_of: Callable[[Tables], pd.DataFrame], figure: Callable[[pd.DataFrame, str], Any]
) -> Callable[[Study], Drawn]:
    """Draws a table of the results that ship."""

    def draw(_: Study) -> Drawn:
        tables = read_tables()
        table = table_of(tables)
        return Drawn(figure(table, _source(tables)), table)

    return draw


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
        draw=_drawn_of(ladder_table, ladder_figure),
        uses=(),
        why_not=_WHY_NOT,
        of_models=False,
    ),
    FigureKind(
        name="scaling",
        title="Figures 3 and 5: loss against compute, and the compute that MUDD is worth",
        draw=_drawn_of(scaling_table, scaling_figure),
        uses=(),
        why_not=_WHY_NOT,
        of_models=False,
    ),
    FigureKind(
        name="zoo",
        title="What relatives of MUDDFormer are worth: DenseFormer, mHC, Attention Residuals",
        draw=_drawn_of(zoo_table, zoo_figure),
        uses=(),
        why_not=_WHY_NOT,
        of_models=False,
    ),
)
