"""Text, files, folders, Hugging Face datasets and token ids -> batches of tokens, never padded.

Documents are joined into one stream of ids and cut into rows of ``n_ctx``; ``batch_size`` rows
make a batch. What is left at the end comes out as smaller batches: the whole rows that do not
fill a batch, then the last, shorter row by itself. So no position is padding and every one counts.

Each document follows one ``<|endoftext|>`` if the tokenizer has that token (the models of this
project, and Pythia, were trained so), and nothing otherwise. The paper does not say how its
sequences were joined, so the separator is a parameter. A separator that is spelled out in a
document is text; a byte order mark at its start is dropped.

Documents are read and encoded in pieces, so memory does not grow with them.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from safetensors import safe_open
from torch import Tensor

from mudd_interp.axes import END_OF_TEXT
from mudd_interp.documents import BYTE_ORDER_MARK, read_pieces, text_files_of
from mudd_interp.documents import read_text as read_text
from mudd_interp.encoding import check_text, encode_document, token_ids
from mudd_interp.ids import id_tensor
from mudd_interp.protocol import HookedModel

REPEATED_LENGTH = 50
"""The period of :func:`repeated_batches` in tokens, unless told otherwise."""

BUNDLED_PACK = Path(__file__).parent / "bundled" / "validation.safetensors"
"""Held-out token ids of the bundled pair."""

TokenBatches = Iterable[Any]
"""Batches from anywhere: int64 tensors ``[batch pos]``, without padding. The elements have no type
here because what a caller passes is checked where it is used."""

_Documents = Callable[[], Iterable[Iterable[str]]]
"""Starts a new walk over documents, each of which comes in pieces."""


@dataclass(frozen=True)
class Batches:
    """Batches of tokens that can be walked more than once, and what they are.

    Attributes:
        source: Starts a new walk.
        description: What the tokens are, in words: it is written on every figure.
        n_sequences: How many rows a walk yields, or ``None`` if that is not known beforehand.
        left_out: What is not read in a folder: the reason, by path.
    """

    source: Callable[[], Iterator[Int64[Tensor, "batch pos"]]]
    description: str
    n_sequences: int | None = None
    left_out: Mapping[Path, str] = field(default_factory=dict[Path, str])

    def __iter__(self) -> Iterator[Int64[Tensor, "batch pos"]]:
        return self.source()


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How documents become batches.

    Attributes:
        n_ctx: Tokens in a row.
        batch_size: Rows in a batch.
        separator: The token before each document; ``None`` for none.

    Raises:
        ValueError: If ``n_ctx`` or ``batch_size`` is below one.
    """

    n_ctx: int
    batch_size: int = 8
    separator: str | None = END_OF_TEXT

    def __post_init__(self) -> None:
        _check_positive("n_ctx", self.n_ctx)
        _check_positive("batch_size", self.batch_size)


def text_batches(text: str, tokenizer: Any, packing: Packing) -> Batches:
    """Batches of one text.

    Raises:
        ValueError: If the text is empty.
    """
    if not text:
        raise ValueError("the text is empty: give at least one character.")
    return document_batches([text], tokenizer, packing, f"text of {len(text):,} characters")


def document_batches(
    texts: Sequence[str], tokenizer: Any, packing: Packing, description: str
) -> Batches:
    """Batches of texts in memory, each of them one document.

    Raises:
        ValueError: While walking, if all of them are empty.
    """
    return _text_source(lambda: map(_pieces, texts), tokenizer, packing, description)


def id_batches(
    documents: Sequence[Sequence[int]], tokenizer: Any, packing: Packing, description: str
) -> Batches:
    """Batches of documents that are given as token ids, packed as texts are."""
    before = tokenizer.get_vocab().get(packing.separator)
    start = [] if before is None else [before]

    def source() -> Iterator[Int64[Tensor, "batch pos"]]:
        ids = ([*start, *document] for document in documents)
        return pack(ids, packing.n_ctx, packing.batch_size)

    return Batches(source, description)


def file_batches(paths: Sequence[str | Path], tokenizer: Any, packing: Packing) -> Batches:
    """Batches of text files, one document per file, read as they are needed.

    Raises:
        ValueError: If no file is named, or one is missing or can be read only once (a pipe). While
            walking, if one is empty, unreadable or not UTF-8.
    """
    files = [_path(path) for path in paths]
    if not files:
        raise ValueError("expected at least one text file, got none: name one.")
    for file in files:
        if not file.is_file():
            why = (
                "it is not a regular file, and a text is read more than once"
                if file.exists()
                else ""
            )
            raise ValueError(f"no text file {file}: {why or 'check the path'}.")
    description = files[0].name if len(files) == 1 else f"{len(files)} files"
    return _text_source(lambda: map(_read_nonempty, files), tokenizer, packing, description)


def folder_batches(
    folder: str | Path, tokenizer: Any, packing: Packing, pattern: str = "**/*"
) -> Batches:
    """Batches of the text files of a folder, in the order of their paths.

    Each is read once, even if folders are linked. What is left out (hidden and empty files, and
    links to what is read anyway) is counted in the description and named in ``left_out``: see
    :func:`mudd_interp.documents.text_files_of`.

    Args:
        folder: Where to look.
        tokenizer: A Hugging Face tokenizer.
        packing: How documents become batches.
        pattern: Which files, as in ``Path.glob``: ``"**/*.py"`` for Python sources.

    Raises:
        ValueError: If nothing matches, or a folder is unreadable. While walking, if a file is
            unreadable or not UTF-8, or no file has any text.
    """
    root = _path(folder)
    if not root.is_dir():
        raise ValueError(f"no folder {root}: check the path.")
    found = text_files_of(root, pattern)
    files = found.files
    if not files and not found.left_out:
        raise ValueError(f"no file in {root} matches {pattern!r}: change the pattern.")
    count = "1 file" if len(files) == 1 else f"{len(files)} files"
    description = f"{count} of {root.resolve().name}/{pattern}"
    if found.left_out:
        description += f" (left out: {found.left_out_in_words()})"
    batches = _text_source(lambda: map(read_pieces, files), tokenizer, packing, description)
    return replace(batches, left_out=found.left_out)


def dataset_batches(
    name: str,
    tokenizer: Any,
    packing: Packing,
    *,
    config: str | None = None,
    split: str = "validation",
    column: str = "text",
) -> Batches:
    """Batches of a Hugging Face dataset, streamed: each row is a document, unless it is empty.

    Args:
        name: A dataset's hub id, or a local folder in a format that ``datasets`` reads.
        tokenizer: A Hugging Face tokenizer.
        packing: How documents become batches.
        config: The dataset's configuration, where it has several.
        split: The part of the dataset.
        column: The column that holds the text.

    Raises:
        ValueError: If ``datasets`` is not installed, the dataset or its split cannot be read, there
            is no such column, or the column does not hold text.
    """
    rows = _dataset_rows(name, config, split)
    with silent_hub():
        for row in islice(rows(), 1):
            _cell(row, column, name)

    def texts() -> Iterator[Iterable[str]]:
        return (_pieces(_cell(row, column, name)) for row in rows())

    title = Path(name).name if Path(name).is_dir() else name
    part = split if config is None else f"{config}, {split}"
    return _text_source(texts, tokenizer, packing, f"{title} ({part})")


def token_batches(tokens: Any, batch_size: int = 8, description: str = "token ids") -> Batches:
    """Batches of given token ids, one sequence per row.

    Args:
        tokens: Ids ``[sequence pos]``: see :func:`mudd_interp.ids.id_tensor`.
        batch_size: Rows in a batch.
        description: What they are, in words.

    Raises:
        ValueError: If there are no tokens, or they are not ids of that shape.
    """
    _check_positive("batch_size", batch_size)
    tokens = id_tensor(tokens)
    if tokens.ndim != 2 or tokens.numel() == 0:
        raise ValueError(
            f"expected [sequence pos] with at least one token, got shape {list(tokens.shape)}."
        )
    return Batches(lambda: iter(tokens.split(batch_size)), description, len(tokens))


def one_batch(inputs: Any, description: str) -> Batches:
    """One batch of whatever a model reads, as it is.

    Args:
        inputs: The batch.
        description: What it is, in words.
    """
    return Batches(lambda: iter([inputs]), description, len(inputs))


def bundled_batches(n_sequences: int | None = None, batch_size: int = 8) -> Batches:
    """Batches of the validation pack: Python source code that no bundled model was trained on.

    Args:
        n_sequences: How many of its sequences, counted from the first; ``None`` for all of them.
        batch_size: Rows in a batch.

    Raises:
        ValueError: If the pack holds fewer sequences.
    """
    with safe_open(BUNDLED_PACK, framework="pt") as pack:
        tokens = pack.get_tensor("tokens").to(torch.int64)
    wanted = len(tokens) if n_sequences is None else n_sequences
    if not 1 <= wanted <= len(tokens):
        raise ValueError(f"the validation pack holds {len(tokens)} sequences, not {wanted}.")
    return token_batches(tokens[:wanted], batch_size, "bundled validation pack (Python source)")


def repeated_batches(
    model: HookedModel,
    length: int = REPEATED_LENGTH,
    repeats: int = 3,
    n_sequences: int = 16,
    seed: int = 0,
    batch_size: int = 8,
) -> Batches:
    """Batches of random tokens that repeat, on which induction heads show.

    A sequence is the separator, where the tokenizer has one, and then the same ``length`` distinct
    tokens ``repeats`` times. Special tokens are left out, and so are ids without a text (a
    vocabulary is often padded). Each sequence is drawn by ordering all other ids by the next raw
    64-bit numbers of NumPy's ``PCG64(seed)``, whose stream is the same on every machine and in
    every version, and taking the first ``length``. (Olsson et al. 2022 repeat 25 tokens four times,
    and leave out the most and the least common ones; a model does not say how common a token is.)

    Args:
        model: The model whose tokens are drawn, and whose context the sequences must fit.
        length: The number of tokens before the first one returns.
        repeats: How many times they occur.
        n_sequences: How many sequences; a larger number begins with the same ones.
        seed: The generator's seed.
        batch_size: Rows in a batch.

    Raises:
        ValueError: If ``length`` or ``repeats`` is below two, a sequence does not fit the context,
            or the vocabulary has fewer than ``length`` tokens to draw from.
    """
    for name, value in (("n_sequences", n_sequences), ("batch_size", batch_size)):
        _check_positive(name, value)
    if length < 2 or repeats < 2:
        raise ValueError(f"length and repeats must be 2 or more, got {length} and {repeats}.")
    ids = _ordinary(model.tokenizer, model.cfg.d_vocab)
    separator = model.tokenizer and model.tokenizer.get_vocab().get(END_OF_TEXT)
    start = [] if separator is None else [separator]
    needed = len(start) + length * repeats
    if needed > model.cfg.n_ctx:
        raise ValueError(
            f"{repeats} times {length} random tokens need a context of {needed}, the model has "
            f"{model.cfg.n_ctx}: give a smaller length or fewer repeats."
        )
    if len(ids) < length:
        raise ValueError(f"there are {len(ids)} tokens to draw from, not {length}.")
    generator = np.random.PCG64(seed)
    keys = (generator.random_raw(len(ids)) for _ in range(n_sequences))
    drawn = (ids[np.argsort(row, kind="stable")[:length]].tolist() for row in keys)
    rows = torch.tensor([start + row * repeats for row in drawn], dtype=torch.int64)
    description = f"{length} random tokens, {repeats} times over (seed {seed})"
    return token_batches(rows, batch_size, description)


def take(batches: Batches, n_sequences: int) -> Batches:
    """The first sequences of batches; all of them where there are fewer."""
    _check_positive("n_sequences", n_sequences)

    def source() -> Iterator[Int64[Tensor, "batch pos"]]:
        left = n_sequences
        for tokens in batches:
            yield tokens[:left]
            left -= len(tokens)
            if left <= 0:
                return

    known = None if batches.n_sequences is None else min(batches.n_sequences, n_sequences)
    return replace(batches, source=source, n_sequences=known)


def shuffled(batches: Batches, seed: int = 0) -> Batches:
    """The same tokens in another order within each sequence, as a control: text without its order.

    Args:
        batches: Any batches.
        seed: The seed of the order, which differs between batches and is the same within one.
    """

    def source() -> Iterator[Int64[Tensor, "batch pos"]]:
        for number, tokens in enumerate(batches):
            order = np.random.default_rng([seed, number]).permutation(tokens.shape[1])
            yield tokens[:, torch.from_numpy(order)]

    return replace(batches, source=source, description=f"{batches.description}, tokens shuffled")


def count_sequences(batches: Batches) -> int:
    """How many rows a walk yields, which tells how much of a sweep is left.

    This takes no time if ``n_sequences`` is known. Otherwise one walk counts them, which reads and
    encodes the text (and downloads a dataset, as far as :func:`take` lets it) but runs no model;
    keep the number, or ``dataclasses.replace(batches, n_sequences=...)``.
    """
    if batches.n_sequences is not None:
        return batches.n_sequences
    return sum(len(tokens) for tokens in batches)


def describe(batches: TokenBatches) -> str:
    """What batches are, in words; for a plain iterable just "token ids"."""
    return batches.description if isinstance(batches, Batches) else "token ids"


def shard(batches: TokenBatches, rank: int, world_size: int) -> Batches:
    """The share of one process: every ``world_size``-th batch, starting from the ``rank``-th.

    Raises:
        ValueError: If the rank is not one of ``0..world_size-1``.
    """
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must lie in 0..{world_size - 1}, got {rank}.")
    return Batches(lambda: islice(iter(batches), rank, None, world_size), describe(batches))


def pack(
    documents: Iterable[Sequence[int]], n_ctx: int, batch_size: int
) -> Iterator[Int64[Tensor, "batch pos"]]:
    """Documents, given as token ids, joined and cut into batches; the tail is the last batch.

    A document may come as several lists.
    """
    size, pending = n_ctx * batch_size, list[int]()
    for ids in documents:
        pending.extend(ids)
        full = len(pending) // size * size
        for start in range(0, full, size):
            yield _rows(pending[start : start + size], n_ctx)
        del pending[:full]
    whole = len(pending) // n_ctx * n_ctx
    if whole:
        yield _rows(pending[:whole], n_ctx)
    if pending[whole:]:
        yield _rows(pending[whole:], len(pending) - whole)


def _path(given: str | Path) -> Path:
    if given == "":
        raise ValueError("the path of the text is empty: name a file or a folder.")
    return Path(given)


def _pieces(text: str) -> Iterable[str]:
    """A text in memory, as a document."""
    check_text(text)
    return [text.removeprefix(BYTE_ORDER_MARK)]


def _read_nonempty(path: Path) -> Iterator[str]:
    is_empty = True
    for piece in read_pieces(path):
        yield piece
        is_empty = is_empty and not piece
    if is_empty:
        raise ValueError(f"{path} is empty: leave it out, or give a file with text.")


def _text_source(
    documents: _Documents, tokenizer: Any, packing: Packing, description: str
) -> Batches:
    def source() -> Iterator[Int64[Tensor, "batch pos"]]:
        ids = _encode(documents(), tokenizer, packing.separator, description)
        return pack(ids, packing.n_ctx, packing.batch_size)

    return Batches(source, description)


def _encode(
    documents: Iterable[Iterable[str]], tokenizer: Any, separator: str | None, description: str
) -> Iterator[list[int]]:
    """The ids of documents, some at a time, each after its separator; empty ones are left out."""
    before, empty = tokenizer.get_vocab().get(separator), True
    for document in documents:
        pieces = filter(None, document)
        if (first := next(pieces, None)) is None:
            continue
        empty = False
        if before is not None:
            yield [before]
        yield from encode_document(tokenizer, chain([first], pieces))
    if empty:
        raise ValueError(f"{description}: there is no text, every document is empty.")


def _ordinary(tokenizer: Any, d_vocab: int) -> Int64[np.ndarray, " id"]:
    """The ids of tokens that are not special and stand for a text; all ids without a tokenizer."""
    if tokenizer is None:
        return np.arange(d_vocab, dtype=np.int64)
    added = tokenizer.added_tokens_decoder.items()
    special = {*tokenizer.all_special_ids, *(i for i, token in added if token.special)}
    ids = token_ids(tokenizer, d_vocab)
    return np.array([i for i in ids if i not in special], dtype=np.int64)


def _rows(ids: Sequence[int], n_ctx: int) -> Int64[Tensor, "batch pos"]:
    return torch.tensor(ids, dtype=torch.int64).view(-1, n_ctx)


def _dataset_rows(
    name: str, config: str | None, split: str
) -> Callable[[], Iterator[dict[str, Any]]]:
    if not name:
        raise ValueError("the dataset's name is empty: give one, such as Salesforce/wikitext.")
    try:  # Here, not above: it is slow to import, and comes with an extra.
        from datasets import load_dataset
    except ImportError as error:
        raise ValueError(
            "reading a Hugging Face dataset needs `datasets`: pip install 'mudd-interp[datasets]'."
        ) from error

    def rows() -> Iterator[dict[str, Any]]:
        try:
            yield from load_dataset(name, config, split=split, streaming=True)
        except Exception as error:  # of datasets, the network, and readers of many formats
            raise ValueError(
                f"cannot read split {split!r} of dataset {name!r} ({error}): check the names, "
                "and the network if it is on the hub."
            ) from error

    return rows


@contextmanager
def silent_hub() -> Generator[None]:
    """Silence the client's warning at every attempt: what is wrong is said once, by us."""
    from huggingface_hub.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _cell(row: dict[str, Any], column: str, name: str) -> str:
    if not isinstance(row.get(column), str):
        texts = [key for key, value in row.items() if isinstance(value, str)]
        raise ValueError(
            f"dataset {name!r} has no text in a column {column!r}; columns with text: "
            f"{', '.join(texts) or 'none'}."
        )
    return row[column]


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}.")
