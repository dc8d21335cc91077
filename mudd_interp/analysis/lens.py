"""What each output and each stream would predict, and where the final answer first leads."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from mudd_interp import axes
from mudd_interp.analysis.inputs import NEXT_TOKEN
from mudd_interp.analysis.predictions import as_float64
from mudd_interp.analysis.sequence import SequenceResult, relative_error, run_pass
from mudd_interp.analysis.vocabulary import token_texts
from mudd_interp.protocol import DecomposableModel, require_traits

Kind = str
"""A stream of input, or ``"x"`` for the outputs X_j; ``"x0"``, ``"x1"``, ... for one of the streams
that hyper-connections carry.
"""


@dataclass(frozen=True, eq=False, kw_only=True)
class LogitLens(SequenceResult):
    """Every X_j and every stream, read through the final norm and the unembedding.

    A row is an output X_j (kind ``x``, depth ``j``), or a stream as it enters block ``depth``; the
    last, stream r at depth n_layers, is the model's own prediction. The norm takes each row's own
    scale. Where sublayers read and write one by one, kind ``x`` is what the head makes of all that
    was written before a block, and at depth n_layers the model's own prediction; kinds ``x0``,
    ``x1``, ... are what it would make of one stream of hyper-connections alone. (Which stream is
    which is a matter of names: compare no two models by it.)

    Attributes:
        kinds: Of each row.
        depths: Of each row.
        top_id: The likeliest next token.
        top_tokens: Its text.
        top_probability: Its probability, 0..1.
        answer_id: The model's own likeliest next token at each position.
        answer_probability: The probability that each row gives the model's answer, 0..1.
        answer_rank: One more than the number of tokens that are likelier there: 1 leads.
    """

    kinds: tuple[Kind, ...]
    depths: tuple[int, ...]
    top_id: Int64[np.ndarray, "row pos"]
    top_tokens: tuple[tuple[str, ...], ...]
    top_probability: Float64[np.ndarray, "row pos"]
    answer_id: Int64[np.ndarray, " pos"]
    answer_probability: Float64[np.ndarray, "row pos"]
    answer_rank: Int64[np.ndarray, "row pos"]

    @property
    def frame(self) -> pd.DataFrame:
        """Columns ``kind depth position top_id top_token top_probability answer_probability``.

        And ``answer_rank``; rows by kind (x0 x1 ... x q k v r), depth and position.
        """
        rows, positions = self.top_id.shape
        return pd.DataFrame(
            {
                "kind": np.repeat(np.array(self.kinds, dtype=object), positions),
                "depth": np.repeat(self.depths, positions),
                "position": np.tile(np.arange(positions), rows),
                "top_id": self.top_id.ravel(),
                "top_token": [text for row in self.top_tokens for text in row],
                "top_probability": self.top_probability.ravel(),
                "answer_probability": self.answer_probability.ravel(),
                "answer_rank": self.answer_rank.ravel(),
            }
        )

    def rows(self, kind: Kind) -> Int64[np.ndarray, " row"]:
        """The rows of one kind, in the order of depth.

        Raises:
            ValueError: If there is none.
        """
        found = np.flatnonzero([each == kind for each in self.kinds])
        if not len(found):
            known = ", ".join(dict.fromkeys(self.kinds))
            raise ValueError(f"kind must be one of {known} in this model, got {kind!r}.")
        return found

    @property
    def carried(self) -> tuple[Kind, ...]:
        """The kinds of single streams of hyper-connections; none of other models."""
        return tuple(dict.fromkeys(kind for kind in self.kinds if kind[1:]))

    def first_lead(self, kind: Kind = "x") -> Int64[np.ndarray, " pos"]:
        """The depth at which the model's answer is first the likeliest token; -1 for nowhere.

        Raises:
            ValueError: If the result has no such rows.
        """
        rows = self.rows(kind)
        leads = self.answer_rank[rows] == 1
        depths = np.array(self.depths)[rows]
        return np.where(leads.any(0), depths[leads.argmax(0)], -1)


@torch.no_grad()
def logit_lens(model: DecomposableModel, tokens: Any, data: str = "the prompt") -> LogitLens:
    """Read every output and every stream of one sequence as a prediction.

    Args:
        model: Any hooked model, in evaluation mode.
        tokens: int64 token ids ``[pos]`` or ``[1 pos]``.
        data: What the sequence is, in words; it goes into the provenance.

    Raises:
        ValueError: If there is not one sequence of valid ids, or the model is in training mode.
        NotImplementedError: If a bridged model's logits are not linear in its normed final stream.
    """
    require_traits(model, "logit_lens", NEXT_TOKEN)
    places = list(_places(model))
    names = {hook for _, _, hooks in places for hook in hooks}
    found = run_pass(model, tokens, names, data, {}, logits=True)
    assert found.logits is not None
    tape = found.cache.cache_dict
    rows = [_Row(kind, depth, tuple(tape[hook] for hook in hooks)) for kind, depth, hooks in places]
    if "streams" in model.traits:
        rows = [*_one_by_one(rows), *rows]
    final = [tape[read.hook] for read in model.wiring.finals]
    answer = found.logits.argmax(-1)
    ids: list[Any] = []
    top: list[Any] = []
    own: list[Any] = []
    rank: list[Any] = []
    error = 0.0
    for row in rows:  # one at a time: all logits would be too large
        streams = [each[None].to(model.cfg.dtype) for each in row.tensors]
        x = streams[0] if len(streams) == 1 else torch.stack(streams, dim=-2)
        logits = model.decode_stream(x)[0].to(found.logits.dtype)
        if all(a is b for a, b in zip(row.tensors, final, strict=False)):
            error = relative_error(logits, found.logits)
        log_probs, best = logits.log_softmax(-1), logits.argmax(-1)
        chosen = logits.gather(-1, answer[:, None])
        ids.append(best.cpu())
        top.append(as_float64(log_probs.gather(-1, best[:, None])[:, 0].exp()))
        own.append(as_float64(log_probs.gather(-1, answer[:, None])[:, 0].exp()))
        rank.append(1 + (logits > chosen).sum(-1).cpu().numpy())
    return LogitLens(
        **found.labels,
        completeness_error=error,
        kinds=tuple(row.kind for row in rows),
        depths=tuple(row.depth for row in rows),
        top_id=torch.stack(ids).numpy(),
        top_tokens=tuple(token_texts(model, row) for row in ids),
        top_probability=np.stack(top),
        answer_id=answer.cpu().numpy(),
        answer_probability=np.stack(own),
        answer_rank=np.stack(rank),
    )


class _Row(NamedTuple):
    """What is read as a prediction: one tensor, or several that the head norms one by one."""

    kind: Kind
    depth: int
    tensors: tuple[Float[Tensor, "pos *stream d_model"], ...]


def _one_by_one(rows: Sequence[_Row]) -> list[_Row]:
    """Each stream of those rows in which there are several, alone."""
    several = [row for row in rows if row.tensors[0].ndim == 3]
    n = several[0].tensors[0].shape[1] if several else 0
    return [_Row(f"x{i}", row.depth, (row.tensors[0][:, i],)) for i in range(n) for row in several]


def _places(model: DecomposableModel) -> Iterator[tuple[Kind, int, tuple[str, ...]]]:
    """Every output, then every stream by block; stream r ends with the final one."""
    n_layers, wiring = model.cfg.n_layers, model.wiring
    for depth, hooks in wiring.depths.items():
        yield "x", depth, hooks
    for stream in wiring.streams:
        for layer in range(n_layers):
            yield stream, layer, (axes.stream_input(layer, stream),)
        if stream == "r" and len(wiring.finals) == 1:
            yield stream, n_layers, (wiring.finals[0].hook,)
