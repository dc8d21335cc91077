"""The edges of a model, (stream, aggregation, source), and arrays that are laid out by them."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float64, Shaped

from mudd_interp.axes import Aggregate, Stream, aggregates, n_sources
from mudd_interp.protocol import HookedModel


def static_weights(model: HookedModel) -> dict[Aggregate, Float64[np.ndarray, " source"]]:
    """The learned bias of every aggregate; one-hot on the newest source for the plain residual."""
    return {
        (i, stream): model.static_weights(i, stream).detach().cpu().double().numpy()
        for i, stream in aggregates(model.cfg.n_layers, model.streams)
    }


def weights_hooks(model: HookedModel) -> dict[Aggregate, str]:
    """The hook on the weights of every aggregate that has weights."""
    every = aggregates(model.cfg.n_layers, model.streams)
    names = {key: model.weights_hook(*key) for key in every}
    return {key: name for key, name in names.items() if name is not None}


def edge_grid(
    values: Mapping[Aggregate, Shaped[np.ndarray, "..."]],
    n_layers: int,
    streams: tuple[Stream, ...],
    missing: float = np.nan,
) -> Shaped[np.ndarray, "stream layer all_sources ..."]:
    """What belongs to each aggregate as one array, with ``missing`` where there is no edge."""
    some = next(iter(values.values()))
    shape = (len(streams), n_layers, n_layers + 1, *some.shape[1:])
    grid = np.full(shape, missing, dtype=some.dtype)
    for (i, stream), rows in values.items():
        grid[streams.index(stream), i, : len(rows)] = rows
    return grid


def edge_index(
    streams: tuple[Stream, ...], n_layers: int, stream: str, layer: int, source: int
) -> tuple[int, int, int]:
    """Where an edge stands in an array ``[stream layer source]``.

    Raises:
        ValueError: If there is no such edge, with the range of those that there are.
    """
    if stream not in streams:
        raise ValueError(
            f"stream must be one of {', '.join(streams)} in this model, got {stream!r}."
        )
    last = n_layers - 1 if stream == "r" else n_layers - 2
    if not 0 <= layer <= last:
        only = "" if stream == "r" else " (the last aggregation feeds stream r only)"
        raise ValueError(f"layer of stream {stream} must lie in 0..{last}{only}, got {layer}.")
    newest = n_sources(layer) - 1
    if not 0 <= source <= newest:
        raise ValueError(f"source of layer {layer} must lie in 0..{newest}, got {source}.")
    return streams.index(stream), layer, source
