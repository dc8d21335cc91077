"""Which depth does each token, or each patch, read? A row of dense weights as one number."""

import numpy as np
import pandas as pd
from jaxtyping import Float64

from mudd_interp.analysis.edges import edge_index
from mudd_interp.analysis.token_weights import TokenWeights


def row_weights(
    result: TokenWeights, stream: str, layer: int, rectified: bool = False
) -> Float64[np.ndarray, "source pos"]:
    """The weights of one row on the sources 0..i+1; 0 where it does not read one.

    Args:
        result: The weights of one sequence.
        stream: Of the row.
        layer: The aggregation i, which feeds block i + 1.
        rectified: Multiply each weight by the norm of its source at that token.

    Raises:
        ValueError: If there is no such row, with the range of those that there are.
    """
    row, _, _ = edge_index(result.streams, result.present, stream, layer, layer + 1)
    newest = np.flatnonzero(result.present[row, layer])[-1]
    weights = np.nan_to_num(result.weights[row, layer, : newest + 1].astype(np.float64))
    return weights * result.source_norm[: newest + 1] if rectified else weights


def depth_read(
    result: TokenWeights, stream: str, layer: int, rectified: bool = False
) -> Float64[np.ndarray, " pos"]:
    """The mean depth that a row of weights reads, at each token.

    ``Σ_j j·|A_ij[t]| / Σ_j |A_ij[t]|``: the mean index of a source (0 is the embedding, j the
    output of block j - 1), by the magnitudes of the weights, rectified or not. In units of blocks,
    in 0..i+1; in a plain Transformer it is i + 1 at every token. NaN where all weights are 0. What
    PrePostDANorm adds after its norm, the newest output, is no weight and does not count.

    The arguments and errors are those of :func:`row_weights`.
    """
    weights = np.abs(row_weights(result, stream, layer, rectified))
    with np.errstate(invalid="ignore"):  # 0 / 0
        return np.arange(len(weights)) @ weights / weights.sum(0)


def depth_frame(
    result: TokenWeights, stream: str, layer: int, source: int, rectified: bool = False
) -> pd.DataFrame:
    """The weight of one edge and the mean depth that its row reads, at each token.

    Columns ``position``, ``weight`` (times the norm of its source, if rectified) and ``depth``, as
    :func:`depth_read` says.

    Raises:
        ValueError: If there is no such edge, with the range of those that there are.
    """
    edge_index(result.streams, result.present, stream, layer, source)
    weight = row_weights(result, stream, layer, rectified)[source]
    depth = depth_read(result, stream, layer, rectified)
    return pd.DataFrame({"position": np.arange(len(depth)), "weight": weight, "depth": depth})
