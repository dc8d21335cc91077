"""What the paper says of its models on its tasks (Table 3; accuracies in percent)."""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TABLE = Path(__file__).parent.parent / "bundled" / "tasks" / "paper_table3.csv"


@dataclass(frozen=True)
class PaperTask:
    """One of the eleven tasks of Table 3.

    Attributes:
        column: Its column in the table.
        task: The task of the harness.
        overrides: What is changed in that task's configuration.
    """

    column: str
    task: str
    overrides: tuple[tuple[str, str], ...] = ()


# The harness has RACE's high-school part only; the authors added the other one by hand.
PAPER_TASKS = {
    "lambada_openai": PaperTask("lambada", "lambada_openai"),
    "piqa": PaperTask("piqa", "piqa"),
    "winogrande": PaperTask("winogrande", "winogrande"),
    "arc_easy": PaperTask("arc_e", "arc_easy"),
    "arc_challenge": PaperTask("arc_c", "arc_challenge"),
    "sciq": PaperTask("sciq", "sciq"),
    "logiqa": PaperTask("logiqa", "logiqa"),
    "boolq": PaperTask("boolq", "boolq"),
    "hellaswag": PaperTask("hellaswag", "hellaswag"),
    "race_middle": PaperTask("race_m", "race", (("dataset_name", "middle"),)),
    "race": PaperTask("race_h", "race"),
}
"""The paper's tasks by their name here. Each is scored by ``acc``: 45.4 for Pythia-2.8B on
HellaSwag is the accuracy without length normalisation."""


@cache
def _rows() -> list[dict[str, str]]:
    with TABLE.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def paper_scores(task: str, shots: int) -> dict[str, float]:
    """The paper's accuracies on a task by model, 0 to 1; none where it has none.

    Args:
        task: A task of :data:`PAPER_TASKS`, or any other.
        shots: Examples before the question; the paper has 0 and 5.
    """
    if task not in PAPER_TASKS:
        return {}
    column = PAPER_TASKS[task].column
    return {
        row["model"]: round(float(row[column]) / 100, 4)
        for row in _rows()
        if int(row["shots"]) == shots
    }


def paper_mean(model: str, shots: int) -> float:
    """The mean of a model's eleven accuracies, 0 to 1, as the paper's last column has it."""
    found = [paper_scores(task, shots)[model] for task in PAPER_TASKS]
    return sum(found) / len(found)
