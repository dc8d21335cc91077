"""What each output and each stream would predict, and where the final answer first leads."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64, Int64

from mudd_interp import axes
from mudd_interp.analysis.inputs import NEXT_TOKEN
from mudd_interp.analysis.predictions import as_float64
from mudd_interp.analysis.sequence import SequenceResult, relative_error, run_pass
from mudd_interp.analysis.vocabulary import token_texts
from mudd_interp.axes import Stream
from mudd_interp.protocol import DecomposableModel, require_traits

Kind = Stream | Literal["x"]
"""A stream, or ``"x"`` for the outputs X_j."""


@dataclass(frozen=True, eq=False, kw_only=True)
class LogitLens(SequenceResult):
    """Every X_j and every stream, read through the final norm and the unembedding.

    A row is an output X_j (kind ``x``, depth ``j``), or a stream as it enters block ``depth``; the
    last, stream r at depth n_layers, is the model's own prediction. The norm takes each row's own
    scale. Where sublayers read and write one by one, kind ``x`` is what the head makes of all that
    was written before a block, and at depth n_layers the model's own prediction.

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

        And ``answer_rank``; rows by kind (x q k v r), depth and position. Each row is a prediction
        by itself: nothing adds up.
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
    answer = found.logits.argmax(-1)
    ids: list[Any] = []
    top: list[Any] = []
    own: list[Any] = []
    rank: list[Any] = []
    error = 0.0
    final = tuple(read.hook for read in model.wiring.finals)
    for _, _, hooks in places:  # one at a time: all logits would be too large
        streams = [found.cache.cache_dict[hook][None].to(model.cfg.dtype) for hook in hooks]
        x = streams[0] if len(streams) == 1 else torch.stack(streams, dim=-2)
        logits = model.decode_stream(x)[0].to(found.logits.dtype)
        if hooks == final:
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
        kinds=tuple(kind for kind, _, _ in places),
        depths=tuple(depth for _, depth, _ in places),
        top_id=torch.stack(ids).numpy(),
        top_tokens=tuple(token_texts(model, row) for row in ids),
        top_probability=np.stack(top),
        answer_id=answer.cpu().numpy(),
        answer_probability=np.stack(own),
        answer_rank=np.stack(rank),
    )


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
