"""Activations that were written to disk: opened, checked, and read in any order.

A folder holds files of rows in the order of the text, and their index. Each file has a tensor
``[row width]`` for each hook, and int32 tensors ``sequence``, ``position`` and ``token``, which say
what a row is of; so it can be read without this library too.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64
from safetensors import safe_open
from torch import Tensor

from mudd_interp.analysis.provenance import Provenance
from mudd_interp.axes import unknown_name
from mudd_interp.files import read_object, sealed, sha256_file, unsealed
from mudd_interp.schema import validated

INDEX = "index.json"
LABELS = ("sequence", "position", "token")


@dataclass(frozen=True)
class Shard:
    """One file of a folder of activations.

    Attributes:
        rows: How many tokens it holds.
        sha256: Its digest, hexadecimal.
    """

    rows: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class _Index:
    """What :data:`INDEX` holds."""

    provenance: dict[str, Any]
    widths: dict[str, int]
    files: tuple[Shard, ...]


@dataclass(frozen=True, kw_only=True)
class StoredActivations:
    """A folder of activations; each file is checked against its digest when it is read.

    Attributes:
        path: The folder.
        provenance: Model, tokens and options that they were computed from.
        widths: How many numbers a row of each hook has.
        shards: The files, in the order of the text.
    """

    path: Path
    provenance: Provenance
    widths: Mapping[str, int]
    shards: tuple[Shard, ...]

    def __len__(self) -> int:
        return sum(shard.rows for shard in self.shards)

    @overload
    def rows(
        self,
        hook: str | None = None,
        *,
        size: int = 4096,
        seed: int | None = None,
        start: int = 0,
    ) -> Iterator[Float[Tensor, "row width"]]: ...

    @overload
    def rows(
        self,
        hook: list[str] | tuple[str, ...],
        *,
        size: int = 4096,
        seed: int | None = None,
        start: int = 0,
    ) -> Iterator[dict[str, Float[Tensor, "row width"]]]: ...

    def rows(
        self,
        hook: str | list[str] | tuple[str, ...] | None = None,
        *,
        size: int = 4096,
        seed: int | None = None,
        start: int = 0,
    ) -> Iterator[Any]:
        """Iterate over all rows once, ``size`` at a time; the last tensor may have fewer.

        Args:
            hook: The name of a hook, or several names; ``None`` if there is only one.
            size: Rows in a tensor.
            seed: Of a random order: of the files, and of the rows within each. So rows are mixed
                over as many tokens as a file holds, and one file is in memory at a time. ``None``
                for the order of the text.
            start: How many tensors to skip, to resume where a training run stopped.

        Returns:
            An iterator of tensors ``[row width]``, copies on the CPU; for several names, of
            dictionaries by name, whose rows belong to the same tokens.

        Raises:
            ValueError: If there is no such hook, ``size`` is below one or ``start`` below zero.
                While walking: if a file is not what was written.
        """
        names = self._names(hook)
        if size < 1 or start < 0:
            raise ValueError(f"size must be 1 or more and start 0 or more, got {size}, {start}.")
        walk = self._walk(names, size, seed, start * size)
        return (
            walk
            if hook is not None and not isinstance(hook, str)
            else (rows[names[0]] for rows in walk)
        )

    @property
    def places(self) -> pd.DataFrame:
        """What each row is of, in the order of the text: ``sequence``, ``position``, ``token_id``.

        Sequences are counted from the first one of the text.

        Raises:
            ValueError: If a file is not what was written.
        """
        read = [self._read(number, LABELS) for number in range(len(self.shards))]
        columns = {name: torch.cat([each[name] for each in read]).numpy() for name in LABELS}
        return pd.DataFrame(columns).rename(columns={"token": "token_id"})

    def _names(self, hook: str | list[str] | tuple[str, ...] | None) -> tuple[str, ...]:
        if hook is None and len(self.widths) > 1:
            raise ValueError(f"{self.path} holds {', '.join(self.widths)}: name one, or several.")
        given = tuple(self.widths) if hook is None else (hook,) if isinstance(hook, str) else hook
        for name in given:
            if name not in self.widths:
                raise ValueError(unknown_name(f"hook in {self.path}", name, self.widths))
        if not given:
            raise ValueError("expected at least one hook, got none.")
        return tuple(given)

    def _walk(
        self, names: Sequence[str], size: int, seed: int | None, skipped: int
    ) -> Iterator[dict[str, Tensor]]:
        rest: dict[str, Tensor] | None = None
        for number in _order(len(self.shards), seed).tolist():
            count = self.shards[number].rows
            if skipped >= count:
                skipped -= count
                continue
            order = torch.from_numpy(_order(count, seed, number)[skipped:])
            skipped = 0
            whole = self._read(number, names)
            first = 0 if rest is None else size - len(rest[names[0]])
            for at in (order[:first], *order[first:].split(size)):
                part = {name: whole[name][at] for name in names}
                if rest is not None:
                    part = {name: torch.cat([rest[name], part[name]]) for name in names}
                rest = part
                if len(rest[names[0]]) == size:
                    yield rest
                    rest = None
        if rest is not None and len(rest[names[0]]):
            yield rest

    def _read(self, number: int, names: Sequence[str]) -> dict[str, Tensor]:
        """Tensors of one file.

        Raises:
            ValueError: If it is not what was written.
        """
        path = self.path / shard_name(number)
        if not path.is_file() or sha256_file(path) != self.shards[number].sha256:
            raise ValueError(
                f"{path} is missing, or is not what was written: remove it and repeat the call of "
                "save_activations, which makes it again."
            )
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in names}


def open_activations(path: str | os.PathLike[str]) -> StoredActivations:
    """Open a folder that :func:`save_activations` wrote; rows are read as they are asked for.

    Raises:
        ValueError: If there is none, it is not complete, or its index is damaged.
    """
    folder = Path(path)
    if not (folder / INDEX).is_file():
        begun = (folder / shard_name(0)).exists()
        raise ValueError(
            f"{folder} is not complete: repeat the call of save_activations, which resumes."
            if begun
            else f"no activations at {folder}: expected a folder that save_activations wrote."
        )
    try:
        index: _Index = validated(_Index, unsealed(read_object(folder / INDEX), INDEX), INDEX)
        if not all(shard.rows >= 1 for shard in index.files):
            raise ValueError("a file has no rows")
        return StoredActivations(
            path=folder,
            provenance=Provenance.from_dict(index.provenance),
            widths=index.widths,
            shards=index.files,
        )
    except ValueError as error:
        raise ValueError(
            f"{folder / INDEX} is damaged ({error}): remove it and repeat the call of "
            "save_activations; the files are not made again."
        ) from error


def index_text(provenance: Provenance, widths: Mapping[str, int], shards: Sequence[Shard]) -> str:
    """The index of a folder; :func:`open_activations` reads it."""
    values = {
        "provenance": provenance.to_dict(),
        "widths": dict(widths),
        "files": [vars(shard) for shard in shards],
    }
    return json.dumps(sealed(values), indent=1) + "\n"


def shard_name(number: int) -> str:
    """The name of a file by its number, from 0."""
    return f"{number:05}.safetensors"


def _order(count: int, seed: int | None, *which: int) -> Int64[np.ndarray, " row"]:
    if seed is None:
        return np.arange(count)
    return np.random.default_rng([seed, *which]).permutation(count)
