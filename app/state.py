"""The view, and the link that reopens it.

A view is one flat dictionary, of the fields of a ``Request``. It lives in the session, so it
survives a change of page; whatever is not the default is in the URL.
"""

import base64
import hashlib
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice, product
from typing import Any
from urllib.parse import quote, urlencode

import streamlit as st

from mudd_interp.checkpoints.names import BUNDLED
from mudd_interp.edits import as_edits, edits_text
from mudd_interp.options import Row
from mudd_interp.request import OPTIONS, ROLES, Request, canonical
from mudd_interp.values import LONGEST_PROMPT

View = dict[str, Any]

EXAMPLES = {
    "Induction: a pattern that comes again": (
        'alpha = load("alpha.json")\nbeta = load("beta.json")\ngamma = load("gamma.json")\n'
        'alpha = load("alpha'
    ),
    "Docstring: the arguments, in order": (
        "def resize(image, width, height, mode):\n"
        '    """Change the size of an image.\n\n    Args:\n        image: What to change.\n'
        "        width: Pixels of a row.\n        height: Rows.\n       "
    ),
    "Bracket: what is open is to be closed": (
        "values = [max(0, min(255, int(x * (scale + 1)))) for x in (first, second"
    ),
    "Loop variable: who is i?": (
        "def total(rows):\n    result = 0\n    for i in range(len(rows)):\n        result += rows["
    ),
}
"""Prompts that mean something to models of Python source."""

LONGEST_LINK = 1900
"""Characters of the query: with the address before it the link stays under 2 kB."""

LONGEST_LINKED_NAME = 400
"""Characters of a name in a link, where anything but a letter or digit may take three per byte."""

MOST_VALUES = 64
"""How many values of a link are read."""

_UNASKED_EDITS = 8  # each is a pass of its own over the text


@dataclass(frozen=True)
class Field:
    """How one value of the view is written into a link.

    Attributes:
        key: Its short name there, which never changes.
        default: What is meant when the link does not say.
        read: Text to value; raises ``ValueError`` with what was expected.
        write: Value to text.
    """

    key: str
    default: Any
    read: Callable[[str], Any]
    write: Callable[[Any], str]


def check_name(text: str) -> str:
    """The name of a model, a file or a dataset, if a link can carry it.

    Raises:
        ValueError: If it is empty, has control characters, or is too long for a link.
    """
    if not text.strip() or not text.isprintable() or len(quote(text, "")) > LONGEST_LINKED_NAME:
        raise ValueError(
            f"a name must have 1 to {LONGEST_LINKED_NAME} characters, as a link writes them, and "
            "no control character"
        )
    return text


def pack(text: str) -> str:
    """A text, compressed, in characters that a link keeps as they are."""
    return base64.urlsafe_b64encode(zlib.compress(text.encode(), 9)).decode().rstrip("=")


def unpack(packed: str) -> str:
    """What :func:`pack` packed.

    Raises:
        ValueError: If it is damaged, or a bomb.
    """
    if len(packed) > 8 * LONGEST_PROMPT:
        raise ValueError("expected a shorter text")
    try:
        data = base64.b64decode(packed + "=" * (-len(packed) % 4), b"-_", validate=True)
        stream = zlib.decompressobj()
        text = stream.decompress(data, 4 * LONGEST_PROMPT).decode()
    except (ValueError, zlib.error) as error:
        raise ValueError("expected a packed text, whole") from error
    if not stream.eof or not text or len(text) > LONGEST_PROMPT:
        raise ValueError("expected a packed text, whole")
    return text


def _read(row: Row, text: str) -> Any:
    """The value of an option in a link."""
    if row.plain is bool:
        if text != "1":
            raise ValueError("expected 1")
        return True
    if row.option.packed:
        text = unpack(text)
    elif row.is_text and text != _word(row):
        check_name(text)
    value = row.asked(row.of_text(text, "."))
    return edits_text(value) or None if row.name == "edits" else value


def _write(row: Row, value: Any) -> str:
    if row.plain is bool:
        return "1"
    text = row.to_text(value, ".")
    return pack(text) if row.option.packed else text


def _word(row: Row) -> str | None:
    return None if row.option.word is None else row.option.word[0]


STARTS: Mapping[str, Any] = {"sequences": 32, "prompt": next(iter(EXAMPLES.values()))}
"""What a page begins with instead of a request's defaults."""

FIELDS: dict[str, Field] = {
    row.name: Field(
        row.option.key,
        STARTS.get(row.name, row.default),
        partial(_read, row),
        partial(_write, row),
    )
    for row in OPTIONS.values()
}
"""Everything that makes a view."""

PROMPT, CORRUPTED, EDITS = "pd", "cd", "ed"
DIGESTED = {PROMPT: ("prompt", "prompt_ids"), CORRUPTED: ("corrupted",), EDITS: ("edits",)}
"""By the key of a digest, the values that it stands for if they do not fit into the link."""

ASKED = ("model", "baseline", "text", "dataset", "images", "device", "dtype", "edits")
"""What makes the server read, load or compute more than it was started for."""

_OF_DATASET = ("dataset", "dataset_config", "split", "column")


def default_view() -> View:
    """The view of a link that says nothing."""
    return {name: field.default for name, field in FIELDS.items()}


def encode(view: View) -> dict[str, str]:
    """The query parameters of a view: what is not the default.

    If that is too long, digests stand for as many of the longest texts as it takes.
    """
    changed = {name for name, field in FIELDS.items() if view[name] != field.default}
    if view["prompt_ids"] is not None:
        changed.discard("prompt")
    params = {FIELDS[name].key: FIELDS[name].write(view[name]) for name in sorted(changed)}
    digests = {key: digest([view[name] for name in names]) for key, names in DIGESTED.items()}
    lengths = {key: sum(len(params.get(k, "")) for k in _keys(key)) for key in DIGESTED}
    for key in sorted(DIGESTED, key=lengths.__getitem__, reverse=True):
        if len(urlencode(params)) > LONGEST_LINK and lengths[key] > len(digests[key]):
            params = _digested(params, {key: digests[key]})
    return params


def digest(values: Sequence[Any]) -> str:
    """The sha256 that stands for values that do not fit into a link."""
    return hashlib.sha256(canonical(values).encode()).hexdigest()


def _keys(key: str) -> set[str]:
    """The keys under which a link has what a digest stands for."""
    return {FIELDS[name].key for name in DIGESTED[key]}


def _digested(params: Mapping[str, str], digests: Mapping[str, str]) -> dict[str, str]:
    """Query parameters with digests in place of what they stand for."""
    dropped = set[str]().union(*map(_keys, digests))
    return {key: text for key, text in params.items() if key not in dropped} | dict(digests)


@dataclass(frozen=True)
class Opened:
    """What a link says.

    Attributes:
        view: The view, with the default for whatever it does not say or says wrongly.
        notices: A sentence for each value that was ignored.
        digests: By key in :data:`DIGESTED`, the digest of what was too long for the link.
    """

    view: View
    notices: tuple[str, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict[str, str])


def decode(params: Mapping[str, str]) -> Opened:
    """The view of a link's query parameters; never raises."""
    names = {field.key: name for name, field in FIELDS.items()}
    view, notices, digests = default_view(), list[str](), dict[str, str]()
    if len(params) > MOST_VALUES:
        notices.append(f"Of {len(params):,} values {MOST_VALUES} are read.")
    for key, text in islice(params.items(), MOST_VALUES):
        try:
            if key in DIGESTED:
                digests[key] = _digest(text)
            elif key in names:
                view[names[key]] = FIELDS[names[key]].read(text)
            else:
                raise ValueError("there is no such value")
        except ValueError as error:
            what = f" ({names[key]})" if key in names else ""
            notices.append(
                f"{_short(key, False)}={_short(text)}{what} is ignored: {str(error).rstrip('.')}."
            )
    if view["prompt_ids"] is not None:
        if "p" in params:
            notices.append("p (prompt) is ignored: the link gives token ids too.")
        view["prompt"] = None
    return Opened(view, tuple(notices), digests)


def _digest(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise ValueError("expected a sha256 digest")
    return text


def _short(text: str, quoted: bool = True) -> str:
    short = ascii(text if len(text) <= 40 else text[:37] + "...")
    return short if quoted else short[1:-1]


# The session. "view", "notices" and "wanted" (digests) are what the last link said; "trusted" are
# the values that a person gave, and "named" those that the dashboard was started with, each with
# its name; "written" is the query that this session last put into the browser's address.


def open_view(start: Mapping[str, Any]) -> None:
    """Begin a run: take the view from the link, in a new session or when the link was changed.

    Args:
        start: Values of a new session whose link says nothing.
    """
    session, params = st.session_state, st.query_params.to_dict()
    if "view" not in session:
        session["named"] = {*start.items(), *product(ROLES, BUNDLED)}
        session["trusted"] = set(session["named"])
        _take(decode(params) if params else Opened(default_view() | dict(start)))
    # A widget used while the address was on its way takes precedence over the old address.
    elif params and params != session["written"] and not session["touched"]:
        _take(decode(params))
    session["touched"] = False
    write_link()


def _take(opened: Opened) -> None:
    session = st.session_state
    before = session.get("view")
    session["view"], session["notices"] = opened.view, opened.notices
    session["wanted"] = dict(opened.digests)
    for key, wanted in opened.digests.items():
        names = DIGESTED[key]
        if before is not None and wanted == digest([before[name] for name in names]):
            opened.view.update({name: before[name] for name in names})
            del session["wanted"][key]


def write_link() -> None:
    """Put the view into the browser's address; also at the end of a run, which may change it."""
    params = link_params()
    if params != st.query_params.to_dict():
        st.query_params.from_dict(params)
    st.session_state["written"] = params


def link_params() -> dict[str, str]:
    """The query parameters of this session's view."""
    return _digested(encode(view()), st.session_state["wanted"])


def link() -> str:
    """The address that reopens this view."""
    address, query = (st.context.url or "").split("?")[0], urlencode(link_params())
    return f"{address}?{query}" if query else address


def view() -> View:
    """This session's view; change it with :func:`put`."""
    return st.session_state["view"]


def request() -> Request:
    """What the view asks of the library."""
    return Request(**view())


def notices() -> tuple[str, ...]:
    """What was ignored in the link that was opened last."""
    return st.session_state["notices"]


def wanted(key: str) -> str | None:
    """The digests of what the link means and does not carry, by key in :data:`DIGESTED`."""
    return st.session_state["wanted"].get(key)


def put(**values: Any) -> None:
    """Change the view, as a person does."""
    session = st.session_state
    session["wanted"] = {
        key: wanted
        for key, wanted in session["wanted"].items()
        if not values.keys() & set(DIGESTED[key])
    }
    session["view"] = view() | values
    trust(values)
    session["notices"], session["touched"] = (), True


def trust(names: Iterable[str]) -> None:
    """Remember that a person gave the values of the view that have these names, or agreed to them.

    A dataset is trusted with its configuration, part and column.
    """
    names = {*names, *(["dataset"] if {*names} & {*_OF_DATASET} else [])}
    st.session_state["trusted"].update(each for each in _to_ask("named") if each[0] in names)


def unasked() -> dict[str, Any]:
    """By name in :data:`ASKED`, what only a link gave."""
    return {name: view()[name] for name, _ in _to_ask("trusted")}


def unnamed() -> dict[str, Any]:
    """Likewise, what the dashboard was not started with, whoever gave it."""
    return {name: view()[name] for name, _ in _to_ask("named")}


def _to_ask(known: str) -> list[tuple[str, Any]]:
    """What of the view is not in one of the session's sets."""
    found = [(name, view()[name]) for name in ASKED if view()[name] is not None]
    whole = tuple(view()[name] for name in _OF_DATASET)
    found = [(name, whole if name == "dataset" else value) for name, value in found]
    return [each for each in found if each not in st.session_state[known] and not _is_small(*each)]


def _is_small(name: str, value: Any) -> bool:
    return name == "edits" and len(as_edits(value)) <= _UNASKED_EDITS


def bound(name: str) -> dict[str, Any]:
    """Arguments that tie a widget to a value of the view: ``st.toggle("Raw", **bound("raw"))``."""
    key = f"view_{name}"
    st.session_state[key] = view()[name]
    return {"key": key, "on_change": _changed, "args": (name,)}


def _changed(name: str) -> None:
    put(**{name: st.session_state[f"view_{name}"]})


def ignore(notice: str) -> None:
    """Have the page say, the next time it opens, that a value was ignored."""
    st.session_state["notices"] = (*notices(), notice)


def plain(text: str) -> str:
    """Text as it stands, for Streamlit's Markdown: it makes no picture, formula or colour."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(text.split()))
