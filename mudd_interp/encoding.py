"""Text -> token ids, and the text of a token: for every tokenizer, in one place.

There are two kinds of text. A document, from a file or a dataset, is nothing but text: if it
contains ``<|endoftext|>``, that means these characters, as in the training of the models here. A
prompt is an instruction: there ``<|endoftext|>`` is that token, as in TransformerLens.

A long document is encoded in windows, so that memory does not grow with it. Windows overlap, and
are joined between two words where both agree: on every token in the middle half of the overlap,
2,048 characters, so that the ends of a window, where a token may come out differently, are 1,024
characters away. A text is cut into words afresh at each word, and the tokens of a word depend on
nothing else: so the ids are those of the whole document. Where a tokenizer makes no words, windows
are joined between two tokens of byte-pair encoding, which are right if every two neighbours are.
Where two windows do not agree, both are encoded again as one, if need be up to the whole document.
"""

from bisect import bisect_left
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from string import printable
from typing import Any

from mudd_interp.panics import is_panic

LARGEST_ID = 2**31 - 1
"""Larger than any vocabulary; a number beyond it is not a token id."""

_WINDOW = 2**16  # characters
_SHARED = 2**12  # characters that two neighbouring windows share

_METASPACE = "▁"
"""How SentencePiece spells a space inside a token."""

Token = tuple[int, int, int]
"""The index of its first character in a text, the index after its last one, and the id."""


def encode(tokenizer: Any, text: str) -> list[int]:
    """The ids of a prompt; special tokens that it spells are those tokens. None are added.

    Raises:
        ValueError: If it is not valid text, or the tokenizer cannot encode it.
    """
    check_text(text)
    return list(_encoded(tokenizer, text, documents=False)["input_ids"])


def encode_document(tokenizer: Any, pieces: Iterable[str]) -> Iterator[list[int]]:
    """The ids of a document that comes in pieces: lists, together those of the whole document.

    Special tokens that it spells are text. Without a fast tokenizer, which knows the place of each
    token in the text, the document is encoded as a whole.

    Raises:
        ValueError: While encoding, if the tokenizer cannot encode it.
    """
    if not getattr(tokenizer, "is_fast", False):
        yield list(_encoded(tokenizer, "".join(pieces), documents=True)["input_ids"])
        return
    reader, cut_inside = _Reader(pieces), _makes_no_words(tokenizer)
    window, first = _Window.of(tokenizer, reader.read(_WINDOW)), 0
    while more := reader.read(max(_WINDOW, len(window.text)) - _SHARED):
        before = max(len(window.text) - _SHARED, 0)
        following = _Window.of(tokenizer, window.text[before:] + more)
        cut = _cut(window, following, before, cut_inside)
        if cut is None:
            done = window.tokens[first][0] if first else 0
            window = _Window.of(tokenizer, window.text + more)
            first = window.between(done, done).start if first else 0
        else:
            yield [token for _, _, token in window.tokens[first : cut[0]]]
            window, first = following, cut[1]
    yield [token for _, _, token in window.tokens[first:]]


@dataclass(frozen=True)
class _Window:
    """A part of a document, and its tokens when it is encoded by itself.

    Attributes:
        text: The part.
        tokens: See :data:`Token`.
        words: The number of each token's word.
    """

    text: str
    tokens: list[Token]
    words: list[int | None]

    @classmethod
    def of(cls, tokenizer: Any, text: str) -> "_Window":
        encoded = _encoded(tokenizer, text, documents=True)
        (found,), ids = encoded.encodings, encoded["input_ids"]
        tokens = [
            (start, end, token) for (start, end), token in zip(found.offsets, ids, strict=True)
        ]
        return cls(text, tokens, found.word_ids)

    def between(self, low: int, high: int) -> slice:
        """The tokens whose first character is at ``low`` or later, and before ``high``."""
        return slice(bisect_left(self.tokens, (low,)), bisect_left(self.tokens, (high,)))


def _cut(
    window: _Window, following: _Window, before: int, cut_inside: bool
) -> tuple[int, int] | None:
    """Where a window may end and the next one begin, as an index of the tokens of each.

    Args:
        window: The first of the two.
        following: The next one.
        before: The character of the first window at which the next one begins.
        cut_inside: Whether the cut may be inside a word.
    """
    low, high = _SHARED // 4, 3 * _SHARED // 4
    here, there = window.between(before + low, before + high), following.between(low, high)
    mine = [(start - before, end - before, token) for start, end, token in window.tokens[here]]
    if mine != following.tokens[there]:
        return None
    words = list(zip(window.words[here], following.words[there], strict=True))
    places = [
        i
        for i in range(1, len(mine))
        if mine[i][0] >= mine[i - 1][1]  # not between the tokens of one character
        and (cut_inside or all(a != b for a, b in zip(words[i - 1], words[i], strict=True)))
    ]
    if not places:
        return None
    middle = places[len(places) // 2]
    return here.start + middle, there.start + middle


def _makes_no_words(tokenizer: Any) -> bool:
    """Whether byte-pair encoding gets the text undivided, as in the tokenizer of Llama 2."""
    backend = tokenizer.backend_tokenizer
    if type(backend.model).__name__ != "BPE":
        return False
    pre_tokenizer = backend.pre_tokenizer
    return pre_tokenizer is None or len(pre_tokenizer.pre_tokenize_str(2 * printable)) == 1


class _Reader:
    """Pieces of text, read in as many characters at a time as are asked for."""

    def __init__(self, pieces: Iterable[str]):
        cut_up = (p[i : i + _WINDOW] for p in pieces for i in range(0, len(p), _WINDOW))
        self._pieces, self._held = cut_up, ""

    def read(self, characters: int) -> str:
        """The next characters; fewer than asked for only at the end."""
        held, length = [self._held], len(self._held)
        while length < characters and (piece := next(self._pieces, None)) is not None:
            held.append(piece)
            length += len(piece)
        text = "".join(held)
        self._held = text[characters:]
        return text[:characters]


def check_text(text: str) -> None:
    """Refuse half a surrogate pair, which is not text.

    Raises:
        ValueError: If there is one, with its place.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:  # from a command line in another encoding
        raise ValueError(
            f"half a surrogate pair, which is not text, at character {error.start}: give UTF-8."
        ) from error


def _encoded(tokenizer: Any, text: str, documents: bool) -> Any:
    """What the tokenizer makes of a text.

    Raises:
        ValueError: If it fails, or leaves out a character that it does not know.
    """
    with _without_dropout(tokenizer):
        try:
            encoded = tokenizer(
                text, add_special_tokens=False, split_special_tokens=documents, verbose=False
            )
        except BaseException as error:
            if not _is_the_tokenizers(error):
                raise
            raise ValueError(_why(tokenizer, text, error)) from error
    if lost := _lost(tokenizer, text, encoded):
        raise ValueError(_unknown(lost))
    return encoded


def _is_the_tokenizers(error: BaseException) -> bool:
    """Whether an error is a tokenizer's: a plain ``Exception``, or a panic, which is not one."""
    return type(error) is Exception or is_panic(error)


def _why(tokenizer: Any, text: str, error: BaseException) -> str:
    if type(error) is Exception:
        unknown = next((w for w in dict.fromkeys(text.split()) if _fails(tokenizer, w)), text)
        return f"{_unknown(unknown)} ({error})"
    return (
        f"the tokenizer broke down on a text of {len(text):,} characters ({error}): its pattern "
        "may not cope with a long run of one character. Shorten that, or use another tokenizer."
    )


def _fails(tokenizer: Any, word: str) -> bool:
    try:
        tokenizer(word, add_special_tokens=False, verbose=False)
    except BaseException as error:
        if not _is_the_tokenizers(error):
            raise
        return True
    return False


def _unknown(part: str) -> str:
    return (
        f"the tokenizer has no token for {part[:40]!r}, and none for unknown text: leave it out of "
        "the text, or use another tokenizer."
    )


@contextmanager
def _without_dropout(tokenizer: Any) -> Generator[None]:
    """Turn off the dropout of merges, which is for training: a text always has the same tokens."""
    model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    dropout = getattr(model, "dropout", None)
    if not dropout:
        yield
        return
    model.dropout = None  # pyright: ignore[reportOptionalMemberAccess]  (it has the attribute)
    try:
        yield
    finally:
        model.dropout = dropout  # pyright: ignore[reportOptionalMemberAccess]


def _lost(tokenizer: Any, text: str, encoded: Any) -> str | None:
    """A character that byte-pair encoding dropped silently, as it does without an unknown token.

    Spaces, and what the normalizer removes, are left out on purpose.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    model = getattr(backend, "model", None)
    if backend is None or type(model).__name__ != "BPE" or _knows_all(backend, model):
        return None
    covered = bytearray(len(text))
    for start, end in encoded.encodings[0].offsets:
        covered[start:end] = b"\1" * (end - start)
    for character in sorted({c for c, seen in zip(text, covered, strict=True) if not seen}):
        normal = backend.normalizer.normalize_str(character) if backend.normalizer else character
        if normal.strip():
            return character
    return None


def _knows_all(backend: Any, model: Any) -> bool:
    """Whether nothing can be lost: there is a token for unknown text, or one for each byte."""
    if model.unk_token is not None or model.byte_fallback:
        return True
    from tokenizers.pre_tokenizers import ByteLevel

    return all(backend.token_to_id(byte) is not None for byte in ByteLevel.alphabet())


def decode(tokenizer: Any, ids: list[int]) -> str:
    """The text of several tokens, special ones included.

    For the tokens of a text it is that text, unless the tokenizer changes letters or drops spaces,
    as some do. Ids without a token are skipped.

    Raises:
        ValueError: If a number cannot be an id.
    """
    if ids and not 0 <= min(ids) <= max(ids) <= LARGEST_ID:
        raise ValueError(f"token ids must lie in 0..{LARGEST_ID}, got {min(ids)} to {max(ids)}.")
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def token_text(tokenizer: Any, token: int) -> str:
    """The text of one token, whatever comes before it.

    A space that belongs to a token is kept, even where the tokenizer drops it at the start of a
    text (SentencePiece); a byte that is only part of a character is ``�``; an id without a token is
    that id, as in ``<50300>``.
    """
    text, spelled = decode(tokenizer, [token]), tokenizer.convert_ids_to_tokens(token)
    if spelled is None:
        return f"<{token}>"
    is_dropped = spelled.startswith(_METASPACE) and not text.startswith(_METASPACE)
    if is_dropped and decode(tokenizer, [token, token]) == f"{text} {text}":
        return f" {text}"
    return text


def token_ids(tokenizer: Any, d_vocab: int) -> list[int]:
    """The ids below a size that stand for a token, in order: embeddings are often padded."""
    return sorted(i for i in tokenizer.get_vocab().values() if i < d_vocab)
