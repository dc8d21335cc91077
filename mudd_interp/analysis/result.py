"""What every result has: labels and provenance beside sums, a file, and a merge.

A result keeps sufficient statistics (sums and counts in float64 and int64), not averages: so
results of parts of a corpus merge into the result of the whole, and a file loses nothing.
"""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mudd_interp.analysis.finite import arrays_of, freeze
from mudd_interp.analysis.provenance import Provenance
from mudd_interp.axes import Stream
from mudd_interp.files import place_of, write_bytes

_HEADER = "mudd_interp"

R = TypeVar("R", bound="Result")


@dataclass(frozen=True, eq=False, kw_only=True)
class Result(ABC):
    """A result of an analysis: frozen, its arrays read-only, its numbers finite.

    Attributes:
        provenance: Model, tokens and options that it was computed from.
        streams: The model's distinct input streams, in q k v r order.
    """

    kinds: ClassVar[dict[str, type["Result"]]] = {}

    absent: ClassVar[tuple[str, ...]] = ()
    """Arrays in which NaN means that there is nothing; everywhere else numbers are finite."""

    provenance: Provenance
    streams: tuple[Stream, ...]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Result.kinds[cls.__name__] = cls

    def __post_init__(self) -> None:
        freeze(self, self.provenance.dtype, self.absent)

    @property
    @abstractmethod
    def frame(self) -> pd.DataFrame:
        """The numbers as a tidy table."""

    @abstractmethod
    def _merged(self, other: Any) -> dict[str, np.ndarray]:
        """The arrays of this result and another of its kind together, by field."""

    def merge(self: R, other: R) -> R:
        """The result of both corpora together, as if one run had seen them.

        Raises:
            ValueError: If the other result is of another kind, model or set of options.
        """
        if type(other) is not type(self):
            raise ValueError(
                f"cannot merge a {type(self).__name__} with a {type(other).__name__}: give two "
                "results of one analysis."
            )
        provenance = self.provenance.merge(other.provenance)
        self._check_shapes(other)
        return replace(self, provenance=provenance, **self._merged(other))

    def _check_shapes(self, other: "Result") -> None:
        theirs = arrays_of(other)
        for name, array in arrays_of(self).items():
            if array.shape != theirs[name].shape or self.streams != other.streams:
                raise ValueError(
                    f"cannot merge results of different models: {name} has shape {array.shape} "
                    f"here, {theirs[name].shape} there."
                )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the result to one file (safetensors), whole or not at all and without loss.

        Raises:
            ValueError: If the path is empty or a folder.
            OSError: If it cannot be written.
        """
        header = {
            "result": type(self).__name__,
            "streams": list(self.streams),
            "provenance": self.provenance.to_dict(),
        }
        write_bytes(path, save(dict(arrays_of(self)), metadata={_HEADER: json.dumps(header)}))

    @classmethod
    def load(cls: type[R], path: str | os.PathLike[str]) -> R:
        """Read what :meth:`save` wrote; ``Result.load`` reads a result of any kind.

        Raises:
            ValueError: If the file is missing, damaged, or holds something else.
        """
        header, arrays = _read(place_of(path))
        kind = Result.kinds.get(header["result"])
        if kind is None or not issubclass(kind, cls):
            raise ValueError(f"{path} holds a {header['result']}, not a {cls.__name__}.")
        if missing := _array_fields(kind) - set(arrays):
            raise ValueError(f"{path} lacks {sorted(missing)[0]}: compute and save it again.")
        return kind(
            provenance=Provenance.from_dict(header["provenance"]),
            streams=tuple(header["streams"]),
            **arrays,
        )


def _array_fields(kind: type[Result]) -> set[str]:
    return {field.name for field in fields(kind)} - {field.name for field in fields(Result)}


def _read(path: Path) -> tuple[Mapping[str, Any], dict[str, np.ndarray]]:
    if not path.is_file():
        raise ValueError(f"no result at {path}: check the path.")
    try:
        with safe_open(path, framework="numpy") as file:
            header = (file.metadata() or {}).get(_HEADER)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no saved result: {error}.") from error
    if header is None:
        raise ValueError(f"{path} is no saved result: expected a file that Result.save wrote.")
    return json.loads(header), arrays
