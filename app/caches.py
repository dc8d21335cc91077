"""Every cache of the app, and the lock: sessions share models and results, never prompts or hooks.

Streamlit hashes large arguments by samples and joins small ones without a boundary, so the only
argument that is ever hashed here is one sha256 of everything that changes the value.
"""

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st
import torch
from streamlit.runtime.scriptrunner_utils.script_run_context import get_run_yield_check

import mudd_interp
import sessions
from mudd_interp.analysis import Progress
from mudd_interp.catalog import FigureKind
from mudd_interp.checkpoints.names import BUNDLED, BUNDLED_FOLDER
from mudd_interp.panics import is_failure
from mudd_interp.pictures import reads_images, without_text
from mudd_interp.protocol import HookedModel
from mudd_interp.request import Request, canonical
from mudd_interp.study import Study
from mudd_interp.texts import text_digest
from shelf import Entry, Shelf, cache_folder
from specs import spec

T = TypeVar("T")

_FORESEEN = (ValueError, OSError, NotImplementedError)
"""What the library raises when it cannot do what it was asked for."""

MODELS_HELD = 4
BYTES_KEPT = 512 * 2**20
_LARGE = ("z", "x", "y", "text", "customdata")  # of a trace


@contextmanager
def failing(say: Callable[[str], object]) -> Generator[None]:
    """The boundary of what a page computes: whatever fails within ends it with a sentence.

    Streamlit's own signals, which end or restart a script, pass through.

    Args:
        say: Called with the sentence, as text.
    """
    try:
        yield
    except BaseException as error:
        if not is_failure(error):
            raise
        say(failure(error))


def failure(error: BaseException) -> str:
    """The sentence for an error; where an unforeseen one came from is in the log."""
    if isinstance(error, _FORESEEN):
        return str(error)
    logging.getLogger(__name__).error("an unexpected error", exc_info=error)
    return f"an unexpected {type(error).__name__}; the log of the dashboard says where."


def study(request: Request, progress: Progress | None = None) -> Study:
    """A study that shares models and results with all sessions.

    Raises:
        ValueError: If a model or the text cannot be had.
        OSError: If a file cannot be read.
    """
    shared = _shared()
    kept = Borrowed(shared.results, shelf())
    found = Study(request, load, kept, progress, shared.lock)
    if reads_images(found.models["model"]):
        return found.with_request(without_text(request))  # a page's text is not for them
    return found


def shelf() -> Shelf:
    """The runs kept on disk that this page may see."""
    own = sessions.own_folder()
    return _shared().shelf if own is None else Shelf(own / "runs")


def forget(entry: Entry) -> None:
    """Remove a kept run from the disk, and its results from memory."""
    shelf().delete(entry.name)
    _shared().results.drop(entry.files)


def drawing(kind: FigureKind, study: Study, place: str, draw: Callable[[], T]) -> T:
    """What ``draw`` makes for a place on a page, kept under all that it depends on."""
    results, key = _shared().results, drawing_key(kind, study, place)
    try:
        return results.get(key)
    except KeyError:
        made = draw()
        results.put(key, made)
        return made


def is_drawn(kind: FigureKind, study: Study, place: str) -> bool:
    """Whether :func:`drawing` has it already."""
    try:
        _shared().results.get(drawing_key(kind, study, place))
    except KeyError:
        return False
    return True


def drawing_key(kind: FigureKind, study: Study, place: str) -> str:
    """sha256 over what makes a figure: name, place, the values that it uses, models, text, code."""
    request = study.request
    values = {name: getattr(request, name) for name in kind.depends_on(request)}
    models = [
        [model.info.digest or id(model), str(model.cfg.device), str(model.cfg.dtype)]
        for model in study.models.values()
    ]
    text = text_digest(request) if kind.of_models else None
    parts = [kind.name, place, values, models, text, mudd_interp.__version__]
    return hashlib.sha256(canonical(parts).encode()).hexdigest()


def load(name: str, device: str | None = None, dtype: str | None = None) -> HookedModel:
    """The model of a name: the one that is held, unless its files have changed.

    Raises:
        ValueError: If it cannot be had, or a check at load fails.
        OSError: If a file cannot be read.
    """
    return _model(model_key(name, device, dtype), name, device, dtype)


def model_key(name: str, device: str | None, dtype: str | None) -> str:
    """sha256 over what makes a model: name, the folder's files, device, dtype, code version."""
    folder = BUNDLED_FOLDER / name if name in BUNDLED else Path(name).expanduser()
    values = [name, _signature(folder), device, dtype, mudd_interp.__version__]
    return hashlib.sha256(canonical(values).encode()).hexdigest()


def _signature(folder: Path) -> list[tuple[str, int, int]]:
    """Names, sizes and times of a folder's files; nothing if it is not a folder."""
    if not folder.is_dir():
        return []
    stats = {path.name: path.stat() for path in sorted(folder.iterdir()) if path.is_file()}
    return [(name, each.st_size, each.st_mtime_ns) for name, each in stats.items()]


@st.cache_resource(max_entries=MODELS_HELD, show_spinner=False)
def _model(key: str, _name: str, _device: str | None, _dtype: str | None) -> HookedModel:
    assert key
    return mudd_interp.load_model(_name, device=_device, dtype=_dtype)


class Results:
    """Results by key, the least recently used ones dropped; any number of threads may use it.

    Args:
        limit: How many bytes to keep at most.
    """

    def __init__(self, limit: int):
        self._limit = limit
        self._held: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()
        self.n_bytes = 0

    def get(self, key: str) -> Any:
        """The value of a key.

        Raises:
            KeyError: If there is none.
        """
        with self._lock:
            self._held.move_to_end(key)
            return self._held[key][0]

    def put(self, key: str, value: Any) -> None:
        """Keep a value, and drop the oldest ones if that is too much.

        One that is too much by itself is not kept: it would drive out all others.
        """
        size = bytes_of(value)
        with self._lock:
            self._drop(key)
            if size > self._limit:
                return
            self._held[key] = value, size
            self.n_bytes += size
            while self.n_bytes > self._limit:
                self._drop(next(iter(self._held)))

    def drop(self, keys: Iterable[str]) -> None:
        """Forget the values of some keys, as far as they are there."""
        with self._lock:
            for key in keys:
                self._drop(key)

    def _drop(self, key: str) -> None:
        self.n_bytes -= self._held.pop(key, (None, 0))[1]


class Borrowed(MutableMapping[str, Any]):
    """One study's view of the shared results: what it has seen stays, even if others crowd it out.

    Args:
        results: The shared ones.
        shelf: Where the results of earlier processes are.
    """

    def __init__(self, results: Results, shelf: Shelf | None = None):
        self._results, self._shelf = results, shelf
        self._seen: dict[str, Any] = {}

    def __getitem__(self, key: str) -> Any:
        if key not in self._seen:
            self._seen[key] = self._found(key)
        return self._seen[key]

    def _found(self, key: str) -> Any:
        try:
            return self._results.get(key)
        except KeyError:
            if self._shelf is None:
                raise
        value = self._shelf.get(key)
        self._results.put(key, value)
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        self._seen[key] = value
        self._results.put(key, value)

    def __delitem__(self, key: str) -> None:
        del self._seen[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._seen)

    def __len__(self) -> int:
        return len(self._seen)


class Frozen(go.Figure):
    """A figure that nobody changes: what Streamlit makes of it at every rerun is made once.

    Args:
        figure: The figure; its traces and layout are in :meth:`to_dict` only, see ``specs.py``.
    """

    def __init__(self, figure: go.Figure):
        super().__init__()
        self._whole = spec(figure)

    def to_dict(self) -> dict[str, Any]:
        """The figure, ready for JSON; not to be changed."""
        return self._whole


def bytes_of(value: Any) -> int:
    """About how much memory a result takes."""
    if value is None or isinstance(value, int | float):
        return 64  # first, for speed: a prompt's predictions have thousands of them
    if isinstance(value, str):
        return max(64, len(value))
    if isinstance(value, Frozen):
        return bytes_of(value.to_dict())
    if isinstance(value, torch.Tensor | np.ndarray):
        return value.nbytes
    if isinstance(value, go.Figure):
        return 4096 + sum(
            bytes_of(getattr(trace, name, None)) for trace in value.data for name in _LARGE
        )
    if isinstance(value, pd.DataFrame):
        return int(value.memory_usage(deep=True).sum())
    if is_dataclass(value):
        return sum(bytes_of(getattr(value, field.name)) for field in fields(value))
    if isinstance(value, Mapping):
        return sum(map(bytes_of, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(bytes_of, value))
    return 64


class Turn(AbstractContextManager[None]):
    """The lock of all forward passes, and a place where a script that nobody waits for ends.

    A page that was closed, or on which something else was clicked, does not get its turn:
    Streamlit raises before, between two steps of a computation.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        stop = get_run_yield_check() or (lambda: None)
        stop()
        while not self._lock.acquire(timeout=0.2):
            stop()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class _Shared:
    """What all sessions of this process share, besides the models."""

    def __init__(self) -> None:
        self.results = Results(BYTES_KEPT)
        self.shelf = Shelf(cache_folder() / "runs")
        self.lock = Turn()


@st.cache_resource(show_spinner=False)
def _shared() -> _Shared:
    return _Shared()
