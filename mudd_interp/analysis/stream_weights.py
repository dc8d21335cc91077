"""W divided by the stream that it passes through: for models whose residual is several."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64

from mudd_interp.analysis.inputs import NUMBERS, SEVERAL
from mudd_interp.analysis.predictions import as_float64
from mudd_interp.analysis.sequence import (
    SequenceResult,
    last_position,
    relative_error,
    run_pass,
)
from mudd_interp.protocol import CachedModel, require_traits
from mudd_interp.wiring import total


@dataclass(frozen=True, eq=False, kw_only=True)
class StreamWeights(SequenceResult):
    """What each read takes of each write by way of each stream, at one token.

    Over streams it sums to W, ``p_i (T ... T w)_i``. Dimensionless and signed; NaN where the write
    comes after the read. Which stream is which is a matter of names (they can be renamed without a
    change of the model, as long as every gate and T are), so compare no two models by it.

    Attributes:
        position: The token.
        reads: ``attn.0``, ``mlp.0``, ..., ``final``.
        writes: ``embed``, ``attn.0``, ``mlp.0``, ...
        weights: By read, stream and write.
    """

    absent: ClassVar[tuple[str, ...]] = ("weights",)

    position: int
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    weights: Float64[np.ndarray, "read stream write"]

    @property
    def frame(self) -> pd.DataFrame:
        """Columns ``read write stream weight``; over streams it sums to W."""
        read, stream, write = np.nonzero(~np.isnan(self.weights))
        return pd.DataFrame(
            {
                "read": np.array(self.reads, dtype=object)[read],
                "write": np.array(self.writes, dtype=object)[write],
                "stream": stream,
                "weight": self.weights[read, stream, write],
            }
        )


@torch.no_grad()
def stream_weights(
    model: CachedModel, tokens: Any, position: int | None = None, data: str = "the prompt"
) -> StreamWeights:
    """Divide what every read takes of every write by stream, from one forward pass.

    Args:
        model: A model whose residual is several streams, in evaluation mode.
        tokens: int64 token ids ``[pos]`` or ``[1 pos]``.
        position: At which token; ``None`` is the last one.
        data: What the sequence is, in words; it goes into the provenance.

    Raises:
        ValueError: If it has no hyper-connections, there is not one sequence of valid ids or no
            such position, or the model is in training mode.
    """
    require_traits(model, "stream_weights", NUMBERS | SEVERAL)
    wiring, at = model.wiring, last_position(model, tokens, position)
    names = {*(read.hook for read in wiring.inputs), *(write.hook for write in wiring.deltas)}
    found = run_pass(model, tokens, names, data, {"position": at}, at)
    writes = [found.cache[write.hook][0] for write in wiring.deltas]
    rows: list[Float64[np.ndarray, "stream write"]] = []
    errors = [0.0]
    for read in wiring.inputs:
        taken = wiring.by_stream(read, found.cache)[0]
        whole = total(taken.sum(0), writes[: taken.shape[-1]])
        errors.append(relative_error(whole, found.cache[read.hook][0]))
        after = len(writes) - taken.shape[-1]
        rows.append(np.pad(as_float64(taken), ((0, 0), (0, after)), constant_values=np.nan))
    return StreamWeights(
        **found.labels,
        completeness_error=max(errors),
        position=at,
        reads=tuple(read.label for read in wiring.inputs),
        writes=tuple(write.label for write in wiring.deltas),
        weights=np.stack(rows),
    )
