"""The results of runs as three tables, which ship with the package.

A maintainer runs ``python -m mudd_interp.experiments.tables RUNS`` when runs are complete. It keeps
each run's result too, and ``... RUNS --put-back`` writes those that are kept into a folder of runs,
where training goes on after them: so an experiment can be made in parts, on several machines.
"""

import gzip
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mudd_interp.experiments.plan import PLANS, Run, Scale
from mudd_interp.experiments.run import (
    RESULT,
    SCORED,
    RunResult,
    is_complete,
    or_infinite,
    read_result,
)
from mudd_interp.experiments.rungs import config, training_flops
from mudd_interp.files import csv_table, write_bytes, write_text
from mudd_interp.schema import validated
from mudd_interp.training.evaluate import FileLosses

RESULTS = Path(__file__).parent / "results"
RUNS, FILES, POSITIONS = "runs.csv", "files.csv", "positions.csv"
KEPT = RESULTS / "results.jsonl.gz"
_TEXT = ("name", "size", "rung", "device", "torch", "files", "file")
FIRST_OF_BIN = tuple(2**power for power in range(8))
"""The positions at which the loss is averaged begin at 1, 2, 4, ... 128, counted from 0."""


@dataclass(frozen=True)
class Tables:
    """What complete runs found.

    Attributes:
        runs: A row for each run, by ``name``: what it is, ``loss`` in nats per token, the largest
            score of a head (0..1) by the score's name.
        files: A row for each held-out file: ``file``, ``tokens``, and its summed loss in nats in a
            column for each run.
        positions: ``name``, ``first`` position of a bin, and the mean ``loss`` in it, in nats.
    """

    runs: pd.DataFrame
    files: pd.DataFrame
    positions: pd.DataFrame

    def losses(self, runs: Sequence[Run]) -> FileLosses:
        """The loss on each file, summed over runs as if they had read it one after the other."""
        totals = self.files[[run.name for run in runs]].to_numpy(float).sum(1)
        tokens = self.files["tokens"].to_numpy(np.int64) * len(runs)
        return FileLosses(tuple(self.files["file"]), totals, tokens)

    def trained(self, runs: Sequence[Run]) -> list[Run]:
        """Those of some runs that came to their end."""
        losses = self.by_run("loss")
        return [run for run in runs if np.isfinite(losses.get(run.name, np.inf))]

    def by_run(self, column: str) -> Mapping[str, float]:
        """A number of each run, by its name."""
        return dict(zip(self.runs["name"], self.runs[column].astype(float), strict=True))


def planned(name: str, tables: Tables) -> list[Run]:
    """The complete runs of an experiment, in order.

    Without those that only looked for a rate, and those that diverged.
    """
    losses, found = tables.by_run("loss"), list[Run]()
    try:
        for stage in PLANS[name](Scale(), lambda run: losses[run.name]):
            found += [] if stage.sweep else tables.trained(stage.runs)
    except KeyError:  # a sweep is not complete: what follows it is not known
        pass
    return found


def collect(place: Path, plans: Sequence[str] = tuple(PLANS)) -> Tables:
    """The tables of the complete runs in a folder.

    Raises:
        ValueError: If a result is not as it was written, or runs were measured on different files.
    """
    found = dict[str, tuple[Run, RunResult]]()
    for name in plans:
        for stage in PLANS[name](Scale(), lambda run: _loss(found, run)):
            for run in stage.runs:
                if is_complete(place / run.name):
                    found[run.name] = run, read_result(place / run.name)
            if stage.sweep and any(run.name not in found for run in stage.runs):
                break
    return make_tables(list(found.values()))


def _loss(found: Mapping[str, tuple[Run, RunResult]], run: Run) -> float:
    return or_infinite(found[run.name][1].loss)


def make_tables(found: Sequence[tuple[Run, RunResult]]) -> Tables:
    """The tables of runs and their results.

    Raises:
        ValueError: If runs were measured on different files.
    """
    kept = [(run, result) for run, result in found if result.loss is not None]
    runs = pd.DataFrame([_row(run, result) for run, result in found], columns=_COLUMNS)
    files = pd.DataFrame({"file": [], "tokens": []})
    if kept:
        first = kept[0][1]
        for _, result in kept:
            if (result.files, result.file_tokens) != (first.files, first.file_tokens):
                raise ValueError(
                    f"{result.name} and {first.name} were measured on different files: train one "
                    "of them again."
                )
        totals = {result.name: np.round(result.file_totals, 3) for _, result in kept}
        files = pd.DataFrame({"file": first.files, "tokens": first.file_tokens, **totals})
    positions = [
        {"name": result.name, "first": first, "loss": _mean_from(result.positions, first)}
        for _, result in kept
        for first in FIRST_OF_BIN
    ]
    return Tables(runs, files, pd.DataFrame(positions, columns=["name", "first", "loss"]))


def _mean_from(positions: Sequence[float], first: int) -> float:
    """The mean loss from a position to twice as far; the first that is predicted is 1."""
    return round(float(np.mean(positions[first - 1 : 2 * first - 1])), 5)


_COLUMNS = [
    *("name", "size", "rung", "seed", "steps", "batch", "peak_lr", "tokens"),
    *("parameters", "block_parameters", "flops", "loss", *SCORED),
    *("device", "bfloat16", "torch"),
]


def _row(run: Run, result: RunResult) -> dict[str, Any]:
    return {
        "name": run.name,
        "size": run.size.name,
        "rung": run.rung,
        "seed": run.seed,
        "steps": run.steps,
        "batch": run.batch,
        "peak_lr": run.peak_lr,
        "tokens": run.tokens,
        "parameters": result.parameters,
        "block_parameters": run.size.parameters,
        "flops": training_flops(config(run.size, run.rung), run.tokens),
        "loss": np.inf if result.loss is None else round(result.loss, 6),
        **{name: round(result.scores.get(name, 0.0), 5) for name in SCORED},
        "device": result.device,
        "bfloat16": result.bfloat16,
        "torch": result.torch,
    }


def write_tables(tables: Tables, folder: Path = RESULTS) -> None:
    """Write the three tables."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in _named(tables).items():
        write_bytes(folder / name, csv_table(table))


def read_tables(folder: Path = RESULTS) -> Tables:
    """Read what :func:`write_tables` wrote.

    Raises:
        ValueError: If a table is missing or is none.
    """
    kinds: Any = dict.fromkeys(_TEXT, str)
    try:
        read = [pd.read_csv(folder / name, dtype=kinds) for name in (RUNS, FILES, POSITIONS)]
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} has no results of runs ({error}): install anew.") from error
    return Tables(*read)


def _named(tables: Tables) -> dict[str, pd.DataFrame]:
    return {RUNS: tables.runs, FILES: tables.files, POSITIONS: tables.positions}


def keep_results(place: Path, names: Iterable[str], kept: Path = KEPT) -> None:
    """Add the results of some complete runs in a folder to those that are kept."""
    found = {result.name: result for result in kept_results(kept)}
    found |= {name: read_result(place / name) for name in names}
    lines = (json.dumps(asdict(found[name])) + "\n" for name in sorted(found))
    write_bytes(kept, gzip.compress("".join(lines).encode(), mtime=0))


def kept_results(kept: Path = KEPT) -> list[RunResult]:
    """The results that are kept; none if there is no such file.

    Raises:
        ValueError: If one is not as it was written.
    """
    if not kept.is_file():
        return []
    lines = gzip.decompress(kept.read_bytes()).decode().splitlines()
    return [validated(RunResult, json.loads(line), str(kept)) for line in lines]


def put_back(place: Path, kept: Path = KEPT) -> int:
    """Write the results that are kept into the folders of their runs, where there are none.

    Returns:
        How many were written. Their weights and logs are elsewhere.
    """
    missing = [each for each in kept_results(kept) if not is_complete(place / each.name)]
    for result in missing:
        (place / result.name).mkdir(parents=True, exist_ok=True)
        write_text(place / result.name / RESULT, json.dumps(asdict(result)) + "\n")
    return len(missing)


def _main(runs: Path, *options: str) -> None:
    put_back(runs)
    if "--put-back" not in options:
        tables = collect(runs)
        keep_results(runs, tables.runs["name"])
        write_tables(tables)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), *sys.argv[2:])
