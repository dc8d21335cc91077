"""``Edit``: one change to a forward pass, as a value with a text and a JSON form."""

import json
import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any, Literal, get_args

from mudd_interp.axes import STREAMS, Stream, unknown_name
from mudd_interp.files import parse_json
from mudd_interp.protocol import HookedModel
from mudd_interp.schema import shown
from mudd_interp.wiring import newest_source

Action = Literal["cut", "mean", "static", "plain", "shuffle"]
Target = Literal["edge", "head", "mlp"]

ACTIONS: tuple[Action, ...] = get_args(Action)

_FORMS = (
    "expected an edit such as `cut v 5<-2`, `mean q *<-*`, `static * 3<-*`, `plain r *<-0 @0,4-7`, "
    "`cut head 3.1` or `cut mlp 2`"
)
_FIELDS: dict[Target, tuple[str, ...]] = {
    "edge": ("stream", "layer", "source"),
    "head": ("layer", "head"),
    "mlp": ("layer",),
}
LARGEST_INDEX = 10**9 - 1
"""The largest layer, source or head that an edit may name: what its text form can say."""

LAST_POSITION = 2**20
"""The last position that an edit may name."""

MOST_POSITIONS = 2**16
"""Positions that the edits of one text may name together: a short text can name many."""

MOST_EDITS = 4096
"""Edits in one text; all edges of a model of 40 layers are fewer."""

_TOO_MANY = (
    f"the edits of a text may name {MOST_POSITIONS:,} positions together: name fewer, or leave "
    "them out, which means all."
)

_N = "[0-9]{1,9}"
_RUN = f"{_N}(?:-{_N})?"
_EDGE = rf"(?P<stream>[a-z]|\*) (?P<layer>{_N}|\*)<-(?P<source>{_N}|\*)"
_TEXT = re.compile(
    rf"(?P<action>[a-z]+) (?:{_EDGE}|head (?P<block>{_N})\.(?P<head>{_N})|mlp (?P<mlp>{_N}))"
    rf"(?: @(?P<positions>{_RUN}(?:,{_RUN})*))?"
)


@dataclass(frozen=True, kw_only=True)
class Edit:
    """One change to a forward pass: of dense edges, of a head, or of an FFN.

    An edge is the weight ``A^c_ij[t]`` that stream ``c`` of aggregation ``i`` (which follows block
    ``i`` and feeds block ``i + 1``) puts on the source ``X_j``. ``None`` for a stream, a layer or a
    source means all of them: a whole stream, a whole aggregation, a source everywhere.

    ``cut``
        The weight is 0; of a head or an FFN, the output is (its output bias included for an FFN;
        the bias of the attention's output belongs to no head and stays).
    ``mean``
        The weight is its mean over a corpus, as if the connection were static.
    ``static``
        The weight is its learned bias; dynamic part off.
    ``plain``
        The weight is that of the plain residual: 1 on the newest source, else 0.
    ``shuffle``
        The weights of an aggregate are permuted over the positions, in an order that depends only
        on the aggregate and the number of positions. A control: the same weights, at the wrong
        tokens. (A weight may come from a later token; nothing else does.)

    With PrePostDANorm the weight is on the normed source; the newest output, which the model adds
    after the aggregate, belongs to no edge, and alone it is the plain residual: there ``plain``
    sets all weights to 0, as ``cut`` does.

    Text and JSON forms are read back by :meth:`parse` and :meth:`from_dict`.

    Attributes:
        action: What to do.
        part: What it is done to.
        stream: Of an edge; ``None`` for all.
        layer: The aggregation of an edge (``None`` for all), or the block of a head or FFN.
        source: Of an edge; ``None`` for all.
        head: Of a head.
        positions: At which tokens: those at which the weight or output stands, from 0, ascending;
            ``None`` for all.

    Raises:
        ValueError: If the fields contradict each other.
    """

    action: Action
    part: Target = "edge"
    stream: Stream | None = None
    layer: int | None = None
    source: int | None = None
    head: int | None = None
    positions: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        _check(vars(self))

    @property
    def kept_outputs(self) -> int:
        """How many of the outputs X_0, X_1, ... come before anything changes."""
        if self.layer is None:
            return newest_source(max(0, (self.source or 0) - 1)) + 1
        return newest_source(self.layer) + 1 if self.part == "edge" else self.layer + 1

    def __str__(self) -> str:
        """The text form: ``cut v 5<-2 @0,4-7``."""
        if self.part == "head":
            place = f"head {self.layer}.{self.head}"
        elif self.part == "mlp":
            place = f"mlp {self.layer}"
        else:
            place = f"{_star(self.stream)} {_star(self.layer)}<-{_star(self.source)}"
        at = "" if self.positions is None else f" @{_runs(self.positions)}"
        return f"{self.action} {place}{at}"

    @classmethod
    def parse(cls, text: str) -> "Edit":
        """Read what :meth:`__str__` wrote.

        Raises:
            ValueError: If it is not an edit, with what one looks like.
        """
        found = _TEXT.fullmatch(" ".join(text.split()))
        if found is None:
            raise ValueError(f"{_FORMS}, got {shown(text)}.")
        read = found.groupdict()
        part = "head" if read["head"] else "mlp" if read["mlp"] else "edge"
        numbers = {
            "layer": read[{"edge": "layer", "head": "block", "mlp": "mlp"}[part]],
            "source": read["source"],
            "head": read["head"],
        }
        values = {"action": read["action"], "part": part, "stream": read["stream"]}
        values |= {name: None if n in (None, "*") else int(n) for name, n in numbers.items()}
        if read["stream"] == "*":
            values["stream"] = None
        if read["positions"]:
            values["positions"] = _positions(read["positions"])
        return cls.from_dict(values)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready copy; :meth:`from_dict` reads it back."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        return {n: list(v) if isinstance(v, tuple) else v for n, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Edit":
        """Read what :meth:`to_dict` wrote.

        Raises:
            ValueError: If a field is unknown or missing, or they contradict each other.
        """
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise ValueError(unknown_name("field of an edit", name, known))
        if "action" not in values:
            raise ValueError(f"an edit needs an action, one of {', '.join(ACTIONS)}.")
        arguments: Any = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
        _check(arguments)  # before their types are assumed
        return cls(**arguments)


def _check(values: Mapping[str, Any]) -> None:
    """Refuse fields that are unknown words or numbers, or contradict each other."""
    action, part = values["action"], values.get("part", "edge")
    for name, value, known in (("action", action, ACTIONS), ("part", part, tuple(_FIELDS))):
        if value not in known:
            raise ValueError(unknown_name(name, _plain(value), known))
    if part != "edge" and action != "cut":
        raise ValueError(f"`{action}` is about dense weights: a {part} can be cut only.")
    for name in ("stream", "layer", "source", "head"):
        given = values.get(name) is not None
        if given and name not in _FIELDS[part]:
            raise ValueError(f"an edit of a {part} has no {name}: leave it out.")
        if not given and part != "edge" and name in _FIELDS[part]:
            raise ValueError(f"a cut of a {part} needs its {name}: give one.")
    _check_places(values)


def _check_places(values: Mapping[str, Any]) -> None:
    stream, at = values.get("stream"), values.get("positions")
    if stream is not None and stream not in STREAMS:
        raise ValueError(f"stream must be one of {', '.join(STREAMS)}, got {shown(stream)}.")
    for name in ("layer", "source", "head"):
        value = values.get(name)
        if value is not None and not _is_whole(value, LARGEST_INDEX):
            raise ValueError(f"{name} must be a whole number from 0, got {shown(value)}.")
    if at is None:
        return
    whole = isinstance(at, tuple) and all(_is_whole(t, LAST_POSITION) for t in at)
    if not whole or not at or any(a >= b for a, b in pairwise(at)):
        raise ValueError(
            f"positions must be whole numbers from 0 to {LAST_POSITION}, ascending and at least "
            f"one, got {shown(at)}; None means all."
        )
    if len(at) > MOST_POSITIONS:
        raise ValueError(_TOO_MANY)


def _is_whole(value: Any, largest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= largest


Edits = Edit | str | Iterable[Edit | str]
"""Edits that apply together, in order (of two at one place, the later wins); as text, several are
separated by semicolons."""


def as_edits(given: Edits) -> tuple[Edit, ...]:
    """Edits, from values or texts.

    Raises:
        ValueError: If a text is not an edit, or has more than :data:`MOST_EDITS` of them, or more
            than :data:`MOST_POSITIONS` positions; the number of edits given as values is not
            limited.
    """
    if isinstance(given, Edit):
        return (given,)
    if isinstance(given, str):
        return tuple(_parsed([text for text in given.split(";") if text.strip()]))
    return tuple(edit for each in given for edit in as_edits(each))


def _parsed(texts: Sequence[str]) -> Generator[Edit]:
    """The edits of texts, as long as there are not too many."""
    if len(texts) > MOST_EDITS:
        raise ValueError(
            f"a text may hold {MOST_EDITS:,} edits, got {len(texts):,}: give fewer, or a list of "
            "Edit values."
        )
    named = 0
    for text in texts:
        edit = Edit.parse(text)
        named += len(edit.positions or ())
        if named > MOST_POSITIONS:
            raise ValueError(_TOO_MANY)
        yield edit


def edits_text(given: Edits) -> str:
    """Edits in one line; :func:`as_edits` reads it back."""
    return "; ".join(map(str, as_edits(given)))


def edits_to_json(given: Edits) -> str:
    """Edits as JSON; :func:`edits_from_json` reads it back."""
    return json.dumps([edit.to_dict() for edit in as_edits(given)])


def edits_from_json(text: str) -> tuple[Edit, ...]:
    """Read what :func:`edits_to_json` wrote.

    Raises:
        ValueError: If it is not a JSON list of edits.
    """
    try:
        values = parse_json(text, "it")
    except ValueError as error:
        raise ValueError(f"expected a JSON list of edits, got {shown(text)}: {error}") from error
    if not isinstance(values, list) or not all(isinstance(each, dict) for each in values):
        raise ValueError(f"expected a JSON list of edits, got {shown(text)}.")
    return tuple(map(Edit.from_dict, values))


def every_edge(model: HookedModel, action: Action = "cut") -> tuple[Edit, ...]:
    """One edit for each edge that has a weight, by stream, layer and source.

    A stream on the plain residual has one edge, on the newest source, and it can be cut only.
    """
    edits, wiring = list[Edit](), model.wiring
    for read in sorted(wiring.rows, key=lambda read: wiring.streams.index(read.stream)):
        columns = wiring.columns(read)
        if not wiring.weighed(read):
            columns = columns[-1:] if action == "cut" else ()
        edits += (
            Edit(action=action, stream=read.stream, layer=read.row, source=source)
            for source in columns
        )
    return tuple(edits)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else shown(value)


def _star(value: object) -> str:
    return "*" if value is None else str(value)


def _runs(positions: tuple[int, ...]) -> str:
    """Positions as text: ``0,4-7``."""
    runs: list[list[int]] = []
    for position in positions:
        if runs and runs[-1][1] == position - 1:
            runs[-1][1] = position
        else:
            runs.append([position, position])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def _positions(text: str) -> tuple[int, ...]:
    """What :func:`_runs` wrote; in any order, each once.

    Raises:
        ValueError: If one is beyond any sequence, or there are too many: a range is written out.
    """
    ends = [[int(end) for end in run.split("-")] for run in text.split(",")]
    if (highest := max(map(max, ends))) > LAST_POSITION:
        raise ValueError(f"the positions of an edit end at {LAST_POSITION}, got {highest}.")
    if sum(run[-1] - run[0] + 1 for run in ends if run[-1] >= run[0]) > MOST_POSITIONS:
        raise ValueError(_TOO_MANY)
    return tuple(sorted({at for run in ends for at in range(run[0], run[-1] + 1)}))
