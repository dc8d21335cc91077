"""Intervals against tables and by hand; a ladder and a scaling curve with planted effects."""

import math
from typing import Any

import numpy as np
import pytest

from mudd_interp.experiments.gaps import (
    CONTRASTS,
    PAPER,
    ZOO_PAIRS,
    holm,
    ladder_table,
    paired_gap,
    title,
    zoo_table,
)
from mudd_interp.experiments.plan import PLANS, Run, Scale
from mudd_interp.experiments.run import RunResult
from mudd_interp.experiments.rungs import RUNGS
from mudd_interp.experiments.scaling import Curve, power_law, ratio, scaling_table
from mudd_interp.experiments.student import t_quantile, t_two_sided
from mudd_interp.experiments.tables import Tables, make_tables
from mudd_interp.viz import ladder_figure, scaling_figure, zoo_figure

SLOPE, GAIN = 0.1, 0.08
EMPTY = make_tables([])


@pytest.mark.parametrize(
    ("freedom", "value"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622)]
)
def test_quantiles_are_those_of_the_printed_table(freedom: int, value: float):
    assert t_quantile(0.975, freedom) == pytest.approx(value, abs=5e-5)
    # The printed quantiles have four digits.
    assert t_two_sided(value, freedom) == pytest.approx(0.05, abs=1e-5)
    assert t_two_sided(0.0, freedom) == 1


def test_a_paired_interval_by_hand():
    gap = paired_gap(np.array([0.19, 0.2, 0.216]))  # standard deviation 0.01311
    assert gap.mean == pytest.approx(0.202)
    assert gap.half_width == pytest.approx(4.3027 * 0.013115 / math.sqrt(3), rel=1e-3)
    assert gap.p == pytest.approx(t_two_sided(gap.mean / (gap.half_width / 4.302653), 2))
    with pytest.raises(ValueError, match="two or more"):
        paired_gap(np.array([0.2]))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def result(run: Run, loss: float) -> RunResult:
    """A run whose held-out files differ from each other, and are together as hard as is said."""
    tokens = np.arange(1, 9) * 100
    hardness = np.linspace(-0.2, 0.2, 8)
    totals = tokens * (loss + hardness - np.average(hardness, weights=tokens))
    return RunResult(
        name=run.name,
        loss=loss,
        files=tuple("abcdefgh"),
        file_tokens=tuple(map(int, tokens)),
        file_totals=tuple(map(float, totals)),
        positions=(loss,) * 255,
        scores={"previous_token": 0.5, "induction": 0.25},
        parameters=1,
        device="cpu",
        bfloat16=False,
        torch="2",
    )


def planted(name: str, noise: float) -> Tables:
    """All runs of a plan, with gaps of ours, and noise that differs from run to run."""
    rng, found = np.random.default_rng(0), dict[str, tuple[Run, RunResult]]()
    for stage in PLANS[name](Scale(), lambda run: found[run.name][1].loss or math.inf):
        for run in stage.runs:
            if run.name not in found:
                compute = 6.0 * run.size.parameters * run.tokens
                gain = 0.0 if RUNGS[run.rung].kind == "plain" else GAIN
                loss = 7 - SLOPE * math.log(compute) - gain + noise * rng.standard_normal()
                off = abs(math.log(run.peak_lr / 6e-3))
                found[run.name] = run, result(run, loss + off + 0.3 * run.seed)
    return make_tables(list(found.values()))


def test_a_planted_gap_is_found_and_one_that_is_none_is_not():
    table: Any = ladder_table(planted("ladder", noise=0.004))
    ours = table[(table["quantity"] == "gap") & (table["source"] == "12x64")].set_index("of")
    assert set(ours["seeds"]) == {5}
    found = ours.loc[title(("plain", "static"))]
    # The difference between seeds, 0.3, is none of the paired gap.
    assert found["low"] < -GAIN < found["high"]
    assert found["high"] - found["low"] < 0.04
    assert found["note"].startswith("resolved, as in the paper")
    nothing = ours.loc[title(("plain", "plain-realloc"))]
    assert nothing["low"] < 0 < nothing["high"]
    assert nothing["note"].startswith("not resolved")
    positions = table[(table["quantity"] == "gap by position") & (table["of"] == "+ static")]
    assert list(positions["position"]) == [1, 2, 4, 8, 16, 32, 64, 128]
    assert positions["value"].to_numpy() == pytest.approx(found["value"], abs=1e-4)
    figure: Any = ladder_figure(table, "here")
    assert len(figure.data) == 2 + 1 + 10


def test_a_planted_gap_of_a_relative_is_found_over_seeds_and_over_files():
    table: Any = zoo_table(planted("zoo", noise=0.004))
    gaps = table[table["quantity"] == "gap"]
    assert set(gaps["source"]) == {"12x64, over seeds", "12x64, over files"}
    for source in ("12x64, over seeds", "12x64, over files"):
        found = gaps[gaps["source"] == source].set_index("of")
        assert len(found) == len(ZOO_PAIRS) == 7
        for rung in ("denseformer", "hyper", "attnres"):
            row = found.loc[title(("plain", rung))]
            assert row["value"] == pytest.approx(-GAIN, abs=0.015)
            assert row["seeds"] == 3
    nothing = gaps.set_index(["of", "source"]).loc[
        title(("multiway-dynamic", "hyper")), "12x64, over seeds"
    ]
    assert nothing["low"] < 0 < nothing["high"]
    figure: Any = zoo_figure(table, "here")
    assert len(figure.data) == 2 + 1 + 4
    assert zoo_table(EMPTY).empty


def test_without_runs_there_are_the_numbers_of_the_paper():
    table = ladder_table(EMPTY)
    assert set(table["source"]) == {PAPER}
    assert len(table) == len(CONTRASTS) + 3
    assert set(scaling_table(EMPTY)["value"]) == {1.89, 2.08}


def test_a_ratio_on_a_straight_line_and_beyond_its_ends():
    compute = np.array([1e12, 1e13, 1e14])
    plain = Curve(compute, 7 - SLOPE * np.log(compute))
    for at in (1e11, 5e12, 1e14):
        loss = 7 - SLOPE * math.log(at) - GAIN
        assert ratio(plain, at, loss) == pytest.approx(math.exp(GAIN / SLOPE))
    assert math.isnan(ratio(Curve(compute[:1], plain.loss[:1]), 1e12, 4.0))
    assert math.isnan(ratio(Curve(compute, np.array([4.0, 4.1, 4.2])), 1e12, 3.0))


def test_a_planted_power_law_is_found():
    compute = np.array([1.0, 4.0, 16.0, 64.0])
    curve = Curve(compute, 2 + 1.5 * compute**-0.3)
    assert power_law(curve) == pytest.approx((2, 1.5, 0.3), abs=0.02)


def test_a_planted_ratio_is_found_at_every_size():
    table: Any = scaling_table(planted("scaling", noise=0.0))
    ratios = table[(table["quantity"] == "ratio") & table["size"].str.contains("x")]
    assert list(ratios["size"]) == ["12x48", "12x64", "12x96", "12x128", "21x96"]
    # The points of 12x96 and 12x128 have fewer seeds, and here seeds differ by 0.3.
    at_first = ratios.iloc[0]
    assert at_first["low"] <= at_first["value"] <= at_first["high"]
    over_seeds = table[table["quantity"] == "ratio, over seeds"]
    assert list(over_seeds["seeds"]) == [3, 3, 2]
    built = table[table["quantity"] == "ratio, as built"].iloc[0]
    assert built["value"] < at_first["value"]
    figure: Any = scaling_figure(table, "here")
    assert len(figure.data) == 4 + 3
