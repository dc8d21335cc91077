"""Make the items of the local tasks anew, from the held-out files of the bundled pair.

A maintainer runs ``python -m mudd_interp.evaluation.build`` after the pinned versions have changed.
Nothing here looks at what a model answers.
"""

import io
import keyword
import random
import tokenize
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from tokenizers import Tokenizer

from mudd_interp.evaluation.items import Item, write_items
from mudd_interp.evaluation.names import FEATURES, credit, frequency, recency
from mudd_interp.evaluation.rules import BRACKETS
from mudd_interp.training.corpus import SourceFile, read_corpus, read_manifest
from mudd_interp.training.tokenizer import load_packing_tokenizer

LONGEST, SHORTEST = 700, 200  # characters of a context
MOST_TOKENS = 255  # context and answer; with a token before them they fit the bundled pair
CLOZE_ITEMS, CLOZE_OF_A_FILE, CLOZE_APART = 1_700, 40, 40
LAMBADA_ITEMS, LAMBADA_OF_A_FILE, LAMBADA_APART = 1_000, 20, 80
BRACKET_ITEMS, BRACKET_OF_A_FILE, BRACKET_APART = 250, 48, 40  # of each kind
UNUSED_FOR = 80
"""Characters in which LAMBADA's name must not have been used: it is not to be read off there."""
OPEN_FOR = 15
"""Characters since the innermost open bracket: nearer ones are no question."""

CLOSING = (")", "]", "}", ":")
_TRIPLES = 200  # of distractors that are tried for an item


@dataclass(frozen=True)
class Token:
    """A token of Python's own tokenizer.

    Attributes:
        start: Its first character in the text.
        text: The token.
        opened: Where the innermost bracket begins that is open before it; −1 where none is.
    """

    start: int
    text: str
    opened: int = -1


@dataclass(frozen=True)
class Document:
    """A held-out file with the places of its names and of its closing signs."""

    source: SourceFile
    text: str
    names: tuple[Token, ...]
    signs: tuple[Token, ...]

    @classmethod
    def of(cls, source: SourceFile, text: str) -> "Document":
        """Read a file with Python's tokenizer: strings and comments have no names."""
        starts = [0]
        for line in text.split("\n"):
            starts.append(starts[-1] + len(line) + 1)
        names, signs, opened = list[Token](), list[Token](), list[int]()
        for kind, string, (row, column), _, _ in tokenize.generate_tokens(
            io.StringIO(text).readline
        ):
            token = Token(starts[row - 1] + column, string, opened[-1] if opened else -1)
            if kind == tokenize.NAME and not keyword.iskeyword(string):
                names.append(token)
            elif kind == tokenize.OP and string in CLOSING:
                signs.append(token)
            if kind == tokenize.OP and string in BRACKETS:
                opened.append(token.start)
            elif kind == tokenize.OP and string in BRACKETS.values():
                opened.pop()
        return cls(source, text, tuple(names), tuple(signs))


class Cutter:
    """Cuts contexts that the bundled tokenizer, and so a model, reads as they are meant.

    Args:
        tokenizer: Of the bundled pair.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer

    def ids(self, text: str) -> list[int]:
        """The ids of a text."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def cut(self, document: Document, end: int, choices: Sequence[str]) -> str | None:
        """The context before a place, or ``None`` if there is none that will do.

        It begins with a line, ends with a character that is no space, and is not merged with any
        of the choices: the ids of both together are those of one and then of the other.
        """
        text = document.text
        start = _line_after(text, end - LONGEST) if end > LONGEST else 0
        longest = max(len(self.ids(choice)) for choice in choices)
        while end - start >= SHORTEST:
            context = text[start:end]
            ids = self.ids(context)
            if len(ids) + longest <= MOST_TOKENS:
                apart = all(self.ids(context + c) == ids + self.ids(c) for c in choices)
                return context if apart and not context[-1].isspace() else None
            start = _line_after(text, start + 1)
        return None


def _line_after(text: str, at: int) -> int:
    """Where the first line begins that begins at a place or after it."""
    return text.find("\n", max(at - 1, 0)) + 1 or len(text)


def _item(document: Document, end: int, context: str, choices: Sequence[str], answer: int) -> Item:
    source = document.source
    origin = (source.package, source.version, source.path, source.sha256)
    return Item(*origin, end, context, tuple(choices), answer)


def _spread(
    places: Iterable[tuple[Document, Token]], most: int, apart: int, rng: random.Random
) -> Iterator[tuple[Document, Token, Callable[[], None]]]:
    """Places in random order, so many of a file at most and so many characters apart.

    The function that comes with each says that it was used.
    """
    shuffled = list(places)
    rng.shuffle(shuffled)
    used: dict[str, list[int]] = {}
    for document, token in shuffled:
        there = used.setdefault(document.source.path, [])
        if len(there) < most and all(abs(token.start - at) >= apart for at in there):
            yield document, token, lambda there=there, at=token.start: there.append(at)


def cloze(documents: Sequence[Document], cutter: Cutter, rng: random.Random) -> list[Item]:
    """Which of four names comes next? All four were used before, and have as many tokens.

    Distractors are chosen so that the right name is the shortest, the most frequent and the most
    recent one in a quarter of the items each, and the longest, rarest and oldest one as well: who
    guesses by one of these is right as often as who guesses blindly.
    """
    items: list[Item] = []
    balance = Balance()
    places = ((d, t) for d in documents for t in d.names if _after_a_space(d.text, t))
    for document, token, use in _spread(places, CLOZE_OF_A_FILE, CLOZE_APART, rng):
        end = token.start - 1
        context = cutter.cut(document, end, [f" {token.text}"])
        if context is None or not frequency(context, token.text):
            continue
        names = _alike(document, token, context, cutter, rng)
        if names is None or (chosen := balance.choose(context, token.text, names, rng)) is None:
            continue
        choices = [f" {name}" for name in (token.text, *chosen)]
        rng.shuffle(choices)
        if cutter.cut(document, end, choices) == context:
            balance.add(context, token.text, chosen)
            use()
            answer = choices.index(f" {token.text}")
            items.append(_item(document, end, context, choices, answer))
        if len(items) == CLOZE_ITEMS:
            return items
    return items


def _after_a_space(text: str, token: Token) -> bool:
    """Whether a name follows one space that follows something else."""
    before = text[max(token.start - 2, 0) : token.start]
    return len(before) == 2 and before[1] == " " and not before[0].isspace()


def _alike(
    document: Document, token: Token, context: str, cutter: Cutter, rng: random.Random
) -> list[str] | None:
    """Other names of the context that have as many tokens; ``None`` if they are too few."""
    length = len(cutter.ids(f" {token.text}"))
    first = token.start - 1 - len(context)
    used = {t.text for t in document.names if first <= t.start < token.start - 1} - {token.text}
    alike = [name for name in sorted(used) if len(cutter.ids(f" {name}")) == length]
    rng.shuffle(alike)
    return alike if len(alike) >= 3 else None


class Balance:
    """How far the items so far favour who goes by one feature, upwards or downwards."""

    def __init__(self) -> None:
        self._sums = [0.0] * (2 * len(FEATURES))

    def choose(
        self, context: str, right: str, names: Sequence[str], rng: random.Random
    ) -> tuple[str, ...] | None:
        """The three distractors that bring the sums nearest to zero; ``None`` if all lead away."""
        triples = list(combinations(names, 3))
        triples = rng.sample(triples, min(len(triples), _TRIPLES))
        best = min(triples, key=lambda names: self._after(context, right, names))
        return best if self._after(context, right, best) <= max(self._now(), 3.0) else None

    def add(self, context: str, right: str, names: Sequence[str]) -> None:
        """Count an item."""
        gains = _gains(context, right, names)
        self._sums = [a + b for a, b in zip(self._sums, gains, strict=True)]

    def _now(self) -> float:
        return sum(each * each for each in self._sums)

    def _after(self, context: str, right: str, names: Sequence[str]) -> float:
        gains = _gains(context, right, names)
        return sum((a + b) ** 2 for a, b in zip(self._sums, gains, strict=True))


def _gains(context: str, right: str, names: Sequence[str]) -> list[float]:
    """What going by each feature is worth on an item, beyond blind guessing."""
    gains: list[float] = []
    for feature in FEATURES.values():
        values = tuple(feature(context, name) for name in (right, *names))
        gains += [credit(values, 0) - 0.25, credit(tuple(-v for v in values), 0) - 0.25]
    return gains


def lambada(documents: Sequence[Document], cutter: Cutter, rng: random.Random) -> list[Item]:
    """Write the name that comes next: it was used before, but not just now."""
    items: list[Item] = []
    places = ((d, t) for d in documents for t in d.names if len(t.text) > 2 and t.start > 1)
    for document, token, use in _spread(places, LAMBADA_OF_A_FILE, LAMBADA_APART, rng):
        spaced = document.text[token.start - 1] == " "
        end = token.start - spaced
        answer = " " * spaced + token.text
        context = cutter.cut(document, end, [answer])
        if context is None:
            continue
        last = recency(context, token.text)
        if 0 <= last < len(context) - UNUSED_FOR:
            use()
            items.append(_item(document, end, context, [answer], 0))
        if len(items) == LAMBADA_ITEMS:
            return items
    return items


def brackets(documents: Sequence[Document], cutter: Cutter, rng: random.Random) -> list[Item]:
    """Which sign comes next, ``)``, ``]``, ``}`` or ``:``? All stand in a bracket opened long ago.

    As many items of each, as far as the files have them (a ``}`` rarely follows a name).
    """
    items, count = list[Item](), Counter[str]()
    signs = ((d, t) for d in documents for t in d.signs if 0 <= t.opened <= t.start - OPEN_FOR)
    places = (each for each in signs if _by_itself(each[0].text, each[1]))
    for document, token, use in _spread(places, BRACKET_OF_A_FILE, BRACKET_APART, rng):
        if count[token.text] == BRACKET_ITEMS:
            continue
        context = cutter.cut(document, token.start, CLOSING)
        if context is not None and token.opened >= token.start - len(context):
            use()
            count[token.text] += 1
            answer = CLOSING.index(token.text)
            items.append(_item(document, token.start, context, CLOSING, answer))
    return items


def _by_itself(text: str, token: Token) -> bool:
    """Whether a sign stands between what is no sign, so that it is a token by itself."""
    around = text[token.start - 1 : token.start] + text[token.start + 1 : token.start + 2]
    return len(around) == 2 and _is_word(around[0]) and (_is_word(around[1]) or around[1].isspace())


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"


BUILDERS = {"identifier_cloze": cloze, "lambada_code": lambada, "closing_bracket": brackets}
"""What makes the items of each local task."""


def held_out_documents() -> list[Document]:
    """The held-out files of the bundled pair, as they are installed.

    Raises:
        ValueError: If one is missing, or is not the one that the manifest names.
    """
    sources = [source for source in read_manifest() if source.split == "validation"]
    return [Document.of(source, text) for source, text in read_corpus(sources)]


def build(documents: Sequence[Document], task: str) -> list[Item]:
    """The items of one local task, in random order, so that the first ones are a sample of all."""
    cutter = Cutter(load_packing_tokenizer())
    return BUILDERS[task](documents, cutter, random.Random(task))


if __name__ == "__main__":
    found = held_out_documents()
    for name in BUILDERS:
        write_items(name, build(found, name))
