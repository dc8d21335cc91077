"""Tasks by name, as objects of the harness: the local ones, the paper's, and all of its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from datasets import Dataset
from lm_eval.api.task import ConfigurableTask, Task
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from mudd_interp.axes import unknown_name
from mudd_interp.checkpoints.names import BUNDLED_FOLDER
from mudd_interp.checkpoints.tokenizer import load_tokenizer
from mudd_interp.data import silent_hub
from mudd_interp.encoding import decode
from mudd_interp.evaluation.adapter import Prefix
from mudd_interp.evaluation.items import read_items
from mudd_interp.evaluation.paper import PAPER_TASKS
from mudd_interp.training.validation import ValidationPack, load_pack

FILE = "file"
"""The column that says which file an item is from: what is drawn anew for an interval."""


@dataclass(frozen=True)
class LocalTask:
    """A task that needs no network.

    Attributes:
        title: What it is, in a few words.
        rows: Makes its data.
        config: How the harness reads a row.
        prefix: Where ``<|endoftext|>`` is put for it; ``None`` leaves that to who asks.
    """

    title: str
    rows: Callable[[], list[dict[str, Any]]]
    config: Mapping[str, Any]
    prefix: Prefix | None = None


def _item_rows(name: str) -> Callable[[], list[dict[str, Any]]]:
    return lambda: [
        {
            FILE: item.file,
            "context": item.context,
            "choices": list(item.choices),
            "answer": item.answer,
            "target": item.right,
        }
        for item in read_items(name)
    ]


@cache
def held_out() -> ValidationPack:
    """The excerpts of the validation pack that begin inside a file.

    Those that begin with ``<|endoftext|>`` are left out: here a prefix is put before a text or not.
    """
    pack = load_pack()
    inside = [index for index, origin in enumerate(pack.origins) if origin.offset > 0]
    return ValidationPack(pack.tokens[inside], tuple(pack.origins[index] for index in inside))


def _held_out_rows() -> list[dict[str, Any]]:
    pack, tokenizer = held_out(), load_tokenizer(BUNDLED_FOLDER / "tokenizer.json")
    return [
        {FILE: f"{origin.package}: {origin.path}", "text": decode(tokenizer, ids)}
        for ids, origin in zip(pack.tokens.tolist(), pack.origins, strict=True)
    ]


_ACCURACY = [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]
_EXACT = [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}]
_BITS = [{"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False}]
_CHOICE = {
    "output_type": "multiple_choice",
    "doc_to_text": "context",
    "doc_to_choice": "choices",
    "doc_to_target": "answer",
    "metric_list": _ACCURACY,
}
_WRITTEN = {
    "output_type": "loglikelihood",
    "doc_to_text": "context",
    "doc_to_target": "target",
    "metric_list": _ACCURACY,
}
_ROLLING = {
    "output_type": "loglikelihood_rolling",
    "doc_to_text": lambda _: "",
    "doc_to_target": "text",
    "metric_list": _BITS,
}

LOCAL_TASKS = {
    "identifier_cloze": LocalTask(
        "which of four names comes next", _item_rows("identifier_cloze"), _CHOICE
    ),
    "lambada_code": LocalTask(
        "write the name that comes next", _item_rows("lambada_code"), _WRITTEN
    ),
    "closing_bracket": LocalTask(
        "which of ) ] } : comes next; exact_match: of all tokens",
        _item_rows("closing_bracket"),
        {**_CHOICE, "metric_list": [*_ACCURACY, *_EXACT]},
    ),
    "held_out": LocalTask(
        "bits per byte, <|endoftext|> before each excerpt",
        _held_out_rows,
        _ROLLING,
        "document",
    ),
    "held_out_bare": LocalTask(
        "bits per byte, nothing before an excerpt",
        _held_out_rows,
        _ROLLING,
        "never",
    ),
}
"""The local tasks. They are of Python source that the bundled pair was not trained on."""


@cache
def _data(name: str) -> Dataset:
    return Dataset.from_list(LOCAL_TASKS[name].rows())


def local_task(name: str) -> ConfigurableTask:
    """A local task as an object of the harness."""

    def data(**_: Any) -> dict[str, Dataset]:
        return {"test": _data(name)}

    # The delimiter between context and answer is a space by default; ours bring their own.
    own = {"task": name, "custom_dataset": data, "test_split": "test", "target_delimiter": ""}
    return ConfigurableTask(config={**own, **LOCAL_TASKS[name].config, "num_fewshot": 0})


def names_of(asked: Sequence[str]) -> list[str]:
    """The tasks that are asked for, each once: ``local`` and ``paper`` stand for several.

    Raises:
        ValueError: If there are none.
    """
    groups = {"local": tuple(LOCAL_TASKS), "paper": tuple(PAPER_TASKS)}
    names = [name for each in asked for name in groups.get(each, (each,))]
    if not names:
        raise ValueError("name at least one task, or `local`, or `paper`.")
    return list(dict.fromkeys(names))


def check_names(names: Sequence[str]) -> None:
    """Refuse a task that neither we nor the harness have; nothing is downloaded.

    Raises:
        ValueError: With the nearest names.
    """
    ours = (*LOCAL_TASKS, *PAPER_TASKS)
    for name in names:
        if name not in ours and name not in _harness().all_tasks:
            raise ValueError(unknown_name("task", name, (*ours, *_harness().all_tasks)))


@cache
def _harness() -> TaskManager:
    return TaskManager()


def load_tasks(name: str) -> list[Task]:
    """The task of a name; several where the harness has a group of that name.

    Raises:
        ValueError: If its data cannot be had.
    """
    if name in LOCAL_TASKS:
        return [local_task(name)]
    try:
        with silent_hub():
            if name in PAPER_TASKS:
                return [_paper_task(name)]
            return list(_harness().load([name])["tasks"].values())
    except Exception as error:  # of datasets, the hub's client, the network
        raise ValueError(
            f"the task {name!r} needs data from the Hugging Face hub, and they could not be had "
            f"({_first_line(error)}): run it once with network, after which they are kept, or ask "
            f"for tasks that need none: {', '.join(LOCAL_TASKS)}."
        ) from error


def _paper_task(name: str) -> ConfigurableTask:
    paper = PAPER_TASKS[name]
    path = _harness().task_index[paper.task].yaml_path
    assert path is not None  # it is one of the harness's own files
    config = load_yaml(path, resolve_func=True)
    return ConfigurableTask(config={**config, **dict(paper.overrides), "task": name})


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
