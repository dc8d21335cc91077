"""Which runs make up an experiment, in which order, and which learning rate they take."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from mudd_interp.experiments.rungs import N_CTX, TABLE_5, ZOO, Size
from mudd_interp.training.schedule import Recipe

LADDER = Size(12, 64, 4)
LARGE_LADDER = Size(12, 128, 4)
"""That of the bundled pair."""
SCALES = (Size(12, 48, 3), LADDER, Size(12, 96, 6), Size(12, 128, 8))
SCALING_SEEDS = (3, 3, 2, 1)
DEEP = Size(21, 96, 6)
PAIR = ("plain", "muddformer")
RATES = (3e-3, 6e-3, 1.2e-2)
"""The peak rates of a sweep, to begin with: one more is tried beyond an end that is the best."""
MOST_RATES = 6
BATCH = 8
TOKENS_PER_PARAMETER = 2.5


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        size: Of the model.
        rung: Its connections, one of ``RUNGS``.
        seed: Of the weights and of the order of rows: runs of one seed see the same rows.
        steps: Optimiser steps.
        peak_lr: Peak learning rate.
        batch: Rows of 256 tokens per step.
    """

    size: Size
    rung: str
    seed: int
    steps: int
    peak_lr: float
    batch: int = BATCH

    @property
    def name(self) -> str:
        """The name of its folder; everything that decides the weights is in it."""
        return (
            f"{self.size.name}_{self.rung}_{self.steps}x{self.batch}_lr{self.peak_lr:g}"
            f"_seed{self.seed}"
        )

    @property
    def recipe(self) -> Recipe:
        """How it is trained."""
        return Recipe(
            steps=self.steps,
            batch=self.batch,
            micro_batch=self.batch,
            peak_lr=self.peak_lr,
            model_seed=self.seed,
            data_seed=self.seed,
        )

    @property
    def tokens(self) -> int:
        """Tokens that it learns from."""
        return self.steps * self.batch * N_CTX


AnyRun = TypeVar("AnyRun")

Losses = Callable[[AnyRun], float]
"""The held-out loss of a run that is complete, in nats per token or image."""


@dataclass(frozen=True)
class Stage(Generic[AnyRun]):
    """Runs that may be made in any order, after all of the stage before.

    Attributes:
        runs: The runs.
        sweep: Whether they only look for a learning rate.
    """

    runs: Sequence[AnyRun]
    sweep: bool = False


Plan = Generator[Stage[Run]]
"""The stages of an experiment; what comes after a sweep depends on its losses."""


@dataclass(frozen=True)
class Scale:
    """What can be changed of a plan.

    Attributes:
        steps: Steps of every run, to try the whole out; ``None`` for those of the plan.
        seeds: At most so many seeds; ``None`` for those of the plan.
    """

    steps: int | None = None
    seeds: int | None = None

    def steps_at(self, size: Size) -> int:
        """Steps at 2.5 tokens per parameter of the blocks."""
        return self.steps or round(TOKENS_PER_PARAMETER * size.parameters / (BATCH * N_CTX))

    def seeds_of(self, planned: int) -> range:
        """The seeds of a stage."""
        return range(min(planned, self.seeds or planned))


def ladder_plan(scale: Scale, losses: Losses[Run]) -> Plan:
    """Table 5 at 12x64 and 1.5M tokens: a sweep of rates, then 11 rungs seed by seed, 5 seeds."""
    at = Run(LADDER, "plain", 0, scale.steps_at(LADDER), RATES[0])
    peak_lr = best_rate((yield from sweep(at, losses)))
    for seed in scale.seeds_of(5):
        yield Stage([replace(at, rung=r, seed=seed, peak_lr=peak_lr) for r in TABLE_5])


def large_ladder_plan(
    scale: Scale,
    losses: Losses[Run],  # noqa: ARG001 (a plan's; the rate is the bundled pair's)
) -> Plan:
    """Table 5 at the bundled pair's size and recipe, 12x128 and 10M tokens, 4 seeds: for a GPU."""
    steps = scale.steps or 2450
    at = Run(LARGE_LADDER, "plain", 0, steps, 2e-3, batch=16)
    for seed in scale.seeds_of(4):
        yield Stage([replace(at, rung=rung, seed=seed) for rung in TABLE_5])


def zoo_plan(scale: Scale, losses: Losses[Run]) -> Plan:
    """Relatives of MUDDFormer at the ladder's size and rate, 3 seeds; it shares runs with it."""
    at = Run(LADDER, "plain", 0, scale.steps_at(LADDER), RATES[0])
    peak_lr = best_rate((yield from sweep(at, losses)))
    for seed in scale.seeds_of(3):
        yield Stage([replace(at, rung=rung, seed=seed, peak_lr=peak_lr) for rung in ZOO])


def scaling_plan(scale: Scale, losses: Losses[Run]) -> Plan:
    """Loss against compute, four widths and two architectures; then depth for width.

    Widths 48, 64 and 96 each take the best rate of a sweep, 128 and the deep model that of 96. The
    first seed of every size comes before the second of any.
    """
    rates = dict[str, float]()
    for size in SCALES[:-1]:
        at = Run(size, "plain", 0, scale.steps_at(size), RATES[0])
        rates[size.name] = best_rate((yield from sweep(at, losses)))
    rates[SCALES[-1].name] = rates[DEEP.name] = rates[SCALES[-2].name]
    for seed in scale.seeds_of(max(SCALING_SEEDS)):
        for size, planned in zip(SCALES, SCALING_SEEDS, strict=True):
            if seed < planned:
                at = Run(size, "plain", seed, scale.steps_at(size), rates[size.name])
                yield Stage([replace(at, rung=rung) for rung in PAIR])
    # As many tokens as for 12x128, whose parameters it has.
    at = Run(DEEP, "plain", 0, scale.steps_at(SCALES[-1]), rates[DEEP.name])
    yield Stage([replace(at, rung=rung) for rung in ("plain", "prepost")])


PLANS: Mapping[str, Callable[[Scale, Losses[Run]], Plan]] = {
    "ladder": ladder_plan,
    "ladder-128": large_ladder_plan,
    "scaling": scaling_plan,
    "zoo": zoo_plan,
}


def sweep(at: Run, losses: Losses[Run]) -> Generator[Stage[Run], None, dict[float, float]]:
    """Stages that find the best peak rate for a size, on its first seed and both architectures.

    Returns:
        The mean loss of the two architectures by rate.
    """
    return try_rates(lambda lr: [replace(at, rung=r, peak_lr=lr) for r in PAIR], losses)


def try_rates(
    runs_at: Callable[[float], Sequence[AnyRun]],
    losses: Losses[AnyRun],
    rates: Sequence[float] = RATES,
) -> Generator[Stage[AnyRun], None, dict[float, float]]:
    """Stages that try some rates, and go on by a factor of two where the best is at an end.

    Args:
        runs_at: The runs that try a rate.
        losses: Their losses.
        rates: The first ones.

    Returns:
        The mean loss of the runs of each rate.
    """
    tried, wanted = dict[float, float](), rates
    while wanted:
        runs = {lr: runs_at(lr) for lr in wanted}
        yield Stage([run for some in runs.values() for run in some], sweep=True)
        for lr, some in runs.items():
            tried[lr] = sum(map(losses, some)) / len(some)
        wanted = [] if len(tried) >= MOST_RATES else _beyond(tried)
    return tried


def best_rate(tried: Mapping[float, float]) -> float:
    """The rate with the lowest mean loss."""
    return min(tried, key=lambda lr: tried[lr])


def _beyond(tried: Mapping[float, float]) -> list[float]:
    """The next rate by a factor of two, where the best one is at an end."""
    best = best_rate(tried)
    if best == max(tried):
        return [2 * best]
    return [best / 2] if best == min(tried) else []
