"""Writing activations to disk: file by file, resumable, shared over processes."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Int32, Int64
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mudd_interp.analysis.activations import Reading, Rows
from mudd_interp.analysis.distributed import rank_and_world_size
from mudd_interp.analysis.inputs import checked
from mudd_interp.analysis.provenance import Provenance, TokensSeen, provenance
from mudd_interp.analysis.resumable import other_contents, plain
from mudd_interp.analysis.stored_activations import (
    INDEX,
    LABELS,
    Shard,
    StoredActivations,
    index_text,
    open_activations,
    shard_name,
)
from mudd_interp.analysis.walk import NO_BATCHES, Progress
from mudd_interp.data import TokenBatches, describe
from mudd_interp.files import parse_json, replacing, sha256_file, write_text
from mudd_interp.protocol import HookedModel, require_traits

_HEADER = "mudd_interp"
_FILE, _HALF = re.compile(r"\d{5,}\.safetensors"), re.compile(r"\..+\.tmp")
_CLOSE = 1e-2
"""How far, relative to the largest, activations may be from those of another machine."""


def save_activations(
    model: HookedModel,
    batches: TokenBatches,
    hook: str | list[str] | tuple[str, ...],
    path: str | os.PathLike[str],
    *,
    dtype: torch.dtype | str | None = None,
    flatten_heads: bool = False,
    rows_per_file: int = 2**16,
    progress: Progress | None = None,
) -> StoredActivations:
    """Write what :func:`activations` gives to a folder, file by file.

    To resume a call that was interrupted, repeat it as it was: the files that are there are
    checked, and not made again. A file is written whole or not at all, and the index once all of
    them are there; a folder without it is not opened. Interrupted or not, the files are the same to
    the bit.

    In a process group (``torchrun``) the files are shared out over the processes. The call that
    resumes may have another number of them: the files are the same.

    Args:
        model: As for :func:`activations`.
        batches: As for :func:`activations`; the same ones in the call that resumes.
        hook: As for :func:`activations`.
        path: The folder, which all processes see.
        dtype: As for :func:`activations`.
        flatten_heads: As for :func:`activations`.
        rows_per_file: A file takes batches until it has this many rows. They are held in memory.
        progress: Called for each file with the sequences and tokens up to its end.

    Returns:
        The folder, opened.

    Raises:
        ValueError: As :func:`activations`; also if there are no batches, ``rows_per_file`` is below
            one, or the folder holds something else, or activations of another model, text, hook or
            precision.
    """
    require_traits(model, "save_activations, which labels each row with its token,", ["tokens"])
    reading = Reading.of(model, hook, dtype, flatten_heads)
    if rows_per_file < 1:
        raise ValueError(f"rows_per_file must be at least 1, got {rows_per_file}.")
    options = {**reading.options, "rows_per_file": rows_per_file}
    folder, data, seen = Path(path), describe(batches), TokensSeen(model.front)
    _check_folder(folder)
    writer = _Writer(model, reading, folder, plain(provenance(model, data, seen, options)))
    rank, world_size = rank_and_world_size()
    mine: dict[int, Shard] = {}
    for number, chunk in enumerate(_chunks(checked(batches, model), rows_per_file)):
        if number % world_size == rank:
            mine[number] = writer.shard(number, chunk, seen.sequences)
        for tokens in chunk:
            seen.add(tokens)
        if progress is not None:
            progress(seen.sequences, seen.tokens)
    shards = _gathered(mine)
    if not shards:
        raise ValueError(NO_BATCHES)
    if rank == 0:
        _finish(folder, shards, provenance(model, data, seen, options))
    _gathered({})  # the others wait for the index
    return open_activations(folder)


class _Writer:
    """Makes the files of a folder, or checks those that are there.

    Args:
        model: Whose activations they are.
        reading: Which ones.
        folder: Where they are.
        header: What each file says about itself.
    """

    def __init__(
        self, model: HookedModel, reading: Reading, folder: Path, header: Mapping[str, Any]
    ):
        self._model, self._reading = model, reading
        self._folder, self._header = folder, header
        self._tried = False

    def shard(self, number: int, chunk: Sequence[Int64[Tensor, "_ _"]], first: int) -> Shard:
        """The file of some batches, of which the first sequence has the number ``first``."""
        path, labels = self._folder / shard_name(number), _labels(chunk, first)
        if path.exists():
            self._check(path, chunk[0], labels)
        else:
            self._write(path, chunk, labels)
        return Shard(len(labels["token"]), sha256_file(path))

    def _write(
        self,
        path: Path,
        chunk: Sequence[Int64[Tensor, "_ _"]],
        labels: dict[str, Int32[Tensor, " row"]],
    ) -> None:
        whole: dict[str, Rows] = {}
        at, count = 0, len(labels["token"])
        for tokens in chunk:
            for name, rows in self._reading(self._model, tokens).items():
                if name not in whole:
                    whole[name] = torch.empty(count, rows.shape[1], dtype=rows.dtype)
                whole[name][at : at + len(rows)] = rows
            at += tokens.numel()
        with replacing(path) as temporary:
            save_file({**whole, **labels}, temporary, {_HEADER: json.dumps(self._header)})

    def _check(
        self, path: Path, tokens: Int64[Tensor, "batch pos"], labels: Mapping[str, Tensor]
    ) -> None:
        """Refuse a file that this call would not have made."""
        header, found = _read(path)
        differing = [name for name in self._header if header.get(name) != self._header[name]]
        if differing:
            raise ValueError(self._other(path, differing[0]))
        if not all(torch.equal(found[name], labels[name]) for name in LABELS):
            raise ValueError(self._other(path, "text"))
        if not self._tried:
            self._tried = True
            self._try(path, tokens)

    def _try(self, path: Path, tokens: Int64[Tensor, "batch pos"]) -> None:
        """Run the first batch again: weights or edits may have changed under the same name."""
        with safe_open(path, "pt") as file:
            for name, rows in self._reading(self._model, tokens).items():
                kept, rows = file.get_slice(name)[: len(rows)].double(), rows.cpu().double()
                if float((kept - rows).abs().max()) > _CLOSE * float(rows.abs().max()):
                    raise ValueError(self._other(path, "model, or of one that was edited"))

    def _other(self, path: Path, what: str) -> str:
        return other_contents(self._folder, f"activations of another {what} (in {path.name})")


def _labels(chunk: Sequence[Int64[Tensor, "_ _"]], first: int) -> dict[str, Int32[Tensor, " row"]]:
    """What each row is of: ``first`` is the number of the first sequence."""
    columns: dict[str, list[Tensor]] = {name: [] for name in LABELS}
    for tokens in chunk:
        sequence, position = torch.meshgrid(
            *(torch.arange(length) for length in tokens.shape), indexing="ij"
        )
        for name, values in zip(LABELS, (first + sequence, position, tokens.cpu()), strict=True):
            columns[name].append(values.flatten().to(torch.int32))
        first += len(tokens)
    return {name: torch.cat(values) for name, values in columns.items()}


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a file says about itself, and what its rows are of."""
    try:
        with safe_open(path, "pt") as file:
            header = parse_json((file.metadata() or {})[_HEADER], "its header")
            if not isinstance(header, dict):
                raise ValueError(f"its header is a {type(header).__name__}")
            return header, {name: file.get_tensor(name) for name in LABELS}
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged, or not a file of activations ({error}): remove it, and repeat."
        ) from error


def _chunks(
    batches: Iterable[Int64[Tensor, "_ _"]], rows: int
) -> Iterator[list[Int64[Tensor, "_ _"]]]:
    """Batches in groups of at least this many tokens; what is left is the last group."""
    chunk: list[Int64[Tensor, "_ _"]] = []
    for tokens in batches:
        chunk.append(tokens)
        if sum(each.numel() for each in chunk) >= rows:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _gathered(mine: dict[int, Shard]) -> list[Shard]:
    """The files of all processes, in order; no process continues before all have come here."""
    _, world_size = rank_and_world_size()
    parts: list[Any] = [mine]
    if world_size > 1:
        parts = [None] * world_size
        dist.all_gather_object(parts, mine)
    found: dict[int, Shard] = {number: shard for part in parts for number, shard in part.items()}
    return [found[number] for number in sorted(found)]


def _check_folder(folder: Path) -> None:
    """Refuse a folder with anything in it that is not ours."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: give another folder.")
    for path in folder.iterdir() if folder.exists() else ():
        if path.name != INDEX and not _FILE.fullmatch(path.name) and not _HALF.match(path.name):
            raise ValueError(other_contents(folder, f"something else ({path.name})"))


def _finish(folder: Path, shards: Sequence[Shard], whole: Provenance) -> None:
    """Write the index of a folder whose files are all there."""
    names = {shard_name(number) for number in range(len(shards))}
    for path in sorted(folder.iterdir()):
        if _HALF.match(path.name):
            path.unlink()  # of a process that was killed
        elif _FILE.fullmatch(path.name) and path.name not in names:
            raise ValueError(other_contents(folder, f"a longer text ({path.name})"))
    with safe_open(folder / shard_name(0), "pt") as file:
        widths = {name: file.get_slice(name).get_shape()[1] for name in whole.options["hooks"]}
    write_text(folder / INDEX, index_text(whole, widths, shards))
