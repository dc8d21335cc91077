"""Where a head looks from where it stands: attention by the offset from query to key."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from mudd_interp.analysis.base import Accumulator, Analysis
from mudd_interp.analysis.heads import HOLDS_NAN, pattern_hooks
from mudd_interp.analysis.patches import OF_IMAGES, patch_front, rows_and_columns
from mudd_interp.analysis.predictions import as_float64
from mudd_interp.analysis.provenance import Provenance
from mudd_interp.analysis.result import Result
from mudd_interp.analysis.walk import Progress, walk
from mudd_interp.data import TokenBatches
from mudd_interp.protocol import Hook, HookedModel


@dataclass(frozen=True, eq=False, kw_only=True)
class RelativeOffsets(Result):
    """Mean attention at each offset (dy, dx) from query to key, of every head: 0..1.

    An offset is the row, and the column, of the key less those of the query: (0, 0) is the patch
    itself, (-1, 0) the one above it. The score of an offset is the mean attention over the queries
    that have such a key, and over images: 1 would be a head that always looks there. It is what the
    previous-token score is to texts.

    Attributes:
        attention_sum: Attention at each offset, summed over queries and images; offset (dy, dx) is
            at ``dy + side - 1, dx + side - 1``.
    """

    attention_sum: Float64[np.ndarray, "layer head offset_row offset_column"]

    def __post_init__(self) -> None:
        """See :class:`Result`.

        Raises:
            ValueError: If there are not as many offsets of rows as of columns, an odd number.
        """
        super().__post_init__()
        rows, columns = self.attention_sum.shape[2:]
        if rows != columns or not rows % 2:
            raise ValueError(
                "attention_sum must have an odd number of offsets, as many of rows as of columns, "
                f"got {rows} x {columns}."
            )

    @property
    def side(self) -> int:
        """Patches beside each other."""
        return (self.attention_sum.shape[-1] + 1) // 2

    @property
    def pairs(self) -> Int64[np.ndarray, "offset_row offset_column"]:
        """How many queries of an image have a key at each offset."""
        there = self.side - np.abs(np.arange(1 - self.side, self.side))
        return np.outer(there, there)

    @property
    def score(self) -> Float64[np.ndarray, "layer head offset_row offset_column"]:
        """Mean attention over the queries that have a key at an offset, and over images."""
        return self.attention_sum / (self.pairs * self.provenance.sequences)

    @property
    def frame(self) -> pd.DataFrame:
        """Columns ``layer``, ``head``, ``dy``, ``dx``, ``score``, ``share`` and ``pairs``.

        The share is that of all of a head's attention, and sums to one over its offsets; pairs are
        the queries of an image that have such a key.
        """
        layer, head, dy, dx = np.indices(self.attention_sum.shape).reshape(4, -1)
        last = self.side - 1
        return pd.DataFrame(
            {
                "layer": layer,
                "head": head,
                "dy": dy - last,
                "dx": dx - last,
                "score": self.score.ravel(),
                "share": self.attention_sum.ravel() / self.provenance.tokens,
                "pairs": self.pairs[dy, dx],
            }
        )

    @property
    def strongest(self) -> pd.DataFrame:
        """A row for each head: the offset with the highest score, in the columns of :attr:`frame`.

        Only among the offsets that at least half of the patches have: a corner has others by
        itself, and there its own habit would pass for the head's. The first one on ties.
        """
        frame: Any = self.frame
        common = frame[2 * frame["pairs"] >= self.side**2]
        return common.loc[common.groupby(["layer", "head"])["score"].idxmax()].reset_index(
            drop=True
        )

    def _merged(self, other: Any) -> dict[str, np.ndarray]:
        return {"attention_sum": self.attention_sum + other.attention_sum}


@dataclass(frozen=True)
class RelativeOffsetsAnalysis(Analysis[RelativeOffsets]):
    """Computes :class:`RelativeOffsets`; it has no options."""

    name = "relative_offsets"
    result = RelativeOffsets
    requires = OF_IMAGES

    def start(self, model: HookedModel) -> "OffsetSums":
        """Empty sums for one model."""
        return OffsetSums(model)


class OffsetSums(Accumulator[RelativeOffsets]):
    """Sums of attention from patch to patch; by offset in the end."""

    def __init__(self, model: HookedModel):
        self._streams = model.wiring.streams
        self._side = patch_front(model, RelativeOffsetsAnalysis.name).side
        shape = (model.cfg.n_layers, model.cfg.n_heads, self._side**2, self._side**2)
        self._sums = np.zeros(shape)

    def hooks(self) -> list[Hook]:
        """A hook on each block's attention pattern: the slow path of attention."""
        return pattern_hooks(len(self._sums), self._see)

    def _see(
        self,
        layer: int,
        pattern: Float[Tensor, "batch head query key"],
        hook: Any,  # noqa: ARG002 (a hook's signature)
    ) -> None:
        self._sums[layer] += as_float64(pattern.detach().sum(0, dtype=torch.float64))

    def finish(self, provenance: Provenance) -> RelativeOffsets:
        """The result of all batches so far.

        Raises:
            ValueError: If a pattern held NaN.
        """
        if np.isnan(self._sums).any():
            raise ValueError(HOLDS_NAN)
        row, column = rows_and_columns(self._side)
        last = self._side - 1
        dy, dx = (at[None, :] - at[:, None] + last for at in (row, column))
        sums = np.zeros((*self._sums.shape[:2], 2 * last + 1, 2 * last + 1))
        at: Any = (slice(None), slice(None), dy, dx)
        np.add.at(sums, at, self._sums)
        return RelativeOffsets(provenance=provenance, streams=self._streams, attention_sum=sums)


def relative_offsets(
    model: HookedModel, batches: TokenBatches, progress: Progress | None = None
) -> RelativeOffsets:
    """Mean attention at each offset from query to key, of every head.

    Args:
        model: A hooked model that reads images, in evaluation mode.
        batches: Images ``[batch channel row column]`` in -1..1.
        progress: See :data:`Progress`.

    Raises:
        ValueError: If the model reads no images; and as :func:`layer_similarity`.
    """
    return walk(model, batches, [RelativeOffsetsAnalysis()], progress)[0]
