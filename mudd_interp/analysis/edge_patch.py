"""Clean and corrupted prompts: which edges carry what differs between them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from mudd_interp.analysis.ablation import edits_table
from mudd_interp.analysis.finite import finite_hooks
from mudd_interp.analysis.predictions import as_float64
from mudd_interp.analysis.prompt_pairs import answers_of, logit_difference, prompt_pair
from mudd_interp.analysis.provenance import TokensSeen, provenance
from mudd_interp.analysis.result import Result
from mudd_interp.edits import Edit, as_edits, every_edge
from mudd_interp.protocol import HookedModel, Observer, resumable
from mudd_interp.wiring import Read


@dataclass(frozen=True, eq=False, kw_only=True)
class EdgePatch(Result):
    """Logit differences of a clean run, edge by edge patched from a corrupted one.

    The difference is that of two tokens' logits at the last position. A patched edge gives its
    stream ``A' X'_source`` of the corrupted run (weight and source both) in place of ``A X_source``
    of the clean one; nothing else is touched, and all that follows is computed anew.

    Attributes:
        clean: Of the clean run, in logits.
        corrupted: Of the corrupted run.
        edge: With one edge patched, in the order of ``frame``.
        stream: With one whole stream of one aggregation patched, in the order of ``stream_frame``.
        answers: The two tokens of each prompt, the clean answer first.
    """

    needed: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"edges": list[str], "aggregates": list[str]}
    )
    labelled: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"edge": "edges", "aggregate": "aggregates"}
    )

    clean: Float64[np.ndarray, " prompt"]
    corrupted: Float64[np.ndarray, " prompt"]
    edge: Float64[np.ndarray, "edge prompt"]
    stream: Float64[np.ndarray, "aggregate prompt"]
    answers: Int64[np.ndarray, "prompt 2"]

    @property
    def frame(self) -> pd.DataFrame:
        """A row for each edge.

        Label columns as in ``AblationSweep.frame`` (``stream layer source`` and others), then means
        over the prompts: ``patched`` and ``change`` (patched minus clean), in logits, and
        ``share``: change over (corrupted minus clean), 1 where it is as large. Neither adds up.
        """
        return self._table(self.provenance.options["edges"], self.edge)

    @property
    def stream_frame(self) -> pd.DataFrame:
        """The same for whole streams; ``source`` is missing."""
        return self._table(self.provenance.options["aggregates"], self.stream)

    def _table(
        self, names: Sequence[str], patched: Float64[np.ndarray, "row prompt"]
    ) -> pd.DataFrame:
        change = (patched - self.clean).mean(1)
        whole = float((self.corrupted - self.clean).mean())
        table = edits_table([as_edits(text) for text in names]).drop(columns=["edits", "action"])
        return table.assign(
            patched=patched.mean(1), change=change, share=change / whole if whole else np.nan
        )

    def _merged(self, other: Any) -> dict[str, np.ndarray]:  # noqa: ARG002 (whatever it is)
        raise ValueError("patches of other prompts do not merge: give all prompts as one batch.")


@torch.no_grad()
def edge_patch(
    model: HookedModel,
    clean: Any,
    corrupted: Any,
    answers: Any = None,
) -> EdgePatch:
    """Patch each edge of a clean run from a corrupted one, exactly, and each whole stream.

    Args:
        model: A hooked model in evaluation mode.
        clean: Prompts of equal length, as ids ``[prompt pos]``.
        corrupted: As many prompts of the same length, position by position.
        answers: The two tokens of each prompt whose logits are compared; ``None`` takes the
            likeliest of the clean run and of the corrupted one.

    Raises:
        ValueError: If the prompts do not have one shape, the answers are equal or outside the
            vocabulary, the model is in training mode, or it has PrePostDANorm (a term of an
            aggregate passes a norm there together with the others).
    """
    clean, corrupted = prompt_pair(model, clean, corrupted)
    wiring = model.wiring
    if wiring.between is not None:
        raise ValueError(
            f"{model.info.name} has {wiring.between}: its edges add up inside a norm, so that no "
            "term can be replaced by itself. Use ablation_sweep."
        )
    runs = [_Run(model, tokens) for tokens in (clean, corrupted)]
    chosen = answers_of(model, [run.logits for run in runs], answers)
    rows = sorted(wiring.rows, key=lambda read: wiring.streams.index(read.stream))
    edge_rows: list[Float64[np.ndarray, "row prompt"]] = []
    stream_rows: list[Float64[np.ndarray, "row prompt"]] = []
    for read in rows:
        deltas = runs[1].terms(read) - runs[0].terms(read)
        patched = _patched(model, runs[0], read, torch.cat([deltas, deltas.sum(0, keepdim=True)]))
        found = as_float64(logit_difference(patched, chosen))
        edge_rows.append(found[:-1])
        stream_rows.append(found[-1:])
    seen, other = TokensSeen(model.front), TokensSeen(model.front)
    seen.add(clean)
    other.add(corrupted)
    options = {
        "edges": [str(edge) for edge in every_edge(model)],
        "aggregates": [
            str(Edit(action="cut", stream=read.stream, layer=read.row)) for read in rows
        ],
        "corrupted": f"{other.digest:064x}",
    }
    return EdgePatch(
        provenance=provenance(model, "clean prompts", seen, options),
        streams=wiring.streams,
        clean=as_float64(logit_difference(runs[0].logits, chosen)),
        corrupted=as_float64(logit_difference(runs[1].logits, chosen)),
        edge=np.concatenate(edge_rows),
        stream=np.concatenate(stream_rows),
        answers=chosen.cpu().numpy(),
    )


class _Run:
    """A forward pass, with what edges are made of."""

    def __init__(self, model: HookedModel, tokens: Int64[Tensor, "prompt pos"]):
        self.tokens = tokens
        self.outputs: list[Float[Tensor, "prompt pos d_model"]] = []
        self._weights: dict[Read, Float[Tensor, "prompt pos source"]] = {}
        self._wiring = model.wiring
        keep = Observer(lambda x, _: self.outputs.append(x))
        hooks = [
            *finite_hooks(model),
            *((source.hook, keep) for source in self._wiring.sources),
            *self._wiring.watch_rows(self._keep_weights),
        ]
        with model.hooks(hooks):
            self.logits = model(tokens, return_type="logits")

    def _keep_weights(self, read: Read, weights: Float[Tensor, "prompt pos source"]) -> None:
        self._weights[read] = weights.clone()

    def terms(self, read: Read) -> Float[Tensor, "edge prompt pos d_model"]:
        """The terms ``A X_source`` of one row: one where it is the plain residual."""
        sources = [self.outputs[j] for j in self._wiring.columns(read)]
        if not self._wiring.weighed(read):
            return sources[-1][None]
        return self._weights[read].permute(2, 0, 1)[..., None] * torch.stack(sources)


def _patched(
    model: HookedModel,
    run: _Run,
    read: Read,
    deltas: Float[Tensor, "row prompt pos d_model"],
) -> Float[Tensor, "row prompt pos d_vocab"]:
    """The logits of a run with each of several vectors added to one stream."""
    times = len(deltas)

    def add(x: Tensor, hook: Any) -> Tensor:  # noqa: ARG001 (a hook's signature)
        return x + deltas.flatten(0, 1)

    with model.hooks([(read.hook, add)]):
        going_on = resumable(model)
        if going_on is not None:
            outputs = run.outputs[: read.layer + 1]
            logits = going_on.logits_from([x.repeat(times, 1, 1) for x in outputs])
        else:
            logits = model(run.tokens.repeat(times, 1), return_type="logits")
    return logits.unflatten(0, (times, -1))
