"""W in the delta basis over a corpus: any two architectures, read by read and write by write."""

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64
from torch import Tensor

from mudd_interp.analysis.base import Accumulator, Analysis
from mudd_interp.analysis.inputs import NUMBERS
from mudd_interp.analysis.moments import Moments, merged_moments
from mudd_interp.analysis.provenance import Provenance
from mudd_interp.analysis.result import Result
from mudd_interp.analysis.walk import NO_LOCK, Progress, walk
from mudd_interp.data import TokenBatches
from mudd_interp.protocol import Hook, HookedModel, Observer
from mudd_interp.schema import shown
from mudd_interp.wiring import changed_weights

_READ = re.compile(r"[a-z]{1,9}\.[0-9]{1,9}(\.[qkvr])?|final(\.[0-9]{1,9})?")
_NAMES = ["part", "layer", "stream", "write"]


@dataclass(frozen=True, eq=False, kw_only=True)
class DeltaWeights(Result):
    """Mean and spread of what each read takes of what each sublayer wrote, over all tokens.

    Over all paths together, so that it says the same of every architecture: in a plain Transformer
    each is one. Dimensionless, signed, unbounded. NaN where the write comes after the read.

    Attributes:
        mean: Mean weight.
        m2: Sum of squared differences from the mean; ``std`` is ``sqrt(m2 / tokens)``.
    """

    absent: ClassVar[tuple[str, ...]] = ("mean", "m2")
    needed: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"reads": list[str], "writes": list[str]}
    )
    labelled: ClassVar[Mapping[str, str]] = MappingProxyType({"read": "reads", "write": "writes"})

    mean: Float64[np.ndarray, "read write"]
    m2: Float64[np.ndarray, "read write"]

    @property
    def reads(self) -> list[str]:
        """``attn.0``, ``mlp.0``, ..., ``final``; where streams differ ``attn.3.q`` and so on."""
        return self.provenance.options["reads"]

    @property
    def writes(self) -> list[str]:
        """``embed``, ``attn.0``, ``mlp.0``, ..."""
        return self.provenance.options["writes"]

    @property
    def attention_streams(self) -> tuple[str, ...]:
        """What attention reads: ``q k v``, or one stream, ``r``."""
        return tuple(
            dict.fromkeys(_place(read)[2] for read in self.reads if len(read.split(".")) == 3)
        ) or ("r",)

    @property
    def frame(self) -> pd.DataFrame:
        """Columns ``part layer stream write mean std``; std is the population's.

        Parts are ``attn``, ``mlp`` and ``final`` (whose layer is the number of blocks, plus that of
        the stream where each is normed); where all inputs of a block are one, its stream is ``r``.
        """
        present = ~np.isnan(self.mean)
        read, write = np.nonzero(present)
        blocks = [_place(each)[1] for each in self.reads if not each.startswith("final")]
        depth = 1 + max(blocks)
        places = [_place(each, depth) for each in self.reads]
        columns = {name: [places[i][n] for i in read] for n, name in enumerate(_NAMES[:3])}
        return pd.DataFrame(
            {
                **columns,
                "write": np.array(self.writes, dtype=object)[write],
                "mean": self.mean[present],
                "std": np.sqrt(self.m2[present] / self.provenance.tokens),
            }
        )

    @classmethod
    def check_options(cls, options: Mapping[str, Any], what: str) -> Mapping[str, Any]:
        """See :class:`Result`; reads are what a model calls them."""
        options = super().check_options(options, what)
        for read in options["reads"]:
            if not _READ.fullmatch(read):
                raise ValueError(
                    f"`reads` of {what} must be such as attn.0, attn.3.q, mlp.0 or final, got "
                    f"{shown(read)}."
                )
        if all(read.startswith("final") for read in options["reads"]):
            raise ValueError(f"`reads` of {what} must be of one block at least.")
        return options

    def _merged(self, other: Any) -> dict[str, np.ndarray]:
        return merged_moments(self, other)


def _place(read: str, depth: int = 0) -> tuple[str, int, str]:
    """Part, layer and stream of a read, by its label."""
    part, *rest = read.split(".")
    if part == "final":
        return part, depth + int(rest[0]) if rest else depth, "r"
    return part, int(rest[0]), rest[1] if len(rest) > 1 else "r"


def delta_difference(result: DeltaWeights, baseline: DeltaWeights) -> pd.DataFrame:
    """A model's mean and std minus another's, read by read and write by write.

    Where a block of one of them has a single stream, that stands for each that attention reads;
    the head is left out where only one of them norms each stream.

    Returns:
        The columns of ``DeltaWeights.frame``, for the reads of the one that has more of them.

    Raises:
        ValueError: If the models do not have the same writes, as with another number of layers.
    """
    if result.writes != baseline.writes:
        names = (each.provenance.model for each in (result, baseline))
        lengths = (len(each.writes) for each in (result, baseline))
        raise ValueError(
            "a difference is taken write by write, but {} has {} and {} has {}: take two of one "
            "depth and kind, or draw them side by side.".format(
                *(each for pair in zip(names, lengths, strict=True) for each in pair)
            )
        )
    reads: Any = max(result.frame, baseline.frame, key=len)[_NAMES[:3]].drop_duplicates()
    if len({_heads(each) for each in (result, baseline)}) > 1:
        reads = reads[reads["part"] != "final"]
    mine, theirs = (_at(each, reads).set_index(_NAMES) for each in (result, baseline))
    return (mine - theirs.reindex(mine.index)).reset_index()


def _heads(result: DeltaWeights) -> int:
    return sum(read.startswith("final") for read in result.reads)


def _at(result: DeltaWeights, reads: pd.DataFrame) -> pd.DataFrame:
    """The frame at other reads; where a block has one stream, that stands for each."""
    frame: Any = result.frame
    there = set(frame[_NAMES[:3]].drop_duplicates().itertuples(index=False, name=None))
    places = list(reads.itertuples(index=False, name=None))
    own = [stream if (part, layer, stream) in there else "r" for part, layer, stream in places]
    wanted = reads.assign(own=own)
    theirs = frame.rename(columns={"stream": "own"})
    found: Any = wanted.merge(theirs, on=["part", "layer", "own"], how="left")
    return found.drop(columns="own")[frame.columns]


@dataclass(frozen=True)
class DeltaWeightsAnalysis(Analysis[DeltaWeights]):
    """Computes :class:`DeltaWeights`; it has no options."""

    name = "delta_weights"
    result = DeltaWeights
    requires = NUMBERS

    def start(self, model: HookedModel) -> "DeltaSums":
        """Empty sums for one model."""
        return DeltaSums(model)


class DeltaSums(Accumulator[DeltaWeights]):
    """Moments of each read's row, composed when a pass has come to the head."""

    def __init__(self, model: HookedModel):
        self._wiring = model.wiring
        self._tape: dict[str, Tensor] = {}
        self._moments: dict[str, Moments] = {}
        self.options: Mapping[str, Any] = {
            "reads": [read.label for read in self._wiring.inputs],
            "writes": [write.label for write in self._wiring.deltas],
        }

    def hooks(self) -> list[Hook]:
        """A look at what W is composed of, and at the last read, when all of it is there."""
        inputs = self._wiring.inputs
        needed = dict.fromkeys(name for read in inputs for name in self._wiring.needs(read))
        looks: list[Hook] = [(name, Observer(self._keep)) for name in needed]
        looks += [(read.hook, Observer(_refuse_edits)) for read in inputs]
        return [*looks, (inputs[-1].hook, Observer(self._compose))]

    def _keep(self, x: Tensor, hook: Any) -> None:
        self._tape[hook.name] = x.detach()

    def _compose(self, x: Float[Tensor, "..."], hook: Any) -> None:  # noqa: ARG002 (a hook's signature)
        for read, taken in self._wiring.deltas_of(self._wiring.inputs, self._tape):
            found = Moments.of(taken.flatten(0, -2).cpu().double().numpy())
            before = self._moments.get(read.label)
            self._moments[read.label] = found if before is None else before.merge(found)
        self._tape.clear()

    def finish(self, provenance: Provenance) -> DeltaWeights:
        """The result of all batches so far."""
        mean = np.full((len(self._wiring.inputs), len(self._wiring.deltas)), np.nan)
        m2 = mean.copy()
        for row, read in enumerate(self._wiring.inputs):
            moments = self._moments[read.label]
            mean[row, : len(moments.mean)], m2[row, : len(moments.m2)] = moments.mean, moments.m2
        return DeltaWeights(provenance=provenance, streams=self._wiring.streams, mean=mean, m2=m2)


def _refuse_edits(x: Float[Tensor, "..."], hook: Any) -> None:  # noqa: ARG001 (a hook's signature)
    if changed_weights(x) is not None:
        raise ValueError(
            "delta_weights composes W of gates, and an edit changed what a read takes of a write: "
            "compute it without edits, or see dense_weights."
        )


def delta_weights(
    model: HookedModel,
    batches: TokenBatches,
    progress: Progress | None = None,
    lock: AbstractContextManager[Any] = NO_LOCK,
) -> DeltaWeights:
    """Mean and spread of W in the delta basis: comparable between any two architectures.

    The arguments and errors are those of :func:`layer_similarity`; a model with a norm between
    writes and reads (PrePostDANorm) is refused too, as by :func:`read_weights`, and so are edits of
    weights that are composed of gates.
    """
    return walk(model, batches, [DeltaWeightsAnalysis()], progress, lock)[0]
