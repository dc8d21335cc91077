"""What every result has: labels and provenance beside sums, a file, and a merge.

A result keeps sufficient statistics (sums and counts in float64 and int64), not averages: so
results of parts of a corpus merge into the result of the whole, and a file loses nothing.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

import numpy as np
import pandas as pd
from jaxtyping import Int64

from mudd_interp.analysis.finite import arrays_of, axes_of, freeze
from mudd_interp.analysis.provenance import Provenance
from mudd_interp.analysis.result_file import check_arrays, file_bytes, read
from mudd_interp.axes import Stream
from mudd_interp.files import place_of, write_bytes
from mudd_interp.schema import validated

R = TypeVar("R", bound="Result")


@dataclass(frozen=True, eq=False)
class Places:
    """Where the sequences of a share of a corpus stand in it.

    Attributes:
        number: Number of each sequence in the corpus, from 0.
        length: Its tokens.
    """

    number: Int64[np.ndarray, " sequence"]
    length: Int64[np.ndarray, " sequence"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Finding(ABC):
    """What an analysis found: frozen, its arrays read-only, its numbers finite.

    Attributes:
        provenance: Model, tokens and options that it was computed from.
    """

    absent: ClassVar[tuple[str, ...]] = ()
    """Arrays in which NaN means that there is no number; everywhere else numbers are finite."""

    impossible: ClassVar[tuple[str, ...]] = ()
    """Arrays of logits in which minus infinity means that a token cannot be."""

    provenance: Provenance

    def __post_init__(self) -> None:
        freeze(self, self.provenance.dtype, self.absent, self.impossible)

    @abstractmethod
    def merge(self, other: Any) -> Any:
        """Two findings together, where that has a meaning."""

    @abstractmethod
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file, if it is the kind that is kept."""


@dataclass(frozen=True, eq=False, kw_only=True)
class OneSequence(Finding):
    """What was found of one sequence; one pass computes it again, so it is not kept in a file.

    Attributes:
        token_ids: The sequence; of a model that reads no tokens the numbers of its positions.
        tokens: The text of each token, or its id where the model has no tokenizer; else what its
            front calls each position.
    """

    token_ids: Int64[np.ndarray, " pos"]
    tokens: tuple[str, ...]

    def merge(self, other: Any) -> Any:  # noqa: ARG002 (the arguments of Result's)
        """Refuse: two sequences are no longer one.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            f"a {type(self).__name__} is of one sequence, so two are not merged: average over a "
            "corpus with an analysis of batches."
        )

    def save(self, path: str | os.PathLike[str]) -> None:  # noqa: ARG002 (the arguments of Result's)
        """Refuse: it is computed again.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            f"a {type(self).__name__} is of one sequence and is not saved: keep its table, or "
            "compute it again, which takes one pass."
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Result(Finding):
    """What was found of a corpus, or of pairs of prompts: it is saved, loaded and merged.

    Attributes:
        streams: The model's distinct input streams, in q k v r order.
    """

    kinds: ClassVar[dict[str, type["Result"]]] = {}

    needed: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Options that the class reads from its provenance, by name, with their types."""

    labelled: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Axes whose labels are an option: the option by the axis."""

    lengths: ClassVar[Mapping[str, int]] = MappingProxyType({})
    """Axes that always have the same length: the length by the axis."""

    streams: tuple[Stream, ...]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Result.kinds[cls.__name__] = cls

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

    @classmethod
    def joined(cls: type[R], shares: Sequence[R], places: Sequence["Places"]) -> R:
        """The result of a corpus whose sequences were dealt out, in the order of the corpus.

        Args:
            shares: Results of the shares.
            places: Where the sequences of each share stand.

        Raises:
            ValueError: As :meth:`merge`.
        """
        whole = reduce(lambda a, b: a.merge(b), shares)
        order = np.argsort(np.concatenate([each.number for each in places]))
        axes = {name: axes_of(whole, name) for name in arrays_of(whole)}
        arrays = {
            name: getattr(whole, name).take(order, axis=names.index("sequence"))
            for name, names in axes.items()
            if "sequence" in names
        }
        return replace(whole, **arrays)

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
        arrays, source = arrays_of(self), self.provenance.to_dict()
        write_bytes(path, file_bytes(type(self).__name__, self.streams, source, arrays))

    @classmethod
    def load(cls: type[R], path: str | os.PathLike[str]) -> R:
        """Read what :meth:`save` wrote; ``Result.load`` reads a result of any kind.

        The file is verified: its digest (files of version 0.1 have none), the types of all its
        fields, dtype and axes of each array, and that counts are not negative and numbers are
        finite.

        Raises:
            ValueError: If the file is missing, damaged, or holds something else.
        """
        place = place_of(path)
        header, arrays = read(place)
        kind = Result.kinds.get(header.result)
        if kind is None or not issubclass(kind, cls):
            raise ValueError(f"{path} holds a {header.result}, not a {cls.__name__}.")
        source = Provenance.from_dict(header.provenance, f"the provenance in {path}")
        options = kind.check_options(source.options, f"the options in {path}")
        sizes = {"stream": len(header.streams), "sequence": source.sequences}
        sizes |= {**kind.lengths, **kind.sizes(options)}
        check_arrays(kind, arrays, sizes, _LABELS, place)
        try:
            source = replace(source, options=kind.completed(source.options, arrays))
            return kind(provenance=source, streams=header.streams, **arrays)
        except ValueError as error:
            raise ValueError(f"{path} cannot be used: {error}") from error

    @classmethod
    def completed(
        cls,
        options: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],  # noqa: ARG003 (a subclass reads them)
    ) -> Mapping[str, Any]:
        """The options of a file, and those that earlier versions did not write.

        Raises:
            ValueError: If they do not fit the arrays.
        """
        return options

    @classmethod
    def sizes(cls, options: Mapping[str, Any]) -> dict[str, int]:
        """The lengths of axes that the options give, by the axis."""
        return {axis: len(options[name]) for axis, name in cls.labelled.items()}

    @classmethod
    def check_options(cls, options: Mapping[str, Any], what: str) -> Mapping[str, Any]:
        """The options of a provenance, as far as this class reads them.

        Raises:
            ValueError: If one is missing, or of another type.
        """
        for name, expected in cls.needed.items():
            if name not in options:
                raise ValueError(f"{what} lack `{name}`: compute and save the result again.")
            validated(expected, options[name], f"`{name}` of {what}")
        return options


_LABELS = frozenset(field.name for field in fields(Result))
