"""One corpus over several processes, as ``torchrun`` starts them.

The caller starts the process group (``torch.distributed.init_process_group("gloo")``); without
one, everything here is a plain run in one process.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import reduce
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist

from mudd_interp.analysis.result import Result
from mudd_interp.analysis.resumable import resumable_sweep
from mudd_interp.analysis.sweep import NO_BATCHES, NO_LOCK, Progress, sweep
from mudd_interp.data import Batches, TokenBatches, shard
from mudd_interp.protocol import HookedModel

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
    order). A process whose share is empty adds nothing.

    Args:
        model: The same model in every process.
        batches: The same batches in every process: each takes its share.
        analyses: As for :func:`sweep`.
        progress: As for :func:`sweep`, on this process' share.
        lock: As for :func:`sweep`.
        path: A folder in which each process keeps the state of its sweep, to go on from after an
            interruption, as :func:`resumable_sweep` does; with as many processes as before.

    Raises:
        ValueError: As :func:`sweep`, and with a path as :func:`resumable_sweep`.
    """
    rank, world_size = rank_and_world_size()
    one = sweep if path is None else _kept_in(Path(path) / f"{rank + 1}-of-{world_size}")
    if world_size == 1:
        return one(model, batches, analyses, progress, lock)
    share = shard(batches, rank, world_size)
    walk = iter(share)
    first = list(islice(walk, 1))
    mine = Batches(lambda: chain(first, walk), share.description)
    merged = merge_over_ranks(one(model, mine, analyses, progress, lock) if first else ())
    if not merged:
        raise ValueError(NO_BATCHES)
    return merged


def _kept_in(folder: Path) -> Callable[..., tuple[Any, ...]]:
    return lambda model, batches, analyses, progress, lock: resumable_sweep(
        model, batches, analyses, folder, progress, lock
    )


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
