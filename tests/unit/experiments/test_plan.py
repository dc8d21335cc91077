"""Plans: what they train, in which order, and at which rate."""

import math
from dataclasses import replace

import pytest

from mudd_interp.experiments.plan import (
    LADDER,
    MOST_RATES,
    PLANS,
    RATES,
    Run,
    Scale,
    best_rate,
    sweep,
)
from mudd_interp.experiments.rungs import TABLE_5, ZOO


def loss_by_rate(best: float):
    """A loss that is least at one rate."""
    return lambda run: abs(math.log2(run.peak_lr / best))


def runs(name: str, best: float = 6e-3, swept: bool = False, scale: Scale | None = None):
    stages = PLANS[name](scale or Scale(), loss_by_rate(best))
    return [run for stage in stages if stage.sweep == swept for run in stage.runs]


def test_the_ladder_is_paired_after_each_seed():
    found = runs("ladder")
    assert [run.seed for run in found] == [seed for seed in range(5) for _ in TABLE_5]
    assert [run.rung for run in found] == [*TABLE_5] * 5
    assert {run.steps for run in found} == {735}
    assert {run.tokens for run in found} == {1_505_280}
    assert {run.peak_lr for run in found} == {6e-3}
    for run in found:
        assert run.recipe.data_seed == run.recipe.model_seed == run.seed


def test_the_zoo_shares_runs_with_the_ladder():
    zoo, ladder = runs("zoo"), runs("ladder")
    assert [run.rung for run in zoo] == [*ZOO] * 3
    shared = {run.name for run in zoo} & {run.name for run in ladder}
    assert len(shared) == 2 * 3
    assert {run.peak_lr for run in zoo} == {6e-3}
    assert runs("zoo", swept=True) == runs("ladder", swept=True)


@pytest.mark.parametrize(
    ("best", "tried"),
    [
        (6e-3, [*RATES]),
        (12e-3, [*RATES, 24e-3]),
        (48e-3, [*RATES, 24e-3, 48e-3, 96e-3]),
        (3e-3, [*RATES, 1.5e-3]),
        (1e9, [*RATES, 24e-3, 48e-3, 96e-3]),
    ],
)
def test_a_sweep_goes_on_where_its_best_rate_is_at_an_end(best: float, tried: list[float]):
    stages = sweep(Run(LADDER, "plain", 0, 10, 1e-3), loss_by_rate(best))
    found = [run for stage in stages for run in stage.runs]
    assert [run.peak_lr for run in found if run.rung == "plain"] == pytest.approx(tried)
    assert len(found) == 2 * len(tried) <= 2 * MOST_RATES


def test_a_rate_at_which_training_diverged_is_not_the_best():
    assert best_rate({1e-3: 4.0, 2e-3: math.inf}) == 1e-3


def test_scaling_shares_its_runs_with_the_ladder():
    scaling, ladder = runs("scaling"), runs("ladder")
    at_64 = [run for run in scaling if run.size == LADDER]
    assert len(at_64) == 6
    assert set(at_64) < set(ladder)
    counts = [len([run for run in scaling if run.size.name == name]) for name in ("12x48", "12x96")]
    assert counts == [6, 4]
    assert [run.rung for run in scaling if run.size.n_layers == 21] == ["plain", "prepost"]
    for run in scaling:
        if run.size.n_layers == 12:
            assert run.tokens == pytest.approx(2.5 * run.size.parameters, rel=0.01)


def test_names_say_all_that_decides_the_weights():
    run = runs("ladder")[0]
    others = [
        replace(run, **{name: value})
        for name, value in (("rung", "static"), ("seed", 9), ("steps", 7), ("batch", 4))
    ]
    others += [replace(run, peak_lr=1.5e-3), replace(run, size=replace(run.size, d_model=72))]
    others += [replace(run, size=replace(run.size, n_heads=8))]
    assert len({each.name for each in (run, *others)}) == 8


def test_seeds_and_steps_of_a_trial():
    found = runs("ladder", scale=Scale(steps=3, seeds=2))
    assert {run.steps for run in found} == {3}
    assert {run.seed for run in found} == {0, 1}
    assert len(runs("ladder-128", scale=Scale(seeds=1))) == len(TABLE_5)
