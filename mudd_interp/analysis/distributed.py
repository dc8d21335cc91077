"""One corpus over several processes, as ``torchrun`` starts them.

The caller starts the process group (``torch.distributed.init_process_group("gloo")``); without
one, everything here is a plain run in one process.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import reduce
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch.distributed as dist

from mudd_interp.analysis.inputs import checked
from mudd_interp.analysis.result import Places, Result
from mudd_interp.analysis.resumable import resumable_sweep
from mudd_interp.analysis.sweep import sweep
from mudd_interp.analysis.walk import NO_BATCHES, NO_LOCK, Progress
from mudd_interp.data import Batches, TokenBatches, describe
from mudd_interp.protocol import Front, HookedModel, Inputs

R = TypeVar("R", bound=Result)


def rank_and_world_size() -> tuple[int, int]:
    """This process and how many there are: 0 of 1 without a process group."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def sweep_over_ranks(
    model: HookedModel,
    batches: TokenBatches,
    analyses: Sequence[Any],
    progress: Progress | None = None,
    lock: AbstractContextManager[Any] = NO_LOCK,
    path: str | os.PathLike[str] | None = None,
) -> tuple[Any, ...]:
    """:func:`sweep`, each process on its share of the batches; every process gets the whole result.

    Counts are those of one process, exactly; float64 sums to rounding (they are added in another
    order). What is kept for each sequence is in the order of the corpus. A process whose share
    is empty adds nothing.

    Args:
        model: The same model in every process.
        batches: The same batches in every process: each takes its share.
        analyses: As for :func:`sweep`.
        progress: As for :func:`sweep`, on this process' share.
        lock: As for :func:`sweep`.
        path: A folder in which each process keeps the state of its sweep, to resume from after an
            interruption, as :func:`resumable_sweep` does; with as many processes as before.

    Raises:
        ValueError: As :func:`sweep`, and with a path as :func:`resumable_sweep`.
    """
    rank, world_size = rank_and_world_size()
    own = None if path is None else Path(path) / f"{rank + 1}-of-{world_size}"
    if world_size == 1:
        return _sweep(model, batches, analyses, progress, lock, own)
    share = _Share(checked(batches, model), model.front, rank, world_size)
    walk = iter(share)
    first = list(islice(walk, 1))
    mine = Batches(lambda: chain(first, walk), describe(batches))
    found = _sweep(model, mine, analyses, progress, lock, own) if first else ()
    merged = _joined(found, share.places())
    if not merged:
        raise ValueError(NO_BATCHES)
    return merged


def _sweep(
    model: HookedModel,
    batches: TokenBatches,
    analyses: Sequence[Any],
    progress: Progress | None,
    lock: AbstractContextManager[Any],
    folder: Path | None,
) -> tuple[Any, ...]:
    """In one process; with a folder, a sweep that can be resumed."""
    if folder is None:
        return sweep(model, batches, analyses, progress, lock)
    return resumable_sweep(model, batches, analyses, folder, progress, lock)


class _Share:
    """The batches of one process, which remembers where their sequences stand in the corpus."""

    def __init__(self, batches: Iterable[Inputs], front: Front, rank: int, world_size: int):
        self._front = front
        self._batches, self._rank, self._world_size = batches, rank, world_size
        self._numbers: list[int] = []
        self._lengths: list[int] = []

    def __iter__(self) -> Iterator[Inputs]:
        first = 0
        for number, tokens in enumerate(self._batches):
            if number % self._world_size == self._rank:
                self._numbers += range(first, first + len(tokens))
                self._lengths += [self._front.positions(tokens)] * len(tokens)
                yield tokens
            first += len(tokens)

    def places(self) -> Places:
        """Of all sequences so far."""
        lengths = np.array(self._lengths, dtype=np.int64)
        return Places(np.array(self._numbers, dtype=np.int64), lengths)


def _joined(results: Sequence[Any], places: Places) -> tuple[Any, ...]:
    """The results of all processes' shares as one process would have them; all get them."""
    _, world_size = rank_and_world_size()
    gathered: list[Any] = [None] * world_size
    dist.all_gather_object(gathered, (tuple(results), places))
    found = [share for share in gathered if share[0]]
    where = [places for _, places in found]
    columns = zip(*(results for results, _ in found), strict=True)
    return tuple(type(column[0]).joined(column, where) for column in columns)


def merge_over_ranks(results: Sequence[R]) -> tuple[R, ...]:
    """Merge the results of all processes, in rank order; every process gets the merged ones.

    Args:
        results: This process' results, the same analyses in each process; or none at all, if it
            had no batches.
    """
    _, world_size = rank_and_world_size()
    if world_size == 1:
        return tuple(results)
    gathered: list[Any] = [None] * world_size
    dist.all_gather_object(gathered, tuple(results))
    parts = [part for part in gathered if part]
    return tuple(reduce(lambda a, b: a.merge(b), column) for column in zip(*parts, strict=True))
