"""What is looked at, in plain values: the one description behind a command, a link and a manifest.

A :class:`Request` names two models, a corpus, a prompt and a place in them. Nothing here needs
torch, so a link can be read before anything is loaded.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import Any, Literal, get_args, get_type_hints

from mudd_interp.axes import Stream, unknown_name
from mudd_interp.schema import checked
from mudd_interp.values import (
    Context,
    Count,
    EditsText,
    Ids,
    Name,
    Place,
    Position,
    Prompt,
    Rows,
    Token,
    plain,
)

Part = Literal["model", "baseline"]
Scope = Literal["corpus", "prompt"]
Mode = Literal["overlay", "side_by_side", "difference"]
Statistic = Literal["mean", "std", "static", "dynamic", "total"]
Score = Literal[
    "activity",
    "entropy",
    "previous_token",
    "duplicate_token",
    "induction",
    "prefix_matching",
]

PARTS: tuple[Part, ...] = get_args(Part)
MODES: tuple[Mode, ...] = get_args(Mode)
STATISTICS: tuple[Statistic, ...] = get_args(Statistic)
SCORES: tuple[Score, ...] = get_args(Score)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to compute and to draw.

    Attributes:
        model: Name, folder or hub id of the model.
        baseline: The same of the Transformer beside it; ``None`` for no baseline.
        text: A text file, or a folder of them; ``None`` for the bundled held-out text.
        dataset: A Hugging Face dataset instead.
        dataset_config: The dataset's configuration, where it has several.
        split: The part of the dataset.
        column: The dataset's column that holds the text.
        sequences: How many sequences at most; ``None`` for all.
        context: Tokens in a sequence; ``None`` for 256 or the models' context if that is shorter.
        batch_size: Sequences in a forward pass; changes nothing but speed and memory.
        dtype: Precision of the weights; ``None`` for that of the checkpoints.
        device: Where to run; ``None`` for torch's default.
        prompt: One text to look at closely; ``None`` for the first tokens of the corpus.
        prompt_ids: Token ids instead of a prompt: one sequence.
        scope: Whether averages are over the corpus or over the prompt.
        mode: How two models share a figure; ``None`` for the figure's own way.
        of: Which of the two, where a figure shows one.
        position: A token of the prompt, from 0; ``None`` for the last one.
        layer: A block, or the aggregation after it; ``None`` for the one at 25/32 of the depth,
            the paper's choice for its attention maps.
        head: An attention head of that layer.
        stream: An input stream.
        source: An earlier output X_source: 0 is the embedding, 1 the first block's output.
        statistic: What of the dense weights; ``None`` for mean and standard deviation.
        raw: Dense weights as they are, not multiplied by the mean norm of their source.
        sinks: Token ids that count as attention sinks; ``None`` for those of the paper.
        sink_positions: How many first positions count as sinks.
        score: What heads are ranked by.
        answer: The token whose prediction is explained, as text (as an id where the model has no
            tokenizer); ``None`` for the likeliest one.
        against: A token whose logit is subtracted from the answer's.
        corrupted: A prompt with as many tokens, whose run is held against the prompt's, as text (as
            ids such as ``5,17,9`` where the model has no tokenizer).
        edits: What to change in both models, as text: ``cut v 5<-2; cut head 7.2``.
    """

    model: Name = "mudd-tiny"
    baseline: Name | None = "tfm-tiny"
    text: Name | None = None
    dataset: Name | None = None
    dataset_config: Name | None = None
    split: Name = "validation"
    column: Name = "text"
    sequences: Count | None = None
    context: Context | None = None
    batch_size: Rows = 8
    dtype: Name | None = None
    device: Name | None = None
    prompt: Prompt | None = None
    prompt_ids: Ids | None = None
    scope: Scope = "corpus"
    mode: Mode | None = None
    of: Part = "model"
    position: Position | None = None
    layer: Place | None = None
    head: Place = 0
    stream: Stream = "v"
    source: Place = 1
    statistic: Statistic | None = None
    raw: bool = False
    sinks: Ids | None = None
    sink_positions: Position = 2
    score: Score = "induction"
    answer: Token | None = None
    against: Token | None = None
    corrupted: Prompt | None = None
    edits: EditsText | None = None

    def __post_init__(self) -> None:
        """Hold each value against its type and bound.

        Raises:
            ValueError: If one is of another type or out of bounds, a choice is unknown, a name or
                path is empty, or the prompt is empty or given twice.
        """
        _check(vars(self))

    @classmethod
    def of_values(cls, values: Mapping[str, Any]) -> "Request":
        """A request of values from outside: a command, a link, a manifest, a caller in Python.

        Ids may be a list, a NumPy array or a tensor, a path a ``Path``, a number NumPy's.

        Raises:
            ValueError: If a name is unknown, with the nearest ones; and as for a request.
        """
        known = _types()
        for name in values:
            if name not in known:
                raise ValueError(unknown_name("value of a request", str(name), known))
        arguments: dict[str, Any] = {n: plain(n, v, n in _IDS) for n, v in values.items()}
        _check(arguments)  # before their types are
        return cls(**arguments)


_IDS = ("prompt_ids", "sinks")

_TEXTS = {
    "model": "a name, a folder or a hub id",
    "baseline": "a name, a folder or a hub id, or none",
    "text": "a text file or a folder of them, or leave it out",
    "dataset": "the name of a dataset, or leave it out",
    "dataset_config": "the name of a configuration, or leave it out",
    "split": "the name of a split, such as validation",
    "column": "the name of a column, such as text",
    "dtype": "a precision, such as float32, or leave it out",
    "device": "a device, such as cpu, or leave it out",
    "answer": "the text of one token",
    "against": "the text of one token",
    "corrupted": "the text of a prompt with as many tokens",
}


@cache
def _types() -> dict[str, Any]:
    """The type of each value, with its bound."""
    return get_type_hints(Request, include_extras=True)


def _check(values: Mapping[str, Any]) -> None:
    prompt, ids = values.get("prompt"), values.get("prompt_ids")
    if prompt is not None and ids is not None:
        raise ValueError("give a prompt as text or as token ids, not both.")
    if prompt == "" or ids == ():
        raise ValueError("the prompt is empty: give at least one token.")
    for name, expected in _TEXTS.items():
        if values.get(name) == "":
            raise ValueError(f"{name} is empty: give {expected}.")
    for name, value in values.items():
        checked(_types()[name], value, name)


def changed(request: Request, names: Sequence[str]) -> dict[str, Any]:
    """The named values of a request that are not the default ones."""
    return {
        field.name: getattr(request, field.name)
        for field in fields(Request)
        if field.name in names and getattr(request, field.name) != field.default
    }


def command_line(figure: str, request: Request, names: Sequence[str], out: str = "figures") -> str:
    """The command that makes one figure and its numbers, for a shell.

    Args:
        figure: Its name in the catalog.
        request: What to draw.
        names: The values that the figure depends on.
        out: The folder to make.
    """
    words = ["mudd-interp", "figures", "--only", figure]
    for name, value in changed(request, names).items():
        words += _option(name, value)
    return shlex.join([*words, "--out", out])


def _option(name: str, value: Any) -> list[str]:
    flag = "--" + name.replace("_", "-")
    if value is True:
        return [flag]
    if value is None or value == ():
        return [flag, "none"]
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    # With "=", so that a prompt that begins with a dash is no option of its own.
    return [f"{flag}={text}"] if text.startswith("-") or not text else [flag, text]


def python_lines(figure: str, request: Request, names: Sequence[str]) -> str:
    """The Python lines that make one figure and its numbers."""
    arguments = [repr(figure)]
    arguments += [f"{name}={value!r}" for name, value in changed(request, names).items()]
    one_line = f"drawn = mi.draw({', '.join(arguments)})"
    if len(one_line) > 100:
        one_line = "drawn = mi.draw(\n" + "".join(f"    {each},\n" for each in arguments) + ")"
    return f"import mudd_interp as mi\n\n{one_line}\ndrawn.figure.show()\ndrawn.frame\n"


def canonical(values: Any) -> str:
    """One text for equal values, whatever order they came in: to hash, and to compare."""
    if isinstance(values, Request):
        values = asdict(values)
    return json.dumps(values, sort_keys=True, separators=(",", ":"), default=list)
