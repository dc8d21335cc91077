"""Gaps between rungs: how large, how sure over seeds and over files, and beside the paper's."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float64

from mudd_interp.experiments.plan import Run
from mudd_interp.experiments.rungs import RUNGS, ZOO
from mudd_interp.experiments.student import t_quantile, t_two_sided
from mudd_interp.experiments.tables import FIRST_OF_BIN, Tables, planned
from mudd_interp.training.evaluate import paired_bootstrap

CONTRASTS = (
    ("plain", "static"),
    ("static", "dynamic"),
    ("static", "multiway-static"),
    ("dynamic", "multiway-dynamic"),
    ("multiway-dynamic", "muddformer"),
    ("muddformer", "without-q"),
    ("muddformer", "without-k"),
    ("muddformer", "without-v"),
    ("muddformer", "without-r"),
    ("plain", "plain-realloc"),
)
"""The steps of Table 5, from one rung to another, over which Holm's procedure is."""

BESIDES = (("plain", "muddformer"), ("without-k", "without-q"), ("without-r", "without-v"))
"""The whole way, and two comparisons of single ways; each stands by itself."""

ZOO_PAIRS = (
    *(("plain", rung) for rung in ZOO if rung != "plain"),
    *((ZOO[1], rung) for rung in ZOO[2:]),
)
"""Each relative against the plain model, and against MUDDFormer without re-allocation."""

COLUMNS = ["quantity", "of", "source", "seeds", "position", "value", "low", "high", "note"]
_PAIRS = (*CONTRASTS, *BESIDES)

LEVEL = 0.05
PAPER = "paper, 405M"
LADDERS = ("ladder", "ladder-128")
_ROUNDING = 0.005  # of a printed perplexity

Row = dict[str, object]
"""A row of a table."""


@dataclass(frozen=True)
class Gap:
    """A difference of losses, second rung minus first, paired by seed.

    Attributes:
        mean: Over the seeds, in nats per token; negative where the second is better.
        half_width: Of its 95% interval (Student's t over the seeds).
        p: Two-sided, for no difference.
        seeds: How many.
    """

    mean: float
    half_width: float
    p: float
    seeds: int


def paired_gap(differences: Float64[np.ndarray, " seed"]) -> Gap:
    """The gap that differences of two or more seeds show.

    Raises:
        ValueError: If there are fewer.
    """
    n = len(differences)
    if n < 2:
        raise ValueError(f"an interval over seeds needs two or more, got {n}.")
    mean, error = float(differences.mean()), float(differences.std(ddof=1)) / math.sqrt(n)
    p = t_two_sided(mean / error, n - 1) if error > 0 else float(mean == 0)
    return Gap(mean, t_quantile(1 - LEVEL / 2, n - 1) * error, p, n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the given order: as sure as the whole family."""
    order, largest = np.argsort(p_values, kind="stable"), 0.0
    adjusted = [0.0] * len(p_values)
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def title(pair: tuple[str, str]) -> str:
    """A contrast in words: ``Transformer++ → + static``."""
    return " → ".join(RUNGS[rung].title for rung in pair)


def paper_gap(pair: tuple[str, str]) -> tuple[float, float, float]:
    """The paper's gap in nats, and the lowest and highest that its rounded perplexities allow."""
    before, after = (RUNGS[rung].paper for rung in pair)
    assert before is not None
    assert after is not None
    ratios = (
        after / before,
        (after - _ROUNDING) / (before + _ROUNDING),
        (after + _ROUNDING) / (before - _ROUNDING),
    )
    gap, low, high = map(math.log, ratios)
    return gap, low, high


def ladder_table(tables: Tables) -> pd.DataFrame:
    """The paper's gaps and ours, with what goes with them.

    Returns:
        Columns ``quantity``, ``of`` (a contrast or a rung), ``source``, ``seeds``, ``position``,
        ``value``, ``low``, ``high`` and ``note``. Quantities: ``gap`` in nats, wherever two seeds
        or more have both rungs, with its 95% interval (Student's t over seeds; of the paper, what
        rounding allows) and a verdict in words; ``gap, files`` with that of held-out files drawn
        anew, the seeds as they are; ``gap by position``, of a rung and Transformer++, from a
        position to twice as far, and ``induction``, the largest score of a head, 0..1: both with
        the least and the largest of the seeds.
    """
    rows = [_row("gap", title(pair), PAPER, 1, paper_gap(pair), "one seed") for pair in _PAIRS]
    for name in LADDERS:
        if runs := planned(name, tables):
            rows += _gaps(runs, tables) + _positions(runs, tables) + _scores(runs, tables)
    return pd.DataFrame(rows, columns=COLUMNS)


def zoo_table(tables: Tables) -> pd.DataFrame:
    """What each relative of MUDDFormer is worth, against two models with the same FFN widths.

    These are Transformer++, and MUDDFormer without re-allocation.

    Returns:
        The columns of :func:`ladder_table`; ``source`` says what its interval is over: the paired
        seeds, where there are two or more, or the held-out files, the seeds as they are.
    """
    runs, rows = planned("zoo", tables), list[Row]()
    for pair in ZOO_PAIRS:
        if both := _paired(runs, pair):
            rows += _zoo_gaps(pair, both, tables)
    rows += _positions(runs, tables) + _scores(runs, tables)
    return pd.DataFrame(rows, columns=COLUMNS)


def _zoo_gaps(
    pair: tuple[str, str], both: Sequence[tuple[Run, Run]], tables: Tables
) -> Iterator[Row]:
    loss, (before, after) = tables.by_run("loss"), zip(*both, strict=True)
    where = before[0].size.name
    if len(both) > 1:
        gap = paired_gap(np.array([loss[b.name] - loss[a.name] for a, b in both]))
        over_seeds = gap.mean, gap.mean - gap.half_width, gap.mean + gap.half_width
        note = f"p = {gap.p:.2g}, alone"
        yield _row("gap", title(pair), f"{where}, over seeds", len(both), over_seeds, note)
    files = paired_bootstrap(tables.losses(after), tables.losses(before))
    over_files = files.difference, files.low, files.high
    yield _row("gap", title(pair), f"{where}, over files", len(both), over_files, "")


def _gaps(runs: Sequence[Run], tables: Tables) -> list[Row]:
    loss, found = tables.by_run("loss"), dict[tuple[str, str], Gap]()
    for pair in _PAIRS:
        both = _paired(runs, pair)
        if len(both) > 1:
            differences = [loss[after.name] - loss[before.name] for before, after in both]
            found[pair] = paired_gap(np.array(differences))
    family = [pair for pair in CONTRASTS if pair in found]
    adjusted = dict(zip(family, holm([found[pair].p for pair in family]), strict=True))
    rows = list[Row]()
    for pair, gap in found.items():
        before, after = zip(*_paired(runs, pair), strict=True)
        files = paired_bootstrap(tables.losses(after), tables.losses(before))
        over_seeds = gap.mean, gap.mean - gap.half_width, gap.mean + gap.half_width
        over_files = files.difference, files.low, files.high
        verdict, where = _verdict(pair, gap, adjusted.get(pair)), runs[0].size.name
        rows.append(_row("gap", title(pair), where, gap.seeds, over_seeds, verdict))
        rows.append(_row("gap, files", title(pair), where, gap.seeds, over_files, ""))
    return rows


def _paired(runs: Sequence[Run], pair: tuple[str, str]) -> list[tuple[Run, Run]]:
    """The runs of two rungs, by seed, of the seeds that both have."""
    first, second = ({run.seed: run for run in runs if run.rung == rung} for rung in pair)
    return [(first[seed], second[seed]) for seed in sorted(first) if seed in second]


def _row(
    quantity: str,
    of: str,
    source: str,
    seeds: int,
    numbers: tuple[float, float, float],
    note: str,
    position: int = 0,
) -> Row:
    given: Row = {"quantity": quantity, "of": of, "source": source, "seeds": seeds}
    found = dict(zip(("value", "low", "high"), map(float, numbers), strict=True))
    return given | {"position": position} | found | {"note": note}


def _verdict(pair: tuple[str, str], gap: Gap, adjusted: float | None) -> str:
    """Whether these seeds resolve a contrast, and whether they could resolve the paper's gap."""
    p, how = (gap.p, "alone") if adjusted is None else (adjusted, "Holm")
    paper = paper_gap(pair)[0]
    if p < LEVEL:
        agrees = "as in the paper" if gap.mean * paper > 0 else "against the paper"
        return f"resolved, {agrees} (p = {p:.2g}, {how})"
    could = "would" if gap.half_width < abs(paper) else "would not"
    return f"not resolved (p = {p:.2g}, {how}); a gap of the paper's size {could} show"


def _positions(runs: Sequence[Run], tables: Tables) -> list[Row]:
    loss = tables.positions.set_index(["name", "first"])["loss"].to_dict()
    rows = list[Row]()
    for rung in dict.fromkeys(run.rung for run in runs if run.rung != "plain"):
        both = _paired(runs, ("plain", rung))
        for first in FIRST_OF_BIN if both else ():
            gaps = [loss[after.name, first] - loss[before.name, first] for before, after in both]
            of, where = RUNGS[rung].title, runs[0].size.name
            rows.append(_row("gap by position", of, where, len(gaps), _spread(gaps), "", first))
    return rows


def _scores(runs: Sequence[Run], tables: Tables) -> list[Row]:
    induction, rows = tables.by_run("induction"), list[Row]()
    for rung in dict.fromkeys(run.rung for run in runs):
        scores = [induction[run.name] for run in runs if run.rung == rung]
        of, where = RUNGS[rung].title, runs[0].size.name
        rows.append(_row("induction", of, where, len(scores), _spread(scores), ""))
    return rows


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, least and largest."""
    return sum(values) / len(values), min(values), max(values)
