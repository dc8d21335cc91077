"""What the analyses of one sequence have in common: their labels, and the pass they read."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mudd_interp import axes
from mudd_interp.analysis.finite import finite_hooks
from mudd_interp.analysis.inputs import check_position, labels_of, one_input
from mudd_interp.analysis.result import OneSequence
from mudd_interp.precision import wide
from mudd_interp.protocol import CachedModel, HookedModel
from mudd_interp.wiring import Wiring


@dataclass(frozen=True, eq=False, kw_only=True)
class SequenceResult(OneSequence):
    """What one sequence's logits or streams are made of.

    Attributes:
        completeness_error: How far the parts are from the whole, relative to its largest magnitude:
            rounding, unless something was left out.
    """

    completeness_error: float


@dataclass(frozen=True, eq=False)
class Pass:
    """One forward pass: its cache without the batch axis, in at least float32, and its logits."""

    wiring: Wiring
    cache: Any
    logits: Float[Tensor, "*pos d_vocab"] | None
    labels: Mapping[str, Any]

    def weights(self, layer: int, stream: axes.Stream = "r") -> Float[Tensor, "pos source _"]:
        """What a stream of a block multiplies each source by; see ``Wiring.vectors``."""
        return self.wiring.vectors(self.wiring.read(layer, stream), self.cache)


def run_pass(
    model: CachedModel,
    tokens: Any,
    names: Collection[str],
    data: str,
    options: Mapping[str, Any],
    position: int | None = None,
    logits: bool = False,
) -> Pass:
    """Run a model on one sequence, and keep the weights of its streams and the hooks named.

    Args:
        model: In evaluation mode.
        tokens: int64 ids ``[pos]`` or ``[1 pos]``.
        names: Hooks to keep besides the weights.
        data: What the sequence is, in words.
        options: Of the analysis, for the provenance.
        position: Keep this position only.
        logits: Whether the logits are needed.

    Raises:
        ValueError: If there is not one sequence of valid ids, the model is in training mode, or
            the sequence has no such position.
    """
    batch = one_input(model, tokens)
    if position is not None:
        check_position(position, model.front.positions(batch))
    weights = (name for read in model.wiring.reads for name in model.wiring.needs(read))
    kept = {*names, *weights}
    with torch.no_grad(), model.hooks(finite_hooks(model)):
        found, cache = model.run_with_cache(
            batch,
            names_filter=kept.__contains__,
            return_type="logits" if logits else None,
            remove_batch_dim=True,
            pos_slice=position,
        )
    cache.cache_dict = {name: wide(kept) for name, kept in cache.cache_dict.items()}
    labels = labels_of(model, batch, data, options)
    return Pass(model.wiring, cache, wide(found[0]) if logits else None, labels)


def last_position(model: HookedModel, tokens: Any, position: int | None) -> int:
    """A position of a sequence; ``None`` is the last one."""
    return model.front.positions(model.front.one(tokens)) - 1 if position is None else position


def written_hooks(wiring: Wiring, n_layers: int) -> list[str]:
    """The hooks on the embedding and on what attention and FFN of the first blocks wrote.

    Raises:
        ValueError: If they wrote more.
    """
    wiring.require_pairs()
    inner = [(axes.attn_out(layer), axes.mlp_out(layer)) for layer in range(n_layers)]
    return [axes.EMBED, *(name for pair in inner for name in pair)]


def relative_error(parts: Float[Tensor, "..."], whole: Float[Tensor, "..."]) -> float:
    """Largest difference over largest magnitude."""
    size = float(whole.abs().max())
    return float((parts - whole).abs().max()) / (size or 1.0)


def stacked_divisions(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Tables of one whole, divided in different ways, with the division's name in front."""
    named = [table.assign(division=name) for name, table in tables.items()]
    columns = [column for column in named[0].columns if column != "division"]
    return pd.concat(named, ignore_index=True).reindex(columns=["division", *columns])
