"""Weight, contribution and cause side by side; and the loss without dynamic weights."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float64

from mudd_interp.analysis.ablation import EFFECTS, AblationSweep, ablation_sweep
from mudd_interp.analysis.attribution import EdgeAttribution
from mudd_interp.analysis.edge_sizes import EdgeSizes
from mudd_interp.analysis.result import Result
from mudd_interp.analysis.walk import NO_LOCK, Progress
from mudd_interp.analysis.weights import DenseWeights, dense_weights
from mudd_interp.axes import Stream
from mudd_interp.data import TokenBatches
from mudd_interp.edits import Action, Edit
from mudd_interp.protocol import HookedModel

Effect = Literal["loss", "kl"]

EDGE = ["stream", "layer", "source"]

_FROZEN = {
    f"{effect}{end}": f"{effect}_frozen{end}" for effect in EFFECTS for end in ("", "_low", "_high")
}


def weight_contribution_cause(
    sizes: EdgeSizes,
    effects: AblationSweep,
    attribution: EdgeAttribution | None = None,
    frozen: AblationSweep | None = None,
) -> pd.DataFrame:
    """The mean weight, the mean contribution and the effect of each edge that was cut.

    Args:
        sizes: Of the model's edges.
        effects: A sweep in which single edges were cut, at all tokens; other edits in it are left
            out.
        attribution: First-order estimates, for a column ``estimate``.
        frozen: The same sweep with weights held (``ablation_sweep(..., frozen=True)``), for columns
            ``loss_frozen`` and so on.

    Returns:
        Columns ``stream layer source weight contribution share``, then ``loss``, ``kl`` and
        ``logit_difference`` with the ends of their intervals, ``estimate``, and the effects with
        weights held. Only estimates add up over edges.

    Raises:
        ValueError: If the results are not of one model on the same tokens, no edge was cut, or a
            sweep is not live, or frozen, where it should be.
    """
    if effects.frozen or not (frozen is None or frozen.frozen):
        raise ValueError(
            "expected a live sweep as effects, and as frozen one of ablation_sweep(frozen=True)."
        )
    given = [sizes, effects, attribution, frozen]
    _check_same_run([each for each in given if each is not None])
    tables = [sizes.frame, _of_cuts(effects)]
    if attribution is not None:
        estimates: Any = attribution.frame[[*EDGE, "estimate"]]
        tables.append(estimates.astype({"layer": int, "source": int}))
    if frozen is not None:
        tables.append(_of_cuts(frozen).rename(columns=_FROZEN))
    joined = tables[0]
    for each in tables[1:]:
        joined = joined.merge(each, on=EDGE)
    return joined


def _of_cuts(effects: AblationSweep) -> pd.DataFrame:
    """The effects of the single edges that a sweep cuts.

    Raises:
        ValueError: If it cuts none.
    """
    cut = [i for i, group in enumerate(effects.edits) if len(group) == 1 and _is_cut(group[0])]
    if not cut:
        raise ValueError(
            "expected a sweep that cuts single edges: give none, or every_edge(model)."
        )
    table: Any = effects.frame.iloc[cut].drop(columns=["edits", "action", "part", "head"])
    return table.astype({"layer": int, "source": int})


def rank_correlations(table: pd.DataFrame, effect: Effect = "loss") -> pd.DataFrame:
    """Spearman's rank correlations of what :func:`weight_contribution_cause` puts side by side.

    Magnitudes of effects are compared with weights and contributions; estimates with the signed
    effects on the loss.

    Args:
        table: The table.
        effect: Which effect counts.

    Returns:
        A row for each stream, and one for ``all``: ``stream``, ``edges``, ``weight_contribution``,
        ``contribution_effect``, ``weight_effect``, ``first_order_exact`` if there are estimates,
        and ``frozen_live`` if there are effects with weights held. -1..1; NaN where all values are
        equal.
    """
    columns = {name: table[name].to_numpy() for name in table}
    size = np.abs(columns[effect])
    pairs = {
        "weight_contribution": (columns["weight"], columns["contribution"]),
        "contribution_effect": (columns["contribution"], size),
        "weight_effect": (columns["weight"], size),
    }
    if "estimate" in columns:
        pairs["first_order_exact"] = (columns["estimate"], columns["loss"])
    if f"{effect}_frozen" in columns:
        pairs["frozen_live"] = (np.abs(columns[f"{effect}_frozen"]), size)
    rows: list[dict[str, Any]] = []
    for stream in [*dict.fromkeys(columns["stream"]), "all"]:
        at = (columns["stream"] == stream) | (stream == "all")
        found = {name: spearman(a[at], b[at]) for name, (a, b) in pairs.items()}
        rows.append({"stream": stream, "edges": int(np.count_nonzero(at)), **found})
    return pd.DataFrame(rows)


def spearman(a: Float64[np.ndarray, " edge"], b: Float64[np.ndarray, " edge"]) -> float:
    """Spearman's rank correlation, -1..1; equal values share their mean rank. NaN of constants."""
    if len(set(a)) < 2 or len(set(b)) < 2:
        return float("nan")
    ranks = [pd.Series(values).rank().to_numpy() for values in (a, b)]
    return float(np.corrcoef(ranks)[0, 1])


def static_vs_dynamic(
    model: HookedModel,
    batches: TokenBatches,
    means: DenseWeights | None = None,
    progress: Progress | None = None,
    lock: AbstractContextManager[Any] = NO_LOCK,
) -> AblationSweep:
    """What the loss is when weights no longer depend on the token: how dynamic a model is.

    All weights are set to their mean over a corpus (the best that static ones could do without
    training), to their static part if they have one, and shuffled over positions (the same weights
    at the wrong tokens, a control): of all streams and layers, of one stream, and of one
    aggregation.

    Args:
        model: A model with dense weights, in evaluation mode.
        batches: int64 token ids ``[batch pos]``, without padding; walked twice without ``means``.
        means: Mean weights, of this text or a larger one.
        progress: See :data:`Progress`.
        lock: As for :func:`ablation_sweep`.

    Raises:
        ValueError: As for :func:`ablation_sweep`; also if the model has no dense weights.
    """
    edits = static_edits(model)
    means = dense_weights(model, batches) if means is None else means
    return ablation_sweep(model, batches, edits, means=means, progress=progress, lock=lock)


def static_edits(model: HookedModel) -> list[Edit]:
    """The edits of :func:`static_vs_dynamic`, in the order of its rows.

    Raises:
        ValueError: If the model has no dense weights.
    """
    wiring = model.wiring
    rows = [read for read in wiring.rows if wiring.weighed(read)]
    if not rows:
        raise ValueError(f"{model.info.name} has no dense weights, static or dynamic.")
    has_static = all(wiring.static(read) is not None for read in rows)
    actions: list[Action] = ["mean", *(["static"] if has_static else []), "shuffle"]
    fed = {read.stream for read in rows}
    streams: list[Stream] = [stream for stream in wiring.streams if stream in fed]
    return [
        edit
        for action in actions
        for edit in (
            Edit(action=action),
            *(Edit(action=action, stream=stream) for stream in streams if len(streams) > 1),
            *(Edit(action=action, layer=layer) for layer in sorted({read.row for read in rows})),
        )
    ]


def _is_cut(edit: Edit) -> bool:
    named = edit.stream is not None and edit.layer is not None and edit.source is not None
    return edit.action == "cut" and named and edit.positions is None


def _check_same_run(results: Sequence[Result]) -> None:
    runs = [(r.provenance.model, r.provenance.digest, r.provenance.token_digest) for r in results]
    if len(set(runs)) > 1:
        words = "; ".join(
            f"{r.provenance.model} on {r.provenance.tokens:,} tokens" for r in results
        )
        raise ValueError(f"expected results of one model on the same tokens, got {words}.")
