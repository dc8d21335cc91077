"""Models on tasks: what runs are held against, the command, and what it says when it cannot."""

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager

from mudd_interp.evaluation import run as runs
from mudd_interp.evaluation import tasks
from mudd_interp.evaluation.adapter import HookedLM
from mudd_interp.evaluation.names import FEATURES
from mudd_interp.evaluation.paper import PAPER_TASKS, TABLE, paper_mean, paper_scores
from mudd_interp.evaluation.report import print_report, to_json
from mudd_interp.evaluation.run import Settings, evaluate, plan
from tests.bundled import load
from tests.unit.command import run

EDIT = "cut v *<-*"


TASKS = ("identifier_cloze", "closing_bracket", "held_out_bare")


@pytest.fixture(scope="module")
def found() -> runs.Evaluation:
    """The pair and an edit on a few items of local tasks."""
    models = plan(load("mudd-tiny"), load("tfm-tiny"), [EDIT])
    return evaluate(models, TASKS, Settings(limit=2))


def by_key(found: runs.Evaluation) -> dict[tuple[str, str], runs.TaskResult]:
    return {(task.task, task.metric): task for task in found.tasks}


@pytest.mark.slow
def test_every_task_is_scored_for_every_run(found: runs.Evaluation):
    assert {task.task for task in found.tasks} == set(TASKS)
    labels = ["mudd-tiny", f"mudd-tiny: {EDIT}", "tfm-tiny"]
    for task in found.tasks:
        assert list(task.scores) == labels
        assert task.items == 2
        assert set(task.differences) == {
            ("mudd-tiny", "tfm-tiny"),
            (f"mudd-tiny: {EDIT}", "mudd-tiny"),
            (f"mudd-tiny: {EDIT}", "tfm-tiny"),
        }
        for (one, other), each in task.differences.items():
            gap = task.scores[one].value - task.scores[other].value
            assert each.value == pytest.approx(gap, abs=1e-12)
        assert all(counts.merged == counts.truncated == 0 for counts in task.counts.values())


def test_scores_are_those_that_the_harness_says(found: runs.Evaluation):
    for name, metric in (("closing_bracket", "acc"), ("held_out_bare", "bits_per_byte")):
        lm = HookedLM(load("mudd-tiny"), prefix="never")
        said: Any = simple_evaluate(
            lm,
            tasks=[tasks.local_task(name)],
            limit=2,
            bootstrap_iters=0,
            task_manager=TaskManager(include_defaults=False),
        )
        ours = by_key(found)[name, metric].scores["mudd-tiny"].value
        assert ours == pytest.approx(said["results"][name][f"{metric},none"], rel=1e-9)


def test_bits_per_byte_both_ways(found: runs.Evaluation):
    """The harness's rolling log-probabilities, and our own evaluation: also with an edit."""
    bare = by_key(found)["held_out_bare", "bits_per_byte"]
    assert set(bare.own) == set(bare.scores)
    for label, own in bare.own.items():
        assert bare.scores[label].value == pytest.approx(own, abs=1e-6)
    assert not bare.higher_is_better
    cost = bare.differences[f"mudd-tiny: {EDIT}", "mudd-tiny"]
    assert cost.low > 0.5  # bits: without its values' dense connections it is no model


def test_rules_stand_beside_the_models(found: runs.Evaluation):
    tasks_found = by_key(found)
    assert set(tasks_found["identifier_cloze", "acc"].rules) == set(FEATURES)
    assert len(tasks_found["closing_bracket", "acc"].rules) == 2
    assert not tasks_found["closing_bracket", "exact_match"].rules


def test_json_is_complete_and_plain(found: runs.Evaluation, capsys: pytest.CaptureFixture[str]):
    values = json.loads(json.dumps(to_json(found), allow_nan=False))
    assert values["harness"] == "0.4.13"
    assert [each["edits"] for each in values["runs"]] == ["", EDIT, ""]
    assert values["settings"]["prefix"] == "document"
    cloze = next(each for each in values["tasks"] if each["task"] == "identifier_cloze")
    assert set(cloze["scores"]["mudd-tiny"]) == {"value", "stderr", "low", "high"}
    assert cloze["differences"][0]["against"] == "tfm-tiny"
    print_report(found)
    printed = capsys.readouterr().out
    for word in ("identifier_cloze", "rule: shortest name", "− tfm-tiny", "our own", "float32"):
        assert word in printed


def test_an_edit_that_the_model_cannot_have_is_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(HookedLM, "logits", None)
    with pytest.raises(ValueError, match=r"layer must lie in 0\.\.11 here, got 90"):
        evaluate(plan(load("tfm-tiny"), edits=["cut v 90<-1"]), ["closing_bracket"])
    with pytest.raises(ValueError, match="there are no edits"):
        plan(load("tfm-tiny"), edits=[""])


# --- Tasks by name --------------------------------------------------------------------------------


@pytest.mark.slow  # it reads the names of all tasks of the harness
@pytest.mark.parametrize(
    ("asked", "near"), [("identifer_cloze", "identifier_cloze"), ("pika", "piqa")]
)
def test_an_unknown_task_is_named_with_its_neighbours(asked: str, near: str):
    with pytest.raises(ValueError, match=f"no task `{asked}`.*`{near}`"):
        evaluate(plan(load("tfm-tiny")), [asked])


def test_groups_stand_for_their_tasks():
    assert tasks.names_of(["paper", "piqa", "held_out"]) == [*PAPER_TASKS, "held_out"]
    with pytest.raises(ValueError, match="at least one task"):
        tasks.names_of([])


def test_the_means_of_the_paper_come_out_of_its_columns():
    """All fourteen rows. Columns and mean are rounded, each by 0.05 at most."""
    lines = [line.split(",") for line in TABLE.read_text().splitlines()[1:]]
    assert len(lines) == 14
    for shots, model, *_, mean in lines:
        assert 100 * paper_mean(model, int(shots)) == pytest.approx(float(mean), abs=0.1)


def test_the_paper_has_numbers_for_its_tasks_only():
    assert paper_scores("hellaswag", 0)["Pythia-2.8B"] == 0.454
    assert paper_scores("hellaswag", 5)["MUDDFM-2.8B"] == 0.498
    assert paper_scores("hellaswag", 1) == paper_scores("identifier_cloze", 0) == {}


@pytest.mark.slow  # it reads the names of all tasks of the harness
def test_the_middle_school_part_of_race_is_the_high_school_task_on_other_data(
    monkeypatch: pytest.MonkeyPatch,
):
    """The harness has the latter only; a stand-in for the hub says which part was asked for."""
    asked: list[tuple[str, str]] = []
    problem = {"question": "Who?", "answer": "B", "options": ["a", "b", "c", "d"]}

    def hub(path: str, name: str, **_: Any) -> dict[str, Dataset]:
        asked.append((path, name))
        article = {"article": "One b.", "problems": str([problem])}
        return {"test": Dataset.from_list([article] * 3)}

    monkeypatch.setattr("datasets.load_dataset", hub)
    (middle,), (high,) = tasks.load_tasks("race_middle"), tasks.load_tasks("race")
    assert asked == [("EleutherAI/race", "middle"), ("EleutherAI/race", "high")]
    assert isinstance(middle, ConfigurableTask)
    assert (middle.task_name, high.task_name) == ("race_middle", "race")
    done = evaluate(plan(load("tfm-tiny")), ["race_middle"])
    (task,) = done.tasks
    assert (task.task, task.metric, task.items, task.files) == ("race_middle", "acc", 3, None)
    assert task.paper == paper_scores("race_middle", 0)
    (more,) = evaluate(plan(load("tfm-tiny")), ["race_middle"], Settings(limit=1, shots=1)).tasks
    assert (more.shots, more.paper) == (1, {})  # the paper has none with one example
    assert math.isnan(more.scores["tfm-tiny"].stderr)


@pytest.mark.slow  # it reads the names of all tasks of the harness
def test_without_network_a_hub_task_says_what_to_do(monkeypatch: pytest.MonkeyPatch):
    def offline(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach the hub\nand more")

    monkeypatch.setattr("datasets.load_dataset", offline)
    with pytest.raises(ValueError, match=r"'piqa' needs data.*reach the hub\).*identifier_cloze"):
        evaluate(plan(load("tfm-tiny")), ["closing_bracket", "piqa"])


# --- The command ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_local_task_runs():
    done = evaluate(plan(load("tfm-tiny")), settings=Settings(limit=2))
    assert {task.task for task in done.tasks} == set(tasks.LOCAL_TASKS)
    assert all(math.isfinite(task.scores["tfm-tiny"].value) for task in done.tasks)


@pytest.mark.slow
def test_the_command_writes_what_it_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "scores.json"
    command = ["evaluate", "mudd-tiny", "--baseline", "tfm-tiny", "--edits", EDIT]
    command += ["--tasks", "closing_bracket", "--limit", "3", "--json", str(out)]
    assert run(*command, monkeypatch=monkeypatch) == 0
    values = json.loads(out.read_text())
    assert {each["metric"] for each in values["tasks"]} == {"acc", "exact_match"}
    printed = capsys.readouterr()
    assert "closing_bracket" in printed.out
    assert "Custom kwargs" not in printed.err  # the harness does not talk
    assert len(values["tasks"][0]["scores"]) == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--tasks", ""], "--tasks is empty"),
        pytest.param(["--tasks", "held_oot"], "did you mean `held_out`", marks=pytest.mark.slow),
        (["--edits", "cut"], "expected an edit"),
        (["--prefix", "all"], "no prefix `all`"),
        (["--max-length", "500"], "max_length must lie in 2..256"),
        (["--tasks", "lambada_code", "--limit", "2", "--max-length", "20"], "--truncate"),
        (["--json", "/dev/null/scores.json"], "cannot write"),
        (["--baseline", "no-such-model"], "no-such-model"),
    ],
)
def test_bad_input_is_one_message(
    arguments: list[str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert run("evaluate", "tfm-tiny", *arguments, monkeypatch=monkeypatch) == 2
    printed = capsys.readouterr()
    assert says in printed.err
    assert not printed.out


def test_without_the_extra_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    find = importlib.util.find_spec

    def hide(name: str, package: str | None = None) -> Any:
        return None if name == "lm_eval" else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", hide)
    assert run("evaluate", "tfm-tiny", monkeypatch=monkeypatch) == 2
    assert "pip install 'mudd-interp[eval]'" in capsys.readouterr().err


def test_the_command_line_does_not_import_the_harness():
    code = "import sys, mudd_interp.cli, mudd_interp.evaluation; sys.exit('lm_eval' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
