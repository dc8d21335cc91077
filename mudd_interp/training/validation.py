"""The validation pack: held-out token ids that ship with the package, and where they come from."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mudd_interp.data import BUNDLED_PACK
from mudd_interp.files import parse_json, replacing
from mudd_interp.schema import validated
from mudd_interp.training.packing import PackedText


@dataclass(frozen=True)
class Origin:
    """Where a held-out sequence comes from.

    Attributes:
        package: The distribution's name.
        version: Its version.
        path: The file, relative to site-packages.
        offset: Index of the sequence's first token among the file's tokens; 0 is the
            ``<|endoftext|>`` before the text.
    """

    package: str
    version: str
    path: str
    offset: int


@dataclass(frozen=True)
class ValidationPack:
    """Held-out sequences, each from inside one file, in random order.

    Attributes:
        tokens: Token ids.
        origins: One for each sequence.
    """

    tokens: Int64[Tensor, "sequence pos"]
    origins: tuple[Origin, ...]


def draw_pack(
    text: PackedText, rng: np.random.Generator, n_sequences: int = 400, n_ctx: int = 256
) -> ValidationPack:
    """Draw sequences that do not overlap from the documents of a stream.

    Raises:
        ValueError: If the text has fewer windows than asked for.
    """
    windows = file_windows(text, n_ctx)
    if len(windows.origins) < n_sequences:
        have = len(windows.origins)
        raise ValueError(f"expected {n_sequences} sequences, the text has {have}: ask for fewer.")
    chosen = rng.permutation(len(windows.origins))[:n_sequences]
    origins = tuple(windows.origins[index] for index in chosen)
    return ValidationPack(windows.tokens[torch.from_numpy(chosen)], origins)


def file_windows(text: PackedText, n_ctx: int = 256) -> ValidationPack:
    """Every document cut into sequences of ``n_ctx`` tokens; the rest at its end is dropped."""
    sequences: list[Int64[np.ndarray, " pos"]] = []
    origins: list[Origin] = []
    for index, source in enumerate(text.files):
        ids = text.document(index).astype(np.int64)
        for offset in range(0, len(ids) - n_ctx + 1, n_ctx):
            sequences.append(ids[offset : offset + n_ctx])
            origins.append(Origin(source.package, source.version, source.path, offset))
    tokens = np.stack(sequences) if sequences else np.empty((0, n_ctx), dtype=np.int64)
    return ValidationPack(torch.from_numpy(tokens), tuple(origins))


def save_pack(pack: ValidationPack, path: Path = BUNDLED_PACK) -> None:
    """Write a pack as one safetensors file: ids as int16, the names of the files as metadata."""
    files = list(Counter((o.package, o.version, o.path) for o in pack.origins))
    tensors = {
        "tokens": pack.tokens.to(torch.int16),
        "file": torch.tensor([files.index((o.package, o.version, o.path)) for o in pack.origins]),
        "offset": torch.tensor([o.offset for o in pack.origins]),
    }
    with replacing(path) as temporary:
        temporary.write_bytes(save(tensors, metadata={"files": json.dumps(files)}))


def load_pack(path: Path = BUNDLED_PACK) -> ValidationPack:
    """Read what :func:`save_pack` wrote.

    Raises:
        ValueError: If the file cannot be read, is damaged, or holds something else.
    """
    try:
        with safe_open(path, framework="pt") as archive:
            listed = parse_json((archive.metadata() or {})["files"], "its list of files")
            indices, offsets = archive.get_tensor("file"), archive.get_tensor("offset")
            tokens = archive.get_tensor("tokens").to(torch.int64)
        files = validated(list[tuple[str, str, str]], listed, "its list of files")
        origins = [
            Origin(*files[file], offset=at)
            for file, at in zip(indices.tolist(), offsets.tolist(), strict=True)
        ]
    except (SafetensorError, OSError, KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged or not a validation pack ({error}).") from error
    return ValidationPack(tokens, tuple(origins))
