"""Models on tasks: one run of the harness for each model and each set of edits."""

import contextlib
import io
import logging
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
from lm_eval.api.metrics import bits_per_byte, mean
from lm_eval.defaults import DEFAULT_OTHER_SEED
from lm_eval.evaluator import evaluate as harness

from mudd_interp.checkpoints.names import BUNDLED_FOLDER
from mudd_interp.checkpoints.tokenizer import load_tokenizer
from mudd_interp.edits import Edits, as_edits, edits_text
from mudd_interp.evaluation.adapter import Counts, HookedLM, Report
from mudd_interp.evaluation.items import read_items
from mudd_interp.evaluation.paper import paper_scores
from mudd_interp.evaluation.rules import RULES
from mudd_interp.evaluation.scores import Answers, Difference, Score, by_rule, difference, score
from mudd_interp.evaluation.tasks import (
    FILE,
    LOCAL_TASKS,
    check_names,
    held_out,
    load_tasks,
    names_of,
)
from mudd_interp.protocol import HookedModel
from mudd_interp.training.evaluate import file_losses

BARE = "held_out_bare"
"""The task that our own evaluation does too."""


@dataclass(frozen=True)
class Settings:
    """How every run is done.

    Attributes:
        limit: The first so many items of each task; ``None`` for all.
        shots: Examples before a question, where the task allows them; ``None`` as the task says.
        prefix: See :data:`~mudd_interp.evaluation.adapter.Prefix`.
        max_length: Tokens that a model reads at once; ``None`` for its context.
        truncate: Whether a context that is too long loses its beginning.
        batch_size: Rows in a pass.
    """

    limit: int | None = None
    shots: int | None = None
    prefix: str = "document"
    max_length: int | None = None
    truncate: bool = False
    batch_size: int = 16


@dataclass(frozen=True)
class Run:
    """A model, as it is or with edits.

    Attributes:
        label: What it is called in tables.
        model: The model.
        edits: What is changed in it, as text; empty for nothing.
        against: The labels of the runs that its scores are held against.
    """

    label: str
    model: HookedModel
    edits: str = ""
    against: tuple[str, ...] = ()


@dataclass(frozen=True)
class TaskResult:
    """What came of one task.

    Attributes:
        task: Its name.
        metric: What it is scored by.
        higher_is_better: Whether more is better.
        items: How many items.
        files: From how many files they are; ``None`` where they are from none.
        shots: Examples before a question.
        scores: Of each run, by its label.
        own: Of each run, what our own evaluation says of the same tokens; for bits per byte.
        differences: Of runs against others, by both labels.
        rules: Of each trivial rule.
        paper: The paper's scores of its models, for its tasks.
        counts: What happened to the requests of each run.
    """

    task: str
    metric: str
    higher_is_better: bool
    items: int
    files: int | None
    shots: int
    scores: Mapping[str, Score]
    own: Mapping[str, float]
    differences: Mapping[tuple[str, str], Difference]
    rules: Mapping[str, Score]
    paper: Mapping[str, float]
    counts: Mapping[str, Counts]


@dataclass(frozen=True)
class Evaluation:
    """Runs on tasks.

    Attributes:
        runs: The runs.
        settings: How they were done.
        harness: The version of lm-evaluation-harness.
        tasks: What came of each task.
    """

    runs: tuple[Run, ...]
    settings: Settings
    harness: str
    tasks: tuple[TaskResult, ...]


def plan(
    model: HookedModel, baseline: HookedModel | None = None, edits: Sequence[Edits] = ()
) -> tuple[Run, ...]:
    """The runs of a model: as it is, with each set of edits, and its baseline.

    Raises:
        ValueError: If a set of edits is empty.
    """
    name = model.info.name
    last = () if baseline is None else (Run(_other(baseline.info.name, name), baseline),)
    other = tuple(run.label for run in last)
    runs = [Run(name, model, against=other)]
    for each in edits:
        if not as_edits(each):
            raise ValueError("there are no edits: give some, such as `cut v 5<-2`.")
        text = edits_text(each)
        runs.append(Run(f"{name}: {text}", model, text, (name, *other)))
    return (*runs, *last)


def _other(name: str, model: str) -> str:
    return f"{name} (baseline)" if name == model else name


def evaluate(
    runs: Sequence[Run],
    tasks: Sequence[str] = ("local",),
    settings: Settings | None = None,
    report: Callable[[str, int, int], object] | None = None,
    keep: Callable[[Evaluation], object] | None = None,
) -> Evaluation:
    """Score runs on tasks, with intervals, trivial rules, and the paper's numbers where it has any.

    Args:
        runs: From :func:`plan`.
        tasks: Names of local tasks, of the paper's, or of the harness; ``local`` and ``paper`` for
            all of them.
        settings: How.
        report: Called with a label, the rows done and the rows in all, again for each task.
        keep: Called after each task with all that was found so far.

    Raises:
        ValueError: Before anything runs: if a task is unknown or its data cannot be had, or a model
            has no tokenizer or lacks what an edit is about. While it runs: if a context is too long
            for the model, or the tokenizer joins an answer to its context.
    """
    settings = settings or Settings()
    names = names_of(tasks)
    check_names(names)
    with _quiet():
        for name in names:
            load_tasks(name)
        lms = {run.label: _adapter(run, settings, report) for run in runs}
        found = Evaluation(tuple(runs), settings, version("lm-eval"), ())
        for name in names:
            answered = {label: _answers(lm, name, settings) for label, lm in lms.items()}
            keys = next(iter(answered.values()))
            results = [_result(runs, answered, key, lms) for key in keys]
            found = replace(found, tasks=(*found.tasks, *results))
            if keep is not None:
                keep(found)
    return found


def _adapter(
    run: Run, settings: Settings, report: Callable[[str, int, int], object] | None
) -> HookedLM:
    tell: Report | None = None if report is None else lambda a, b: report(run.label, a, b)
    return HookedLM(
        run.model,
        edits=run.edits,
        prefix=settings.prefix,
        max_length=settings.max_length,
        truncate=settings.truncate,
        batch_size=settings.batch_size,
        report=tell,
    )


@dataclass(frozen=True)
class _Answered:
    """A run's answers to one task, and what the harness says of them."""

    task: str
    metric: str
    higher_is_better: bool
    shots: int
    answers: Answers
    groups: list[str]
    counts: Counts


def _answers(lm: HookedLM, name: str, settings: Settings) -> dict[str, _Answered]:
    """One run's answers to the task of a name, by task and metric."""
    local = LOCAL_TASKS.get(name)
    lm.prefix = settings.prefix if local is None or local.prefix is None else local.prefix
    lm.counts = Counts()
    tasks: list[Any] = load_tasks(name)
    for task in tasks:
        _set_shots(task, settings.shots)
    # Not simple_evaluate, which also asks git and the machine what they are.
    loaded: Any = {"tasks": {task.task_name: task for task in tasks}}
    said: Any = harness(lm, loaded, limit=settings.limit, bootstrap_iters=0)  # intervals are ours
    return {
        _key(task, metric): _answered(task, metric, said, lm.counts)
        for task in tasks
        for metric in _metrics(task)
    }


def _set_shots(task: Any, shots: int | None) -> None:
    """Examples before a question, as the harness's own command sets them: 0 in a task stays."""
    own = task.get_config("num_fewshot")
    if own is None or (shots is not None and own != 0):
        task.set_config(key="num_fewshot", value=shots or 0)
    task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)


def _metrics(task: Any) -> list[str]:
    """The metrics that are means over items, or bits per byte; the first one is the task's own.

    Raises:
        ValueError: If there are none.
    """
    found = [name for name, how in task.aggregation().items() if how in (mean, bits_per_byte)]
    if not found:
        raise ValueError(
            f"the score of {task.task_name!r} is no mean over its items, so models cannot be "
            "compared by item: run it by lm_eval itself, with the model `mudd-interp`."
        )
    return sorted(found, key=lambda name: name != "acc")


def _key(task: Any, metric: str) -> str:
    """What a task's score is kept under: the task alone for its own metric."""
    return task.task_name if metric == _metrics(task)[0] else f"{task.task_name}, {metric}"


@contextmanager
def _quiet() -> Generator[None]:
    """Keep the harness and its progress bars from talking: what matters is a result or an error."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _answered(task: Any, metric: str, said: Mapping[str, Any], counts: Counts) -> _Answered:
    name, samples = task.task_name, said["samples"][task.task_name]
    groups = [sample["doc"].get(FILE, str(sample["doc_id"])) for sample in samples]
    answers = _sums([sample[metric] for sample in samples])
    better, shots = task.higher_is_better()[metric], int(said["n-shot"].get(name, 0))
    return _Answered(name, metric, better, shots, answers, groups, counts)


def _sums(values: Sequence[Any]) -> Answers:
    """Sums and counts of what the harness has of each item: a number, or nats and bytes."""
    if isinstance(values[0], tuple):
        log_probs, sizes = (np.array(each, dtype=np.float64) for each in zip(*values, strict=True))
        return Answers(-log_probs / math.log(2), sizes)
    return Answers(np.array(values, dtype=np.float64), np.ones(len(values)))


def _result(
    runs: Sequence[Run],
    found: Mapping[str, Mapping[str, _Answered]],
    key: str,
    lms: Mapping[str, HookedLM],
) -> TaskResult:
    of = {label: answered[key] for label, answered in found.items()}
    first = next(iter(of.values()))
    name, groups = first.task, first.groups
    return TaskResult(
        task=name,
        metric=first.metric,
        higher_is_better=first.higher_is_better,
        items=len(groups),
        files=len(set(groups)) if name in LOCAL_TASKS else None,
        shots=first.shots,
        scores={label: score(each.answers, groups) for label, each in of.items()},
        own=_own(runs, lms, len(groups)) if name == BARE else {},
        differences={
            (run.label, other): difference(of[run.label].answers, of[other].answers, groups)
            for run in runs
            for other in run.against
        },
        rules=_rules(name, groups) if key == name else {},
        paper=paper_scores(name, first.shots) if key == name else {},
        counts={label: each.counts for label, each in of.items()},
    )


def _rules(name: str, groups: Sequence[str]) -> dict[str, Score]:
    if name not in RULES:
        return {}
    items = read_items(name)[: len(groups)]
    return by_rule({rule: [of(item) for item in items] for rule, of in RULES[name].items()}, groups)


def _own(runs: Sequence[Run], lms: Mapping[str, HookedLM], items: int) -> dict[str, float]:
    """Bits per byte by our own evaluation, of the models that read the bundled tokens."""
    pack, reader = held_out(), load_tokenizer(BUNDLED_FOLDER / "tokenizer.json")
    pack = type(pack)(pack.tokens[:items], pack.origins[:items])
    size = sum(len(reader.decode(ids).encode()) for ids in pack.tokens.tolist())
    found: dict[str, float] = {}
    for run in runs:
        lm = lms[run.label]
        if lm.tokenizer.get_vocab() == reader.get_vocab() and lm.max_length >= pack.tokens.shape[1]:
            losses = file_losses(lm.logits, pack)
            found[run.label] = float(losses.totals.sum()) / math.log(2) / size
    return found
