"""What came of an evaluation, as JSON and as tables."""

import math
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mudd_interp.evaluation.run import Evaluation, TaskResult
from mudd_interp.evaluation.scores import Score
from mudd_interp.evaluation.tasks import LOCAL_TASKS

_INTERVALS = (
    "+ : − are the items that only the one and only the other has right. "
    "Intervals draw files anew, or items where they are from none; they say nothing about other "
    "training seeds."
)


def to_json(found: Evaluation) -> dict[str, Any]:
    """JSON-ready: ``harness``, ``settings``, ``runs``, and ``tasks``, one for each metric.

    Accuracies and rates are 0 to 1, bits are bits per byte; what is not defined is ``null``.
    """
    return {
        "harness": found.harness,
        "settings": asdict(found.settings),
        "runs": [
            {
                "label": run.label,
                "model": run.model.info.to_dict(),
                "edits": run.edits,
                "device": str(run.model.cfg.device),
                "dtype": str(run.model.cfg.dtype).removeprefix("torch."),
            }
            for run in found.runs
        ],
        "tasks": [_task(task) for task in found.tasks],
    }


def _task(task: TaskResult) -> dict[str, Any]:
    return {
        "task": task.task,
        "metric": task.metric,
        "higher_is_better": task.higher_is_better,
        "items": task.items,
        "files": task.files,
        "shots": task.shots,
        "scores": {label: _plain(score) for label, score in task.scores.items()},
        "own_evaluation": dict(task.own),
        "differences": [
            {"run": run, "against": other, **_plain(score)}
            for (run, other), score in task.differences.items()
        ],
        "rules": {rule: _plain(score) for rule, score in task.rules.items()},
        "paper": dict(task.paper),
        "requests": {label: asdict(counts) for label, counts in task.counts.items()},
    }


def _plain(score: Score) -> dict[str, Any]:
    values = asdict(score).items()
    return {n: None if isinstance(v, float) and math.isnan(v) else v for n, v in values}


def print_report(found: Evaluation) -> None:
    """Print a table for each task, and under it what a reader should know."""
    console = Console()
    for task in found.tasks:
        console.print(_table(task))
        for note in _notes(task):
            console.print(f"  {note}", markup=False, highlight=False)
    for note in _settings(found):
        console.print(note, markup=False, highlight=False)


def _table(task: TaskResult) -> Table:
    local = LOCAL_TASKS.get(task.task)
    what = "" if local is None else f": {local.title}"
    of = "" if task.files is None else f" of {task.files} files"
    shots = "" if local else f", {task.shots}-shot"
    arrow = "↑" if task.higher_is_better else "↓"
    title = f"{task.task}{what} ({task.items:,} items{of}{shots})"
    table = Table(title=escape(title), title_justify="left")
    table.add_column("")
    for heading in (f"{task.metric} {arrow}", "± SE", "95 %", "+ : −"):
        table.add_column(heading, justify="right")
    for label, score in task.scores.items():
        table.add_row(escape(label), *_cells(score), "")
        if label in task.own:
            table.add_row("  our own evaluation", f"{task.own[label]:.4f}", "", "", "")
        for (run, other), each in task.differences.items():
            if run == label:
                pair = "" if each.only_first is None else f"{each.only_first} : {each.only_second}"
                table.add_row(escape(f"  − {other}"), *_cells(each, "+"), pair)
    for rule, score in task.rules.items():
        table.add_row(f"rule: {rule}", *_cells(score), "")
    for model, value in task.paper.items():
        table.add_row(f"the paper's {model}", f"{value:.3f}", "", "", "")
    return table


def _cells(score: Score, sign: str = "") -> tuple[str, str, str]:
    interval = "" if math.isnan(score.low) else f"{score.low:{sign}.3f} to {score.high:{sign}.3f}"
    stderr = "" if math.isnan(score.stderr) else f"{score.stderr:.4f}"
    return f"{score.value:{sign}.4f}", stderr, interval


def _notes(task: TaskResult) -> list[str]:
    """What happened to the requests, where it changes what a score means."""
    notes: list[str] = []
    for label, counts in task.counts.items():
        of = f"of {counts.requests:,} requests"
        if counts.truncated:
            notes.append(f"{label}: {counts.truncated:,} {of} lost the beginning of their context.")
        if counts.merged:
            says = "the tokenizer joins the answer to its context, so other tokens were scored."
            notes.append(f"{label}: in {counts.merged:,} {of} {says}")
    return notes


def _settings(found: Evaluation) -> list[str]:
    """How it was done, as far as it moves numbers."""
    how = found.settings
    lengths = {how.max_length or run.model.cfg.n_ctx for run in found.runs}
    dtypes = sorted({str(run.model.cfg.dtype).removeprefix("torch.") for run in found.runs})
    windows = " and ".join(map(str, sorted(lengths)))
    done = f"{', '.join(dtypes)}, batches of {how.batch_size}, windows of {windows} tokens"
    prefix = f"prefix {how.prefix} where a task does not say"
    notes = [f"lm-eval {found.harness}, {done}, {prefix}.", _INTERVALS]
    if len(lengths) > 1:
        notes.append(
            "The models read windows of different lengths, on which bits per byte depend: give "
            "--max-length."
        )
    if dtypes != ["float32"]:
        notes.append("In half precision scores depend a little on the batch size.")
    return notes
