"""From documents to rows of token ids, every token predicted exactly once."""

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from jaxtyping import Int64, UInt16
from tokenizers import Tokenizer

from mudd_interp.files import exclusive, read_json, replacing, sha256_file, write_text
from mudd_interp.training.corpus import MANIFEST, SourceFile, Split, read_corpus, read_manifest
from mudd_interp.training.tokenizer import END_OF_TEXT_ID, TOKENIZER, load_packing_tokenizer

_SPLITS: tuple[Split, ...] = get_args(Split)
_TOKEN = np.dtype("<u2")
_ENCODED_AT_ONCE = 100  # documents; bounds the memory of the encodings

STAMP = "prepared.json"
"""The file that says what the streams beside it were made from."""


@dataclass(frozen=True)
class PackedText:
    """Documents in one stream: ``<|endoftext|>``, the tokens of a file, ``<|endoftext|>``, ...

    Attributes:
        stream: Token ids.
        starts: Where each document's ``<|endoftext|>`` stands in the stream.
        files: The document's sources, in order.
    """

    stream: UInt16[np.ndarray, " token"]
    starts: Int64[np.ndarray, " document"]
    files: tuple[SourceFile, ...]

    def document(self, index: int) -> UInt16[np.ndarray, " document_token"]:
        """The ids of one document, its leading ``<|endoftext|>`` included."""
        bounds = np.append(self.starts, len(self.stream))
        return self.stream[bounds[index] : bounds[index + 1]]


def pack(documents: Sequence[tuple[SourceFile, str]], tokenizer: Tokenizer) -> PackedText:
    """The tokens of documents in one stream, an ``<|endoftext|>`` before each document."""
    encoded = list(_encode([text for _, text in documents], tokenizer))
    lengths = np.array([len(ids) for ids in encoded], dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    stream = np.concatenate([*encoded, np.empty(0, dtype=np.uint16)])
    return PackedText(stream, starts, tuple(source for source, _ in documents))


def _encode(texts: Sequence[str], tokenizer: Tokenizer) -> Iterator[UInt16[np.ndarray, " token"]]:
    for start in range(0, len(texts), _ENCODED_AT_ONCE):
        batch = list(texts[start : start + _ENCODED_AT_ONCE])
        for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
            yield np.array([END_OF_TEXT_ID, *encoding.ids], dtype=np.uint16)


def rows(stream: UInt16[np.ndarray, " token"], n_ctx: int) -> UInt16[np.ndarray, "row pos_plus_1"]:
    """A stream cut into rows of ``n_ctx`` inputs and their ``n_ctx`` targets.

    A row ends with the id that begins the next one, so every token but the first is predicted
    once; a tail shorter than a row is dropped.

    Raises:
        ValueError: If the stream is shorter than one row.
    """
    if len(stream) <= n_ctx:
        raise ValueError(f"expected more than {n_ctx} tokens, got {len(stream)}: give more text.")
    return np.lib.stride_tricks.sliding_window_view(stream, n_ctx + 1)[::n_ctx]


def packed_split(split: Split) -> PackedText:
    """Read and pack one side of the bundled corpus, checking every file's digest."""
    files = [source for source in read_manifest() if source.split == split]
    return pack(list(read_corpus(files)), load_packing_tokenizer())


def prepare(folder: Path) -> None:
    """Write ``train.npy`` and ``validation.npy``, uint16 streams, unless they are there already.

    Args:
        folder: Where to; a stamp in it has the digests of the manifest and the tokenizer that the
            streams were made from, and of the streams.

    Raises:
        ValueError: If another process is preparing the folder, or a source file is not the expected
            one.
    """
    if is_prepared(folder):
        return
    with exclusive(folder):
        for split in _SPLITS:
            with replacing(_path(folder, split)) as temporary, temporary.open("wb") as file:
                np.save(file, packed_split(split).stream)
        write_text(folder / STAMP, json.dumps(stamp(folder), indent=2))


def is_prepared(folder: Path) -> bool:
    """Whether the streams in a folder are those that :func:`prepare` wrote, or would write."""
    path = folder / STAMP
    try:
        return path.is_file() and read_json(path) == stamp(folder)
    except (ValueError, OSError):
        return False  # so it is rebuilt


def stamp(folder: Path) -> dict[str, str]:
    """Digests of the two files that decide every token, and of the streams in a folder.

    Raises:
        OSError: If a stream is missing.
    """
    files = {"manifest": MANIFEST, "tokenizer": TOKENIZER}
    files |= {split: _path(folder, split) for split in _SPLITS}
    return {name: sha256_file(path) for name, path in files.items()}


def load_stream(folder: Path, split: Split) -> UInt16[np.ndarray, " token"]:
    """Map a prepared stream into memory.

    Raises:
        ValueError: If the file is damaged, or is not a stream.
    """
    path = _path(folder, split)
    length = len(_header(0))  # the same for any count
    try:
        with path.open("rb") as file:
            header = file.read(length)
        count, rest = divmod(path.stat().st_size - length, _TOKEN.itemsize)
        # NumPy's reader evaluates the header, and fails in many ways; ours is known.
        if rest or header != _header(max(count, 0)):
            raise ValueError("it does not begin as a stream of its length does")
        return np.memmap(path, _TOKEN, "r", length, (count,))
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{path} is damaged or not a stream of tokens ({error}): remove its folder to prepare "
            "it again."
        ) from error


def _header(count: int) -> bytes:
    """How the file of a stream begins, before its tokens."""
    file = io.BytesIO()
    values = {"descr": _TOKEN.str, "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, values)
    return file.getvalue()


def _path(folder: Path, split: Split) -> Path:
    return folder / f"{split}.npy"
