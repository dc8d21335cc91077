"""A walk that can be resumed: what it has is written as it goes on."""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor

from mudd_interp.analysis.base import Analysis
from mudd_interp.analysis.inputs import checked
from mudd_interp.analysis.provenance import Provenance, TokensSeen, provenance
from mudd_interp.analysis.result import Result
from mudd_interp.analysis.sweep import as_analysis
from mudd_interp.analysis.walk import NO_BATCHES, NO_LOCK, Progress, walk
from mudd_interp.data import Batches, TokenBatches, describe
from mudd_interp.files import (
    contents,
    exclusive,
    is_there,
    place_of,
    recover,
    replacing_folder,
    try_file,
    try_folder,
)
from mudd_interp.protocol import HookedModel, Inputs


def resumable_sweep(
    model: HookedModel,
    batches: TokenBatches,
    analyses: Sequence[Any],
    path: str | os.PathLike[str],
    progress: Progress | None = None,
    lock: AbstractContextManager[Any] = NO_LOCK,
) -> tuple[Any, ...]:
    """:func:`sweep`, whose state is kept in a folder after every 32 batches.

    The same call resumes from there, and one that was complete returns at once. Interrupted or not,
    the numbers are the same to the bit; they are those of :func:`sweep` except for the rounding of
    float64 sums, which are added in another order. With an analysis that runs the model many times
    for each batch (``ablation_sweep``) the state is kept after every batch.

    Args:
        model: As for :func:`sweep`.
        batches: As for :func:`sweep`; the same ones in the call that resumes.
        analyses: As for :func:`sweep`; the same ones in the call that resumes.
        path: The folder. It is replaced whole each time; only one process may work on it at once.
        progress: As for :func:`sweep`; what was there already is counted.
        lock: As for :func:`sweep`.

    Raises:
        ValueError: As :func:`sweep`; or if the folder holds something else, or the state of another
            model, text or list of analyses, or another process works on it.
        OSError: If nothing can be written there.
    """
    wanted = [as_analysis(given) for given in analyses]
    with _own_folder(path, len(wanted)) as state:
        return go_on(model, batches, wanted, state, progress, lock)


class State(ABC):
    """Where the results of a walk are kept while it goes on."""

    @abstractmethod
    def read(self) -> tuple[Any, ...] | None:
        """What an earlier walk has left, if anything."""

    @abstractmethod
    def write(self, results: Sequence[Result]) -> None:
        """Keep the results, in place of those before."""

    @abstractmethod
    def other(self, what: str) -> str:
        """The message for a place that holds the state of something else."""


def go_on(
    model: HookedModel,
    batches: TokenBatches,
    wanted: Sequence[Analysis[Any]],
    state: State,
    progress: Progress | None = None,
    lock: AbstractContextManager[Any] = NO_LOCK,
) -> tuple[Any, ...]:
    """:func:`walk` from where an earlier one stopped, its state kept as it goes on."""
    whole, data = state.read(), describe(batches)
    rest: Iterator[Inputs] = iter(checked(batches, model))
    if whole is not None:
        _check_analyses(model, wanted, whole, state)
        rest = _left(rest, TokensSeen(model.front), whole[0].provenance, state)
    while chunk := list(islice(rest, min(each.chunk for each in wanted))):
        text = Batches(lambda chunk=chunk: iter(chunk), data)
        part = walk(model, text, wanted, _inside(progress, whole, chunk), lock)
        whole = part if whole is None else _merged(whole, part)
        state.write(whole)
        if progress is not None:
            progress(whole[0].provenance.sequences, whole[0].provenance.tokens)
    if whole is None:
        raise ValueError(NO_BATCHES)
    return whole


def _merged(whole: tuple[Any, ...], part: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(a.merge(b) for a, b in zip(whole, part, strict=True))


def _inside(
    progress: Progress | None, whole: tuple[Any, ...] | None, chunk: Sequence[Tensor]
) -> Progress | None:
    """Progress that counts from what is there; the last batch is reported once it is kept."""
    if progress is None:
        return None
    before = (0, 0) if whole is None else _seen(whole[0].provenance)
    last = sum(map(len, chunk))

    def report(sequences: int, tokens: int) -> None:
        if sequences < last:
            progress(before[0] + sequences, before[1] + tokens)

    return report


def _seen(source: Provenance) -> tuple[int, int]:
    return source.sequences, source.tokens


def _left(
    walk: Iterable[Inputs], seen: TokensSeen, found: Provenance, state: State
) -> Iterator[Inputs]:
    """What is left of a text, which must begin with what was seen."""
    for tokens in walk:
        missing = found.sequences - seen.sequences
        seen.add(tokens[:missing])
        if seen.sequences == found.sequences and f"{seen.digest:064x}" != found.token_digest:
            raise ValueError(state.other("a sweep of another text (another token_digest)"))
        if len(tokens) > missing:
            yield tokens[missing:]
    if seen.sequences < found.sequences:
        raise ValueError(state.other("a sweep of another text, a longer text than this one"))


def _check_analyses(
    model: HookedModel, wanted: Sequence[Analysis[Any]], found: Sequence[Result], state: State
) -> None:
    """Refuse results that are not of these analyses, or of another model."""
    for analysis, result in zip(wanted, found, strict=True):
        if type(result) is not analysis.result:
            what = f"a {type(result).__name__} where another is wanted"
            raise ValueError(state.other(what))
        if result.provenance.text != found[0].provenance.text:
            raise ValueError(state.other("results of several texts"))
        expected = provenance(model, "", TokensSeen(model.front), analysis.start(model).options)
        mine, theirs = plain(expected), plain(result.provenance)
        for name in ("model", "revision", "digest", "dtype", "version"):
            if mine[name] != theirs[name]:
                raise ValueError(state.other(f"a sweep with another {name}"))
        if differing := _differing(mine["options"], theirs["options"]):
            raise ValueError(state.other(f"a sweep with other options: {differing}"))


def _differing(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    names = [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]
    return ", ".join(names)


@contextmanager
def _own_folder(path: str | os.PathLike[str], count: int) -> Generator[State]:
    """A folder that no other process works on in the meantime."""
    folder = place_of(path)
    with exclusive(folder):
        recover(folder)
        yield _Folder(folder, [f"{number}.safetensors" for number in range(count)])


@contextmanager
def own_file(path: str | os.PathLike[str]) -> Generator[State]:
    """A file for a walk's one result, that no other process works on in the meantime."""
    file = place_of(path)
    try_file(file)
    with exclusive(file):
        yield _File(file)


class _Folder(State):
    """A folder with a file for each result."""

    def __init__(self, folder: Path, names: list[str]):
        self._folder, self._names = folder, names

    def read(self) -> tuple[Any, ...] | None:
        self._refuse_contents(self._folder)
        try_folder(self._folder)
        if not contents(self._folder):
            return None
        return tuple(Result.load(self._folder / name) for name in self._names)

    def write(self, results: Sequence[Result]) -> None:
        with replacing_folder(self._folder, self._refuse_contents) as new:
            for name, result in zip(self._names, results, strict=True):
                result.save(new / name)

    def other(self, what: str) -> str:
        return other_contents(self._folder, what)

    def _refuse_contents(self, folder: Path) -> None:
        """Refuse a folder that is neither empty nor holds the results of these analyses."""
        if is_there(folder) and not folder.is_dir():
            raise ValueError(f"{folder} is not a folder: give the name of one to make.")
        if set(contents(folder)) not in (set(), set(self._names)):
            raise ValueError(other_contents(folder, "something else, or other analyses"))


class _File(State):
    """A file of one result."""

    def __init__(self, file: Path):
        self._file = file

    def read(self) -> tuple[Any, ...] | None:
        return (Result.load(self._file),) if self._file.exists() else None

    def write(self, results: Sequence[Result]) -> None:
        (result,) = results
        result.save(self._file)

    def other(self, what: str) -> str:
        return f"{self._file} holds {what}: give another path, or remove the file."


def plain(given: Provenance) -> dict[str, Any]:
    """A provenance as it is read back from a file."""
    return json.loads(json.dumps(given.to_dict()))


def other_contents(folder: Path, what: str) -> str:
    """The message for a folder that holds the state of something else."""
    return f"{folder} holds {what}: give another folder, or remove it to start again."
