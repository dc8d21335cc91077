"""How much of what each component wrote is in each stream, over all paths together."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mudd_interp.analysis.edges import edge_grid
from mudd_interp.analysis.inputs import check_position
from mudd_interp.analysis.norms import l2_norms
from mudd_interp.analysis.predictions import as_float64
from mudd_interp.analysis.sequence import SequenceResult, relative_error, run_pass
from mudd_interp.axes import Stream
from mudd_interp.protocol import CachedModel
from mudd_interp.wiring import Read


@dataclass(frozen=True, eq=False, kw_only=True)
class PathCoefficients(SequenceResult):
    """The total coefficient of every component in every stream, at each token of a sequence.

    Dimensionless, signed, unbounded. Layer is the aggregation ``i``, which feeds block ``i + 1``,
    as in the tables of dense weights; but a source here is what was written there and not all that
    X_source contains: 0 is the embedding, ``l + 1`` what attention and FFN of block ``l`` wrote. In
    a plain Transformer all are one. What does not exist is NaN. (Where sublayers read one by one,
    rows and sources are sublayers, and coefficients are the weights themselves.)

    Attributes:
        streams: The model's distinct input streams, in q k v r order.
        coefficient: With PrePostDANorm, where it is a vector, its mean over d_model.
        spread: Its population standard deviation over d_model; 0 for a number.
        source_norm: L2 norm of what each component wrote.
    """

    absent: ClassVar[tuple[str, ...]] = ("coefficient", "spread")

    streams: tuple[Stream, ...]
    coefficient: Float64[np.ndarray, "stream layer source pos"]
    spread: Float64[np.ndarray, "stream layer source pos"]
    source_norm: Float64[np.ndarray, "source pos"]

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.coefficient.shape[1]

    @property
    def final(self) -> Float64[np.ndarray, "source pos"]:
        """The coefficients in what enters the final norm: of the embedding, and of each block."""
        return self.coefficient[self.streams.index("r"), -1]

    def frame_at(self, position: int) -> pd.DataFrame:
        """Every coefficient at one token, rows sorted by stream (q k v r), layer and source.

        Columns ``stream layer source coefficient spread source_norm``. What adds up, to the stream,
        is each coefficient times what its source wrote; coefficients by themselves do not.

        Raises:
            ValueError: If the sequence has no such position.
        """
        check_position(position, len(self.tokens))
        coefficient = self.coefficient[..., position]
        stream, layer, source = np.nonzero(~np.isnan(coefficient))
        return pd.DataFrame(
            {
                "stream": np.array(self.streams, dtype=object)[stream],
                "layer": layer,
                "source": source,
                "coefficient": coefficient[stream, layer, source],
                "spread": self.spread[stream, layer, source, position],
                "source_norm": self.source_norm[source, position],
            }
        )

    @property
    def frame(self) -> pd.DataFrame:
        """Mean over the tokens of the columns of :meth:`frame_at`."""
        tables = [self.frame_at(position) for position in range(len(self.tokens))]
        labels = ["stream", "layer", "source"]
        values = np.mean([each.drop(columns=labels).to_numpy() for each in tables], axis=0)
        columns = tables[0].columns.drop(labels)
        return pd.concat([tables[0][labels], pd.DataFrame(values, columns=columns)], axis=1)


@torch.no_grad()
def path_coefficients(
    model: CachedModel, tokens: Any, data: str = "the prompt"
) -> PathCoefficients:
    """Unroll the dense weights of every stream of every block, from one forward pass.

    Args:
        model: Any hooked model, in evaluation mode.
        tokens: int64 token ids ``[pos]`` or ``[1 pos]``.
        data: What the sequence is, in words; it goes into the provenance.

    Raises:
        ValueError: If there is not one sequence of valid ids, the model is in training mode, or its
            blocks are not the sum of attention and FFN.
    """
    wiring = model.wiring
    names = {*(read.hook for read in wiring.rows), *(write.hook for write in wiring.deltas)}
    found = run_pass(model, tokens, names, data, {})
    groups = [wiring.written_in(source) for source in range(len(wiring.sources))]
    written: list[Float[Tensor, "pos d_model"]] = [
        torch.stack([found.cache[wiring.deltas[k].hook] for k in group]).sum(0) for group in groups
    ]

    def written_before(read: Read) -> range:
        """Every source before a row, whichever of them it reads."""
        return range(len(means[read]))

    means: dict[Read, Float64[np.ndarray, "source pos"]] = {}
    spreads: dict[Read, Float64[np.ndarray, "source pos"]] = {}
    errors = [0.0]
    for read in wiring.rows:
        every = wiring.delta_vectors(read, found.cache)
        first = [group[0] for group in groups if group[0] < every.shape[-2]]
        total: Tensor = every[..., first, :]
        means[read] = as_float64(total.mean(-1).T)
        spreads[read] = as_float64(total.std(-1, correction=0).T)
        terms = [w * c for w, c in zip(written, total.unbind(-2), strict=False)]
        parts = torch.stack(terms).sum(0)
        errors.append(relative_error(parts, found.cache[read.hook]))
    return PathCoefficients(
        **found.labels,
        completeness_error=max(errors),
        streams=wiring.streams,
        coefficient=edge_grid(means, wiring, columns=written_before),
        spread=edge_grid(spreads, wiring, columns=written_before),
        source_norm=np.stack([as_float64(l2_norms(each)) for each in written]),
    )
