"""A model minus the baseline beside it."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import pandas as pd

from mudd_interp.analysis.provenance import Provenance
from mudd_interp.axes import Stream


@runtime_checkable
class Layered(Protocol):
    """A result with a table of streams and layers."""

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The model's distinct input streams."""
        ...

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        ...

    @property
    def frame(self) -> pd.DataFrame:
        """The numbers, with a column ``stream``."""
        ...


class Table(NamedTuple):
    """A table that was made from a result, where its own ``frame`` is not what is subtracted."""

    streams: tuple[Stream, ...]
    n_layers: int
    frame: pd.DataFrame


def minus_baseline(result: Layered, baseline: Layered, labels: Sequence[str]) -> pd.DataFrame:
    """The frame of a result, each number less the baseline's on the same stream.

    Where the baseline does not have the stream separately, its stream ``r`` stands in:
    in a plain Transformer that is what all four are.

    Args:
        result: Of the model in question.
        baseline: Of the model beside it.
        labels: The columns that, with ``stream``, name a row.

    Raises:
        ValueError: If the models differ in their number of layers.
    """
    if result.n_layers != baseline.n_layers:
        raise ValueError(
            "a difference is defined layer by layer, but the model has "
            f"{result.n_layers} layers and the baseline {baseline.n_layers}: take two of one depth."
        )
    index = ["stream", *labels]
    theirs = pd.concat(
        _of_stream(baseline.frame, counterpart(stream, baseline.streams)).assign(stream=stream)
        for stream in result.streams
    ).set_index(index)
    mine = result.frame.set_index(index)
    return (mine - theirs.reindex(mine.index)).reset_index()


def check_same_rows(provenances: Sequence[Provenance]) -> None:
    """Refuse to hold weights of states against weights of single sublayers, row by row.

    Raises:
        ValueError: With what to do.
    """
    labels = {(each.rows, each.sources) for each in provenances}
    if len(labels) > 1:
        one = next(each for each in provenances if each.rows)
        raise ValueError(
            f"the rows of {one.model} are sublayers ({', '.join(one.rows[:3])}, ...), which read "
            "what single sublayers wrote, and the other model's are not: no edge of one is an edge "
            "of the other. Leave the baseline out, or lay both out in the delta basis, with "
            "read_weights."
        )


def counterpart(stream: Stream, streams: Sequence[Stream]) -> Stream:
    """The stream of a baseline that a model's is compared with: of that name, else ``r``."""
    return stream if stream in streams else "r"


def _of_stream(frame: pd.DataFrame, stream: Stream) -> pd.DataFrame:
    return frame.loc[frame["stream"] == stream]
