"""What each stream reads at each token of one sequence: static and dynamic part apart."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from mudd_interp.analysis.difference import Table, check_same_rows, minus_baseline
from mudd_interp.analysis.edges import (
    edge_grid,
    edge_index,
    static_weights,
    watch_sources,
)
from mudd_interp.analysis.finite import finite_hooks
from mudd_interp.analysis.inputs import check_position, labels_of, one_input
from mudd_interp.analysis.norms import l2_norms
from mudd_interp.analysis.predictions import as_float64, check_same_tokens
from mudd_interp.analysis.result import OneSequence
from mudd_interp.analysis.weights import rectify
from mudd_interp.axes import Stream
from mudd_interp.precision import wide
from mudd_interp.protocol import Hook, HookedModel
from mudd_interp.wiring import Read


@dataclass(frozen=True, eq=False, kw_only=True)
class TokenWeights(OneSequence):
    """The dense weights ``W[stream, layer, source, token]`` of one sequence; arrays read-only.

    Dimensionless, signed, unbounded, static part included; layer is the aggregation ``i``, with
    the sources ``0..i+1``, and what does not exist is NaN. A stream on the plain residual, and so
    a plain Transformer, reads the newest source with weight one at every token.

    Attributes:
        streams: The model's distinct input streams, in q k v r order.
        weights: ``A^c_ij[t]``; float64 for a model in float64, else float32.
        static: The learned bias of the weights.
        source_norm: L2 norm of what the weights multiply, at each token.
    """

    absent: ClassVar[tuple[str, ...]] = ("weights", "static")

    streams: tuple[Stream, ...]
    weights: Float[np.ndarray, "stream layer source pos"]
    static: Float64[np.ndarray, "stream layer source"]
    source_norm: Float64[np.ndarray, "source pos"]

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.static.shape[1]

    @property
    def present(self) -> Bool[np.ndarray, "stream layer source"]:
        """Which weights exist."""
        return ~np.isnan(self.static)

    def frame_at(self, position: int) -> pd.DataFrame:
        """Every weight at one token, rows sorted by stream (q k v r), layer and source.

        Columns ``stream layer source static dynamic total source_norm``; total is the weight,
        dynamic = total − static, and source_norm the norm of the source at this token. The weights
        of one stream need not sum to one, or to anything.

        Raises:
            ValueError: If the sequence has no such position.
        """
        check_position(position, len(self.token_ids))
        stream, layer, source = np.nonzero(self.present)
        labels = {
            "stream": np.array(self.streams, dtype=object)[stream],
            "layer": layer,
            "source": source,
        }
        total = self.weights[..., position][self.present]
        norms = self.source_norm[source, position]
        return pd.DataFrame({**labels, **_parts(self.static[self.present], total, norms)})

    def edge_frame(self, stream: str, layer: int, source: int) -> pd.DataFrame:
        """The weight of one edge over the tokens of the sequence.

        Columns ``position token_id static dynamic total source_norm``, as in :meth:`frame_at`.

        Raises:
            ValueError: If there is no such edge, with the range of those that there are.
        """
        edge = edge_index(self.streams, self.present, stream, layer, source)
        labels = {"position": np.arange(len(self.token_ids)), "token_id": self.token_ids}
        parts = _parts(self.static[edge], self.weights[edge], self.source_norm[source])
        return pd.DataFrame({**labels, **parts})


def token_weights(model: HookedModel, tokens: Any, data: str = "the prompt") -> TokenWeights:
    """The dense weights of every token of one sequence, from one forward pass.

    Args:
        model: Any hooked model, in evaluation mode.
        tokens: int64 token ids ``[pos]`` or ``[1 pos]``.
        data: What the sequence is, in words; it goes into the provenance.

    Raises:
        ValueError: If there is not one sequence of valid ids, or the model is in training mode.
    """
    batch = one_input(model, tokens)
    record = _Record(model, model.front.positions(batch))
    with torch.no_grad(), model.hooks([*finite_hooks(model), *record.hooks()]):
        model(batch, return_type=None)
    return TokenWeights(
        **labels_of(model, batch, data, {}),
        streams=model.wiring.streams,
        weights=record.weights,
        static=record.static,
        source_norm=record.source_norm,
    )


def token_weights_difference(
    result: TokenWeights, baseline: TokenWeights, position: int, rectified: bool = False
) -> pd.DataFrame:
    """The model's weights at one token minus the baseline's, edge by edge.

    A plain Transformer's one stream ``r`` is what all four are there: static weight one on the
    newest source, and nothing dynamic.

    Args:
        result: Of the model in question.
        baseline: Of the model beside it, on the same tokens.
        position: The token.
        rectified: Rectify each model's weights with the norms of its own sources at this token,
            then subtract.

    Returns:
        The columns of ``result.frame_at(position)``.

    Raises:
        ValueError: If the models differ in their number of layers, or do not split the text into
            the same tokens, or the sequence has no such position.
    """
    check_same_tokens(result, baseline)
    check_same_rows([result.provenance, baseline.provenance])
    frames = [each.frame_at(position) for each in (result, baseline)]
    tables = [
        Table(each.streams, each.n_layers, rectify(frame) if rectified else frame)
        for each, frame in zip((result, baseline), frames, strict=True)
    ]
    return minus_baseline(tables[0], tables[1], labels=["layer", "source"])


class _Record:
    """The arrays that the hooks of one forward pass fill; what has no hook stays as it is."""

    def __init__(self, model: HookedModel, positions: int):
        self._wiring = model.wiring
        self.static = edge_grid(static_weights(self._wiring), self._wiring)
        dtype = np.float64 if model.cfg.dtype == torch.float64 else np.float32
        self.weights = np.repeat(self.static.astype(dtype)[..., None], positions, axis=-1)
        self.source_norm = np.zeros((len(self._wiring.sources), positions))

    def hooks(self) -> list[Hook]:
        """Looks at the weights of each row and at each source."""
        return [
            *self._wiring.watch_rows(self._see_weights),
            *watch_sources(self._wiring, self._see_source),
        ]

    def _see_weights(self, read: Read, weights: Float[Tensor, "1 pos source"]) -> None:
        row = self.weights[self._wiring.streams.index(read.stream), read.row]
        values = wide(weights.detach()[0].cpu())
        row[list(self._wiring.columns(read))] = values.numpy().T

    def _see_source(self, source: int, x: Float[Tensor, "1 pos d_model"]) -> None:
        self.source_norm[source] = as_float64(l2_norms(x)[0])


def _parts(
    static: Float64[np.ndarray, " row"] | float,
    total: Float[np.ndarray, " row"],
    source_norm: Float[np.ndarray, " row"],
) -> dict[str, Any]:
    total = total.astype(np.float64)
    dynamic = total - static
    return {"static": static, "dynamic": dynamic, "total": total, "source_norm": source_norm}
