"""A sweep that can be interrupted: what is there is written as it goes on."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import Any

from mudd_interp.analysis.provenance import Provenance, TokensSeen, provenance
from mudd_interp.analysis.result import Result
from mudd_interp.analysis.sweep import NO_BATCHES, NO_LOCK, Progress, as_analysis, sweep
from mudd_interp.data import Batches, TokenBatches, describe
from mudd_interp.files import (
    contents,
    exclusive,
    is_there,
    place_of,
    recover,
    replacing_folder,
    try_folder,
)
from mudd_interp.protocol import HookedModel

CHUNK = 32
"""Batches between two states on disk."""


def resumable_sweep(
    model: HookedModel,
    batches: TokenBatches,
    analyses: Sequence[Any],
    path: str | os.PathLike[str],
    progress: Progress | None = None,
    lock: AbstractContextManager[Any] = NO_LOCK,
) -> tuple[Any, ...]:
    """:func:`sweep`, whose state is kept in a folder after every 32 batches.

    The same call goes on from there, and one that was complete returns at once. Interrupted or not
    the numbers are the same to the bit; they are those of :func:`sweep` but for the rounding of
    float64 sums, which are added in another order.

    Args:
        model: As for :func:`sweep`.
        batches: As for :func:`sweep`; the same ones in the call that goes on.
        analyses: As for :func:`sweep`; the same ones in the call that goes on.
        path: The folder. It is replaced whole each time; only one process may work on it at once.
        progress: As for :func:`sweep`; what was there is counted.
        lock: As for :func:`sweep`.

    Raises:
        ValueError: As :func:`sweep`; or if the folder holds something else, or the state of another
            model, text or list of analyses, or another process works on it.
        OSError: If nothing can be written there.
    """
    folder, wanted = place_of(path), [as_analysis(given) for given in analyses]
    with exclusive(folder):
        recover(folder)
        return _go_on(model, batches, wanted, folder, progress, lock)


def _go_on(
    model: HookedModel,
    batches: TokenBatches,
    wanted: list[Any],
    folder: Path,
    progress: Progress | None,
    lock: AbstractContextManager[Any],
) -> tuple[Any, ...]:
    walk, data, names = iter(batches), describe(batches), _names(wanted)
    _refuse_contents(folder, names)
    try_folder(folder)
    whole = _kept(model, walk, data, wanted, folder) if contents(folder) else None
    while chunk := list(islice(walk, CHUNK)):
        part = sweep(
            model,
            Batches(lambda chunk=chunk: iter(chunk), data),
            wanted,
            _on(progress, whole),
            lock,
        )
        whole = part if whole is None else _merged(whole, part)
        with replacing_folder(folder, lambda held: _refuse_contents(held, names)) as new:
            for name, result in zip(names, whole, strict=True):
                result.save(new / name)
    if whole is None:
        raise ValueError(NO_BATCHES)
    return whole


def _merged(whole: tuple[Any, ...], part: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(a.merge(b) for a, b in zip(whole, part, strict=True))


def _on(progress: Progress | None, whole: tuple[Any, ...] | None) -> Progress | None:
    """Progress that counts from what is there."""
    if progress is None or whole is None:
        return progress
    before = whole[0].provenance
    return lambda sequences, tokens: progress(before.sequences + sequences, before.tokens + tokens)


def _kept(
    model: HookedModel, walk: Iterator[Any], data: str, wanted: list[Any], folder: Path
) -> tuple[Any, ...]:
    """The results in the folder; ``walk`` is taken past what they have seen."""
    found = tuple(Result.load(folder / name) for name in _names(wanted))
    seen = TokensSeen()
    while seen.sequences < found[0].provenance.sequences:
        tokens = next(walk, None)
        if tokens is None:
            raise ValueError(other_contents(folder, "a longer text"))
        seen.add(tokens)
    for analysis, result in zip(wanted, found, strict=True):
        _check(model, analysis, result, seen, data, folder)
    return found


def _names(wanted: list[Any]) -> list[str]:
    """The file of each result."""
    return [f"{number}.safetensors" for number in range(len(wanted))]


def _refuse_contents(folder: Path, names: list[str]) -> None:
    """Refuse a folder that holds neither nothing nor the results of these analyses."""
    if is_there(folder) and not folder.is_dir():
        raise ValueError(f"{folder} is no folder: give the name of one to make.")
    if set(contents(folder)) not in (set(), set(names)):
        raise ValueError(other_contents(folder, "something else, or other analyses"))


def _check(
    model: HookedModel, analysis: Any, result: Result, seen: TokensSeen, data: str, folder: Path
) -> None:
    sums = analysis.start(model)
    expected = provenance(model, data, seen, sums.options)
    mine, theirs = plain(expected), plain(result.provenance)
    differing = [name for name in mine if mine[name] != theirs[name]]
    if differing:
        raise ValueError(other_contents(folder, f"a sweep with another {differing[0]}"))
    if type(sums.finish(expected)) is not type(result):
        raise ValueError(
            other_contents(folder, f"a {type(result).__name__} where another is wanted")
        )


def plain(given: Provenance) -> dict[str, Any]:
    """A provenance as it is read back from a file."""
    return json.loads(json.dumps(given.to_dict()))


def other_contents(folder: Path, what: str) -> str:
    """The message for a folder that holds the state of something else."""
    return f"{folder} holds {what}: give another folder, or remove it to start anew."
