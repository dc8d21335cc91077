"""The edges of a model, (stream, row, source), and arrays that are laid out by them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Shaped
from torch import Tensor

from mudd_interp.axes import Stream
from mudd_interp.wiring import Hook, Observer, Read, Wiring


def static_weights(wiring: Wiring) -> dict[Read, Float64[np.ndarray, " source"]]:
    """The learned bias of every row; one-hot on the newest source for the plain residual.

    Where weights have no such part it is zero.
    """
    return {read: _static(wiring, read) for read in wiring.rows}


def _static(wiring: Wiring, read: Read) -> Float64[np.ndarray, " source"]:
    static = wiring.static(read)
    if static is None:
        return np.zeros(len(wiring.columns(read)))
    return static.detach().cpu().double().numpy()


def watch_sources(wiring: Wiring, see: Callable[[int, Tensor], object]) -> list[Hook]:
    """Looks at what the weights multiply, ``[batch pos d_model]``, source by source."""
    return [
        (wiring.multiplied(source), Observer(partial(_look, see, number)))
        for number, source in enumerate(wiring.sources)
    ]


def _look(see: Callable[[int, Tensor], object], source: int, x: Tensor, hook: Any) -> None:  # noqa: ARG001 (a hook's signature)
    see(source, x)


def edge_grid(
    values: Mapping[Read, Shaped[np.ndarray, "..."]],
    wiring: Wiring,
    missing: float = np.nan,
    columns: Callable[[Read], Sequence[int]] | None = None,
) -> Shaped[np.ndarray, "stream layer all_sources ..."]:
    """What belongs to each row as one array, with ``missing`` where there is no edge.

    Args:
        values: For each row an array whose first axis is that of its sources.
        wiring: Of the model.
        missing: What stands where there is no edge.
        columns: On which sources the values of a row are; by default those that its weights are of.
    """
    some = next(iter(values.values()))
    shape = (len(wiring.streams), wiring.n_rows, len(wiring.sources), *some.shape[1:])
    grid = np.full(shape, missing, dtype=some.dtype)
    for read, rows in values.items():
        at = list((columns or wiring.columns)(read))
        grid[wiring.streams.index(read.stream), read.row, at] = rows
    return grid


def edge_index(
    streams: tuple[Stream, ...],
    present: Bool[np.ndarray, "stream layer source"],
    stream: str,
    layer: int,
    source: int,
) -> tuple[int, int, int]:
    """Where an edge stands in an array ``[stream layer source]``.

    Args:
        streams: The streams of the array, in its order.
        present: Which edges there are.
        stream: Of the edge.
        layer: Of the edge.
        source: Of the edge.

    Raises:
        ValueError: If there is no such edge, with the range of those that there are.
    """
    if stream not in streams:
        raise ValueError(
            f"stream must be one of {', '.join(streams)} in this model, got {stream!r}."
        )
    row = streams.index(stream)
    last = max(np.flatnonzero(present[row].any(-1)).tolist(), default=-1)
    if not 0 <= layer <= last:
        only = "" if stream == "r" else " (the last aggregation feeds stream r only)"
        raise ValueError(f"layer of stream {stream} must lie in 0..{last}{only}, got {layer}.")
    there: list[int] = np.flatnonzero(present[row, layer]).tolist()
    if not there:
        rows = np.flatnonzero(present[row].any(-1)).tolist()
        raise ValueError(f"layer of stream {stream} must be one of {rows}, got {layer}.")
    if source not in there:
        newest = there[-1]
        where = f"lie in 0..{newest}" if len(there) > newest else f"be one of {there}"
        raise ValueError(f"source of layer {layer} must {where}, got {source}.")
    return row, layer, source
