"""One table of options: what a request's field says of itself, for a command, a link and a page.

A field of ``mudd_interp.request.Request`` is annotated with its type, which has its bounds, and an
:class:`Option`. From these rows come the flags of the command, the keys of a link and the widgets
of a page: a new option is one field.
"""

import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, fields
from types import MappingProxyType, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Interval, Len

from mudd_interp.encoding import LARGEST_ID


@dataclass(frozen=True)
class Option:
    """What an annotation says of a field besides its type.

    Attributes:
        key: Its short name in a link, which never changes.
        help: What it is, in a few words.
        label: What a page calls it; empty where no widget shows it.
        word: A word for a value that has no text of its own, and that value.
        most: The largest number that a page or a link may ask for, or the most characters or ids,
            where that is less than the type allows, because there the user may not have chosen it.
        packed: Whether a link holds it compressed.
    """

    key: str
    help: str
    _: KW_ONLY
    label: str = ""
    word: tuple[str, Any] | None = None
    most: int | None = None
    packed: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """One option.

    Attributes:
        name: The field.
        option: What the annotation says of it.
        whole: Its type, as it is annotated.
        kind: The same without ``None``.
        default: Its value if none is given.
    """

    name: str
    option: Option
    whole: Any
    kind: Any
    default: Any

    @property
    def plain(self) -> Any:
        """The Python type: ``bool``, ``int``, ``str`` or ``tuple``."""
        kind = get_args(self.kind)[0] if get_origin(self.kind) is Annotated else self.kind
        return str if self.choices else get_origin(kind) or kind

    @property
    def is_text(self) -> bool:
        """Whether it is free text of at least one character."""
        return self.plain is str and not self.choices and self._said(Len).min_length > 0

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that it may be; none where it is free."""
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()

    @property
    def bounds(self) -> tuple[int, int]:
        """The least and the largest number."""
        interval = self._said(Interval)
        return int(interval.ge), int(interval.le)

    @property
    def longest(self) -> int:
        """The most characters or ids."""
        return int(self._said(Len).max_length)

    @property
    def most(self) -> int:
        """The largest number, or the most characters or ids, that a page or a link may ask for."""
        most = self.bounds[1] if self.plain is int else self.longest
        return most if self.option.most is None else self.option.most

    @property
    def in_words(self) -> str:
        """What to give, for a message."""
        says = self.option.help[0].lower() + self.option.help[1:]
        return says if self.default is not None else says.rstrip(".") + ", or leave it out."

    def _said(self, of: type) -> Any:
        return next(each for each in get_args(self.kind) if isinstance(each, of))

    def of_text(self, text: str, separator: str = ",") -> Any:
        """The value that a text spells; plain text stays as it is.

        Args:
            text: As a person or a link writes it.
            separator: Between ids; besides a comma there may be spaces.

        Raises:
            ValueError: If it does not spell one, with what was expected.
        """
        if self.option.word is not None and text == self.option.word[0]:
            return self.option.word[1]
        if self.choices and text not in self.choices:
            raise ValueError(f"expected one of {', '.join(self.choices)}")
        if self.plain is int:
            return _whole(text)
        return _ids(text, separator) if self.plain is tuple else text

    def to_text(self, value: Any, separator: str = ",") -> str:
        """What :meth:`of_text` reads back."""
        if self.option.word is not None and value == self.option.word[1]:
            return self.option.word[0]
        return separator.join(map(str, value)) if isinstance(value, tuple) else str(value)

    def asked(self, value: Any) -> Any:
        """A value that a page or a link gives, if it is one that they may ask for.

        Raises:
            ValueError: If it is not, with what was expected.
        """
        if self.plain is int and value is not None:
            low = self.bounds[0]
            if not low <= value <= self.most:
                raise ValueError(f"expected a whole number from {low} to {self.most}")
        elif isinstance(value, tuple | str) and not self.choices and len(value) > self.most:
            what = "token ids" if self.plain is tuple else "characters"
            raise ValueError(f"expected at most {self.most:,} {what}, got {len(value):,}")
        if isinstance(value, tuple) and max(value, default=0) > LARGEST_ID:
            raise ValueError(f"expected token ids from 0 to {LARGEST_ID}")
        return value


def _whole(text: str) -> int:
    if not re.fullmatch("[0-9]{1,10}", text):
        raise ValueError("expected a whole number, in digits")
    return int(text)


def _ids(text: str, separator: str) -> tuple[int, ...]:
    words = re.split(r"[\s,]+", text.strip(" ,\n")) if separator == "," else text.split(separator)
    if not all(re.fullmatch("[0-9]{1,30}", word) for word in words):
        raise ValueError(f"expected token ids such as {separator.join(('5', '17', '9'))}")
    return tuple(map(int, words))


def table(of: type) -> Mapping[str, Row]:
    """The options of a dataclass, by name.

    Raises:
        StopIteration: If a field has none: each is an option.
    """
    types = get_type_hints(of, include_extras=True)
    rows: dict[str, Row] = {}
    for field in fields(of):
        whole = types[field.name]
        option = next(each for each in get_args(whole) if isinstance(each, Option))
        kind = _without_none(get_args(whole)[0])
        if kind in (bool, int, str):
            kind = whole  # which has the bounds
        rows[field.name] = Row(
            name=field.name, option=option, whole=whole, kind=kind, default=field.default
        )
    return MappingProxyType(rows)


def _without_none(kind: Any) -> Any:
    if get_origin(kind) not in (Union, UnionType):
        return kind
    return next(each for each in get_args(kind) if each is not NoneType)
