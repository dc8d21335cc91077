"""Finished runs on disk: a folder each, written whole or not at all, found again by any session.

A run is ``runs/<name>/``: an ``entry.json`` that says what it is, and one safetensors file for each
result, named by the result's key. The keys are a study's: sha256 over everything that changes it.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import mudd_interp
from mudd_interp.analysis import Result
from mudd_interp.files import (
    place_of,
    read_object,
    replacing_folder,
    sealed,
    sha256_file,
    unsealed,
    write_text,
)
from mudd_interp.schema import validated

VARIABLE = "MUDD_INTERP_CACHE"
"""The environment variable that says where the cache folder is."""

RUNS_LIMIT = 2**30
"""Bytes of all kept runs together; beyond that the oldest go."""

_FORMAT = "mudd-interp run 1"
_ENTRY = "entry.json"
_MARKS = ("format", "version")
_OURS = re.compile(r"\.?[0-9a-f]{16,64}(\.[0-9a-f]{32}\.(tmp|old))?")
"""Folders named by a digest, and what was left of one when a process was killed."""


def cache_folder() -> Path:
    """Where runs and uploads are kept: $MUDD_INTERP_CACHE, else in the user's cache."""
    if named := os.environ.get(VARIABLE):
        return place_of(named)
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "mudd-interp"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A run that is kept.

    Attributes:
        name: Its folder: a sha256 over the keys of all results that the whole run has.
        link: The query parameters of its view.
        models: The names of the model and of the baseline, if there is one.
        text: What the text is, in words.
        sequences: How many sequences of it each model saw.
        tokens: How many tokens.
        passes: Which passes over the text are finished.
        when: When the last of them finished, in UTC.
        files: The sha256 of each result's file, by the result's key.
        n_bytes: The size of these files together.
    """

    name: str
    link: dict[str, str]
    models: list[str]
    text: str
    sequences: int
    tokens: int
    passes: list[str]
    when: str
    files: dict[str, str]
    n_bytes: int


class Shelf:
    """The kept runs of a folder; any number of threads and processes may use it.

    Args:
        folder: Where they are; made when the first one is kept.
        limit: How many bytes they take together at most.
    """

    def __init__(self, folder: Path, limit: int = RUNS_LIMIT):
        self.folder, self._limit = folder, limit
        self._ignored: dict[str, str] = {}

    def keep(
        self,
        name: str,
        results: Mapping[str, Result],
        link: Mapping[str, str],
        models: Sequence[str],
        passes: Sequence[str],
    ) -> None:
        """Write a run in place of what was kept of it before; the oldest runs go if it is too much.

        Raises:
            OSError: If it cannot be written; then nothing has changed.
        """
        seen = next(iter(results.values())).provenance
        with replacing_folder(self.folder / name) as folder:
            files = {key: folder / f"{key}.safetensors" for key in results}
            for key, file in files.items():
                results[key].save(file)
            entry = Entry(
                name=name,
                link=dict(link),
                models=list(models),
                text=", ".join(seen.data),
                sequences=seen.sequences,
                tokens=seen.tokens,
                passes=list(passes),
                when=datetime.now(UTC).isoformat(timespec="seconds"),
                files={key: sha256_file(file) for key, file in files.items()},
                n_bytes=sum(file.stat().st_size for file in files.values()),
            )
            values = {"format": _FORMAT, "version": mudd_interp.__version__, **asdict(entry)}
            write_text(folder / _ENTRY, json.dumps(sealed(values), indent=2) + "\n")
        self._ignored.pop(name, None)
        prune(self.folder, self._limit)

    def get(self, key: str) -> Result:
        """The kept result of a key.

        Raises:
            KeyError: If there is none, or its file is damaged.
        """
        for file in self.folder.glob(f"*/{key}.safetensors"):
            try:
                if sha256_file(file) != _read(file.parent).files[key]:
                    raise ValueError("its digest is another one")
                return Result.load(file)
            except (ValueError, KeyError, OSError) as error:
                self._ignored[file.parent.name] = f"{file.name} cannot be used ({error})"
        raise KeyError(key)

    def entries(self) -> tuple[list[Entry], dict[Path, str]]:
        """The kept runs, the newest first; and what is ignored there, with the reason."""
        found, ignored = list[Entry](), dict[Path, str]()
        for folder in sorted(self.folder.glob("[!.]*")):
            try:
                if reason := self._ignored.get(folder.name):
                    raise ValueError(reason)
                entry = _read(folder)
                _check_files(entry, folder)
                found.append(entry)
            except (ValueError, OSError) as error:
                ignored[folder] = str(error)
        return sorted(found, key=lambda entry: entry.when, reverse=True), ignored

    def delete(self, name: str) -> None:
        """Remove a run; it is no error if it is gone already."""
        assert _OURS.fullmatch(name)
        self._ignored.pop(name, None)
        shutil.rmtree(self.folder / name, ignore_errors=True)


def prune(folder: Path, limit: int) -> None:
    """Remove the oldest of our folders in a folder, until the rest is small enough."""
    held = sorted(_ours(folder))
    total = sum(size for _, size, _ in held)
    for _, size, path in held:
        if total <= limit:
            return
        shutil.rmtree(path, ignore_errors=True)
        total -= size


def _ours(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """Our folders in a folder: when each was written, its bytes, and where it is."""
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # another session removes the oldest too
            if path.is_dir() and _OURS.fullmatch(path.name):
                yield path.stat().st_mtime, _size(path), path


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _read(folder: Path) -> Entry:
    """The entry of a folder.

    Raises:
        ValueError: If it is not ours, damaged, or of another version.
    """
    if not (folder / _ENTRY).is_file():
        raise ValueError(f"it has no {_ENTRY}")
    try:
        values = read_object(folder / _ENTRY)
    except ValueError as error:
        raise ValueError(f"its {_ENTRY} is damaged ({error})") from error
    version = values.get("version")
    if values.get("format") != _FORMAT:
        raise ValueError(f"its {_ENTRY} is not ours")
    if version != mudd_interp.__version__:
        raise ValueError(f"it is of mudd-interp {version}, this is {mudd_interp.__version__}")
    fields = {name: v for name, v in unsealed(values, _ENTRY).items() if name not in _MARKS}
    entry: Entry = validated(Entry, fields, f"its {_ENTRY}")
    if entry.name != folder.name:
        raise ValueError(f"its {_ENTRY} is not ours")
    return entry


def _check_files(entry: Entry, folder: Path) -> None:
    """Refuse an entry with missing files, or whose files differ in total size."""
    files = [folder / f"{key}.safetensors" for key in entry.files]
    if missing := [file.name for file in files if not file.is_file()]:
        raise ValueError(f"{missing[0]} is missing")
    if sum(file.stat().st_size for file in files) != entry.n_bytes:
        raise ValueError("its files are not as they were written")
