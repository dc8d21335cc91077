"""W itself: what every read of a model takes of every write, at each token of one batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mudd_interp.analysis.finite import finite_hooks, freeze
from mudd_interp.analysis.inputs import NUMBERS, checked, require_evaluation
from mudd_interp.analysis.provenance import Provenance, TokensSeen, provenance
from mudd_interp.ids import id_tensor
from mudd_interp.protocol import Hook, HookedModel, Observer, require_traits
from mudd_interp.wiring import Read, Wiring, Write, total

Laid = Literal["delta", "native"]
"""The writes that W is laid out by: those of single sublayers, or an architecture's own."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ReadWeights:
    """W of one batch: ``input of a read = sum over writes of weight * write``, exactly.

    Before the reader's own norm, after any norm of the writer. Weights are dimensionless, signed
    and unbounded. It covers one batch: to average over a corpus, add up its frames.

    Attributes:
        provenance: Model, tokens and options that it was computed from.
        reads: ``attn.0``, ``mlp.0``, ``attn.1``, ..., ``final``; where streams differ ``attn.3.q``,
            ``attn.3.k``, ``attn.3.v``.
        writes: ``embed``, ``attn.0``, ``mlp.0``, ... in the delta basis, so that two architectures
            can be laid side by side; an architecture's own names in the native one (``X_0``, ...).
        weights: Zero for writes that are not there yet.
        completeness: Largest length of ``sum_j W_j * write_j - input`` over the tokens, in units of
            the input's length there: rounding, unless something is wrong.
    """

    provenance: Provenance
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    weights: Float64[np.ndarray, "read batch pos write"]
    completeness: Float64[np.ndarray, " read"]

    def __post_init__(self) -> None:
        freeze(self, self.provenance.dtype)

    def of(self, read: str) -> Float64[np.ndarray, "batch pos write"]:
        """The weights of one read.

        Raises:
            ValueError: If there is no such read, with the reads that there are.
        """
        if read not in self.reads:
            raise ValueError(f"there is no read {read!r}: there are {', '.join(self.reads)}.")
        return self.weights[self.reads.index(read)]

    @property
    def frame(self) -> pd.DataFrame:
        """Columns ``read write mean std``, over all tokens; std is the population's."""
        tokens = self.weights.reshape(len(self.reads), -1, len(self.writes))
        return pd.DataFrame(
            {
                "read": np.repeat(np.array(self.reads, dtype=object), len(self.writes)),
                "write": np.tile(np.array(self.writes, dtype=object), len(self.reads)),
                "mean": tokens.mean(1).ravel(),
                "std": tokens.std(1).ravel(),
            }
        )


@torch.no_grad()
def read_weights(
    model: HookedModel, tokens: Any, basis: str = "delta", data: str = "one batch"
) -> ReadWeights:
    """What every read of a model takes of every write, from one forward pass.

    Args:
        model: Any hooked model, in evaluation mode.
        tokens: int64 token ids ``[batch pos]`` or ``[pos]``, without padding.
        basis: ``"delta"``: writes are what single sublayers wrote, over all paths together; or
            ``"native"``: the architecture's own weights of its own writes.
        data: What the tokens are, in words; it goes into the provenance.

    Raises:
        ValueError: If the tokens are not a batch of valid ids, the basis is unknown, the model is
            in training mode, a hook that is needed is missing, or a norm stands between writes and
            reads, so that no number says what is taken.
    """
    require_evaluation(model)
    if basis not in get_args(Laid):
        raise ValueError(f"basis must be one of {', '.join(get_args(Laid))}, got {basis!r}.")
    require_traits(model, "read_weights", NUMBERS)
    wiring = model.wiring
    given = id_tensor(tokens) if "tokens" in model.traits else tokens
    (batch,) = checked([given[None] if given.ndim == 1 else given], model)
    tape = _tape(model, batch, basis)
    writes = wiring.deltas if basis == "delta" else wiring.writes
    weights = np.zeros((len(wiring.inputs), len(batch), model.front.positions(batch), len(writes)))
    errors = np.zeros(len(wiring.inputs))
    for row, (read, taken, seen) in enumerate(_rows(wiring, tape, basis)):
        columns = [writes.index(write) for write in seen]
        weights[row][..., columns] = taken.cpu().numpy()
        parts = total(taken, [tape[write.hook] for write in seen])
        lengths = tape[read.hook].norm(dim=-1)
        error = (parts - tape[read.hook]).norm(dim=-1)
        errors[row] = (error / lengths.where(lengths > 0, lengths.new_ones(()))).max().item()
    seen_tokens = TokensSeen(model.front)
    seen_tokens.add(batch)
    return ReadWeights(
        provenance=provenance(model, data, seen_tokens, {"basis": basis}),
        reads=tuple(read.label for read in wiring.inputs),
        writes=tuple(write.label for write in writes),
        weights=weights,
        completeness=errors,
    )


def _tape(model: HookedModel, batch: Tensor, basis: str) -> Mapping[str, Tensor]:
    """What is needed of one pass, in float64."""
    wiring = model.wiring
    writes = wiring.deltas if basis == "delta" else wiring.writes
    needed = {name for read in wiring.inputs for name in (read.hook, *wiring.needs(read))}
    tape: dict[str, Tensor] = {}
    hooks: list[Hook] = [
        (name, Observer(partial(_keep, tape, name)))
        for name in needed | {write.hook for write in writes}
    ]
    with model.hooks([*finite_hooks(model), *hooks]):
        model(batch, return_type=None)
    return tape


def _keep(tape: dict[str, Tensor], name: str, x: Float[Tensor, "batch pos *_"], hook: Any) -> None:  # noqa: ARG001 (a hook's signature)
    tape[name] = x.double()


def _rows(
    wiring: Wiring, tape: Mapping[str, Tensor], basis: str
) -> Sequence[tuple[Read, Tensor, Sequence[Write]]]:
    """Each read with its weights, and the writes that they are of."""
    if basis == "native":
        return [(read, wiring.weights(read, tape), wiring.seen(read)) for read in wiring.inputs]
    found = wiring.deltas_of(wiring.inputs, tape)
    return [(read, taken, wiring.deltas[: taken.shape[-1]]) for read, taken in found]
