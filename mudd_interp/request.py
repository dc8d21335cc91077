"""What is looked at, in plain values: the one description behind a command, a link and a manifest.

A :class:`Request` names two models, a corpus, a prompt and a place in them. Nothing here needs
torch, so a link can be read before anything is loaded.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, get_args

from mudd_interp.axes import Stream, unknown_name
from mudd_interp.options import Option, table
from mudd_interp.schema import checked
from mudd_interp.values import (
    Context,
    Count,
    EditsText,
    Ids,
    Index,
    Name,
    Position,
    Prompt,
    Rows,
    Token,
    plain,
)

Role = Literal["model", "baseline"]
Scope = Literal["corpus", "prompt"]
Mode = Literal["overlay", "side_by_side", "difference"]
Statistic = Literal["mean", "std", "static", "dynamic", "total"]
HeadMeasure = Literal[
    "activity",
    "entropy",
    "previous_token",
    "duplicate_token",
    "induction",
    "prefix_matching",
]

ROLES: tuple[Role, ...] = get_args(Role)
MODES: tuple[Mode, ...] = get_args(Mode)
STATISTICS: tuple[Statistic, ...] = get_args(Statistic)
HEAD_MEASURES: tuple[HeadMeasure, ...] = get_args(HeadMeasure)


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
        position: A token of the prompt, from 0; ``None`` for the last one. Of an image a patch, row
            by row; ``None`` for the one in the middle.
        layer: A block, or the aggregation after it; ``None`` for the one at 25/32 of the depth,
            the paper's choice for its attention maps.
        head: An attention head of that layer.
        stream: An input stream.
        source: An earlier output X_source: 0 is the embedding, 1 the first block's output;
            ``None`` for that one, or where it is not read the first one that is.
        statistic: Which statistic of the dense weights; ``None`` for mean and standard deviation.
        raw: Dense weights as they are, not multiplied by the mean norm of their source.
        sinks: Token ids that count as attention sinks; ``None`` for those of the paper.
        sink_positions: How many first positions count as sinks.
        score: What heads are ranked by.
        answer: The token whose prediction is explained, as text (as an id where the model has no
            tokenizer), or the class, by name or number; ``None`` for the likeliest one.
        against: A token, or a class, whose logit is subtracted from the answer's.
        corrupted: A prompt with as many tokens, whose run is compared with the prompt's, as text
            (as ids such as ``5,17,9`` where the model has no tokenizer).
        edits: What to change in both models, as text: ``cut v 5<-2; cut head 7.2``.
        block: The block that reads a stream, or the number of blocks for the final norm; ``None``
            for ``layer``. (Row ``i`` of the dense weights feeds block ``i + 1``.)
        images: For models that read images instead of text: a picture, a folder of them or a file
            of many; ``None`` for the bundled test images.
        image: The one to look at closely, from 0.
        resize: Cut images square and bring them to the size and channels that the model reads.
    """

    model: Annotated[Name, Option("m", "A name, a folder or a hub id.", label="Model")] = (
        "mudd-tiny"
    )
    baseline: Annotated[
        Name | None,
        Option(
            "b",
            "A name, a folder or a hub id, or none: the Transformer beside it.",
            label="Baseline",
            word=("none", None),
        ),
    ] = "tfm-tiny"
    text: Annotated[Name | None, Option("t", "A text file, or a folder of them.")] = None
    dataset: Annotated[Name | None, Option("d", "A Hugging Face dataset.")] = None
    dataset_config: Annotated[
        Name | None, Option("dg", "Its configuration, such as wikitext-2-raw-v1.")
    ] = None
    split: Annotated[Name, Option("ds", "A part of the dataset.")] = "validation"
    column: Annotated[Name, Option("dc", "The dataset's column of text.")] = "text"
    sequences: Annotated[
        Count | None,
        Option(
            "n",
            "At most this many.",
            label="Sequences at most",
            word=("all", None),
            most=100_000,
        ),
    ] = None
    context: Annotated[Context | None, Option("c", "Tokens in a sequence.")] = None
    batch_size: Annotated[Rows, Option("bs", "Sequences in a pass.", most=32)] = 8
    dtype: Annotated[Name | None, Option("ty", "A precision, such as float32 or bfloat16.")] = None
    device: Annotated[Name | None, Option("dv", "A device, such as cpu or cuda.")] = None
    prompt: Annotated[
        Prompt | None,
        Option("p", "A text to look at closely.", label="Prompt", packed=True),
    ] = None
    prompt_ids: Annotated[
        Ids | None, Option("i", "Token ids instead, such as 5,17,9.", packed=True)
    ] = None
    scope: Annotated[Scope, Option("s", "What averages are over.", label="Averages over")] = (
        "corpus"
    )
    mode: Annotated[
        Mode | None,
        Option(
            "o",
            "How two models share a figure; the figure's own way if not given.",
            label="Two models",
        ),
    ] = None
    of: Annotated[Role, Option("of", "Which of the two, where one is shown.")] = "model"
    position: Annotated[
        Position | None,
        Option("x", "A token of the prompt, or a patch of the image.", label="Token"),
    ] = None
    layer: Annotated[
        Index | None, Option("l", "A block, or the aggregation after it.", label="Layer")
    ] = None
    head: Annotated[Index, Option("h", "A head of that layer.", label="Head")] = 0
    stream: Annotated[Stream, Option("st", "An input stream.", label="Stream")] = "v"
    source: Annotated[
        Index | None,
        Option(
            "j",
            "An earlier output: 0 is the embedding, 1 that of the first block, which is meant if "
            "none is given.",
            label="Source",
        ),
    ] = None
    statistic: Annotated[
        Statistic | None,
        Option(
            "k",
            "Which statistic of the weights; mean and standard deviation if not given.",
            label="Statistic",
        ),
    ] = None
    raw: Annotated[
        bool,
        Option("r", "Weights and coefficients as they are, not multiplied by a norm.", label="Raw"),
    ] = False
    sinks: Annotated[
        Ids | None,
        Option(
            "z",
            "Sink token ids, such as 0,13, or none; the paper's if not given.",
            label="Sink token ids",
            word=("none", ()),
            most=64,
        ),
    ] = None
    sink_positions: Annotated[
        Position,
        Option(
            "zp",
            "How many first positions count as sinks.",
            label="First positions that are sinks",
            most=64,
        ),
    ] = 2
    score: Annotated[HeadMeasure, Option("q", "What heads are ranked by.", label="Heads by")] = (
        "induction"
    )
    answer: Annotated[
        Token | None,
        Option(
            "a",
            "A token, or a class of images, to explain the logit of.",
            label="Token whose logit is explained",
            most=100,
            packed=True,
        ),
    ] = None
    against: Annotated[
        Token | None,
        Option(
            "ag",
            "A token to subtract from it.",
            label="Minus the logit of",
            most=100,
            packed=True,
        ),
    ] = None
    corrupted: Annotated[
        Prompt | None, Option("cp", "A prompt to compare with it.", packed=True)
    ] = None
    edits: Annotated[
        EditsText | None, Option("e", "Edits, such as `cut v 5<-2; cut head 7.2`.", packed=True)
    ] = None
    block: Annotated[
        Index | None,
        Option(
            "rb",
            "The block that reads a stream; behind the last one, the final norm; --layer if not "
            "given.",
            label="Reading block",
        ),
    ] = None

    images: Annotated[
        Name | None,
        Option(
            "im",
            "An image, or a folder or file of them, for models that read images; the bundled "
            "ones if not given.",
            label="Images",
        ),
    ] = None
    image: Annotated[Index, Option("ii", "Which of the images, from 0.", label="Image")] = 0
    resize: Annotated[
        bool,
        Option("rz", "Cut and resize images to what the model reads.", label="Resize images"),
    ] = False

    def __post_init__(self) -> None:
        """Check each value against its type and bounds.

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
        for name in values:
            if name not in OPTIONS:
                raise ValueError(unknown_name("value of a request", str(name), OPTIONS))
        arguments: dict[str, Any] = {
            n: plain(n, v, OPTIONS[n].plain is tuple) for n, v in values.items()
        }
        _check(arguments)  # before their types are assumed
        return cls(**arguments)


OPTIONS = table(Request)
"""Every value of a request as an option, by name."""


def _check(values: Mapping[str, Any]) -> None:
    prompt, ids = values.get("prompt"), values.get("prompt_ids")
    if prompt is not None and ids is not None:
        raise ValueError("give a prompt as text or as token ids, not both.")
    if prompt == "" or ids == ():
        raise ValueError("the prompt is empty: give at least one token.")
    for name, value in values.items():
        row = OPTIONS[name]
        if isinstance(value, str) and not value and row.is_text:
            raise ValueError(f"{name} is empty: give {row.in_words}")
        checked(row.whole, value, name)


def changed(request: Request, names: Sequence[str]) -> dict[str, Any]:
    """The named values of a request that are not the default ones."""
    values = {row.name: getattr(request, row.name) for row in OPTIONS.values() if row.name in names}
    return {name: value for name, value in values.items() if value != OPTIONS[name].default}


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
    text = OPTIONS[name].to_text(value)
    # With "=", so that a prompt that begins with a dash is not taken for an option.
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
    """The same text for equal values, whatever order they came in: to hash and to compare."""
    if isinstance(values, Request):
        values = asdict(values)
    return json.dumps(values, sort_keys=True, separators=(",", ":"), default=list)
