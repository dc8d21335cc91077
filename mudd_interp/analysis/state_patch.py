"""Clean and corrupted prompts: from which layer on, and at which token, is the answer decided?

The state that enters block ``l`` of a model with dense connections is not one vector for each
token: it is all outputs so far, X_0..X_l, since any of them is read later on. So the stream
``hook_resid_pre`` can be put back to that of another run, at all tokens, and little may change.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from mudd_interp.analysis.ablation import TOKENS_PER_PASS
from mudd_interp.analysis.causes import spearman
from mudd_interp.analysis.finite import finite_hooks
from mudd_interp.analysis.inputs import STATES
from mudd_interp.analysis.predictions import as_float64
from mudd_interp.analysis.prompt_pairs import answers_of, logit_difference, prompt_pair
from mudd_interp.analysis.provenance import TokensSeen, provenance
from mudd_interp.analysis.result import Result
from mudd_interp.analysis.state_gradient import first_order
from mudd_interp.protocol import Hook, HookedModel, Observer, require_traits, resumable

Restored = Literal["state", "output", "resid_pre"]
"""What is put back: X_0..X_l; the newest output X_l only; or the R stream that enters block l."""

RESTORED: tuple[Restored, ...] = get_args(Restored)


@dataclass(frozen=True, eq=False, kw_only=True)
class StatePatch(Result):
    """Logit differences of a corrupted run with a part of the clean run's state put back.

    The difference is that of two tokens' logits at the last position. Layer ``l`` stands for what
    enters block ``l``, and the number of layers for what the final norm is made from. Places are
    the positions, one at a time, and last all of them together. All else of the state is that of
    the corrupted run, and all that follows is computed anew.

    Attributes:
        clean: Of the clean run, in logits.
        corrupted: Of the corrupted run.
        patched: With each of :data:`RESTORED` put back, in this order.
        estimate: First-order estimate of what putting back the state changes, in logits: the
            gradient of the corrupted run times what differs. NaN with PrePostDANorm.
        answers: The two tokens of each prompt, the clean answer first.
    """

    absent: ClassVar[tuple[str, ...]] = ("estimate",)
    lengths: ClassVar[Mapping[str, int]] = MappingProxyType({"restored": len(RESTORED)})

    clean: Float64[np.ndarray, " prompt"]
    corrupted: Float64[np.ndarray, " prompt"]
    patched: Float64[np.ndarray, "restored layer place prompt"]
    estimate: Float64[np.ndarray, "layer place prompt"]
    answers: Int64[np.ndarray, "prompt 2"]

    @property
    def recovered(self) -> Float64[np.ndarray, "_ layer place"]:
        """Share of (clean − corrupted) that each restoration brings back, and the estimate last.

        Of the means over the prompts. 0 as corrupted, 1 as clean; unbounded. NaN where the two runs
        do not differ.
        """
        change = np.concatenate([self.patched - self.corrupted, self.estimate[None]])
        whole = float((self.clean - self.corrupted).mean())
        return change.mean(-1) / (whole or np.nan)

    @property
    def frame(self) -> pd.DataFrame:
        """Columns ``layer``, ``position`` (missing for all of them), and shares recovered.

        The shares are ``state``, ``output``, ``resid_pre`` and ``estimate``: see ``recovered``.
        """
        shares = self.recovered
        layer, place = np.indices(shares.shape[1:])
        position = pd.array(place.ravel(), dtype="Int64")
        position[place.ravel() == place.max()] = pd.NA
        columns = dict(zip((*RESTORED, "estimate"), shares.reshape(len(shares), -1), strict=True))
        return pd.DataFrame({"layer": layer.ravel(), "position": position, **columns})

    @property
    def agreement(self) -> float:
        """Spearman's rank correlation, -1..1, of the estimate and what the state recovers.

        Over all layers, and the single positions at which the states differ; NaN without estimates.
        """
        exact, estimate = (self.recovered[row, :, :-1].ravel() for row in (0, -1))
        differs = estimate != 0
        if np.isnan(estimate).any():
            return float("nan")
        return spearman(estimate[differs], exact[differs])

    def _merged(self, other: Any) -> dict[str, np.ndarray]:  # noqa: ARG002 (whatever it is)
        raise ValueError("patches of other prompts do not merge: give all prompts as one batch.")


@torch.no_grad()
def state_patch(
    model: HookedModel,
    clean: Any,
    corrupted: Any,
    answers: Any = None,
) -> StatePatch:
    """Put the state of a clean run back into a corrupted one, layer by layer and token by token.

    With all positions of X_0..X_l put back the run is the clean one, at every layer; but value
    embeddings, which are of tokens and not of states, stay those of the corrupted prompt. The
    estimate, attribution patching, takes one backward pass for all layers and positions.

    Args:
        model: A hooked model in evaluation mode.
        clean: Prompts of equal length, as ids ``[prompt pos]``.
        corrupted: As many prompts of the same length, position by position.
        answers: The two tokens of each prompt whose logits are compared; ``None`` takes the
            likeliest of the clean run and of the corrupted one.

    Raises:
        ValueError: If the prompts do not have one shape, the answers are equal or outside the
            vocabulary, the model is in training mode, or it keeps no states.
    """
    require_traits(model, "state_patch", STATES)
    clean, corrupted = prompt_pair(model, clean, corrupted)
    runs = [_Run(model, tokens) for tokens in (clean, corrupted)]
    chosen = answers_of(model, [run.logits for run in runs], answers)
    wiring = model.wiring
    layers = range(model.cfg.n_layers + 1)
    patched = [
        np.stack([_patched(model, runs, layer, what, chosen) for layer in layers])
        for what in (RESTORED[:1] if wiring.additive else RESTORED)
    ]
    patched *= len(RESTORED) // len(patched)  # without dense weights the three are one
    estimate = np.full_like(patched[0], np.nan)
    if wiring.between is None:
        changes = [ours - theirs for ours, theirs in zip(*(r.outputs for r in runs), strict=True)]
        estimate[:, :-1] = first_order(model, corrupted, changes, chosen)
        estimate[:, -1] = estimate[:, :-1].sum(1)
    seen, other = TokensSeen(model.front), TokensSeen(model.front)
    seen.add(clean)
    other.add(corrupted)
    options = {"corrupted": f"{other.digest:064x}"}
    return StatePatch(
        provenance=provenance(model, "clean prompts", seen, options),
        streams=wiring.streams,
        clean=as_float64(logit_difference(runs[0].logits, chosen)),
        corrupted=as_float64(logit_difference(runs[1].logits, chosen)),
        patched=np.stack(patched),
        estimate=estimate,
        answers=chosen.cpu().numpy(),
    )


class _Run:
    """A forward pass, with the outputs X_0..X_L and the R stream before each block and the end."""

    def __init__(self, model: HookedModel, tokens: Int64[Tensor, "prompt pos"]):
        self.tokens = tokens
        self.outputs: list[Float[Tensor, "prompt pos d_model"]] = []
        self.streams: list[Float[Tensor, "prompt pos d_model"]] = []
        hooks: list[Hook] = finite_hooks(model)
        for layer, source in enumerate(model.wiring.sources):
            hooks += [
                (source.hook, Observer(lambda x, _: self.outputs.append(x))),
                (model.wiring.read(layer).hook, Observer(lambda x, _: self.streams.append(x))),
            ]
        with model.hooks(hooks):
            self.logits = model(tokens, return_type="logits")


def _patched(
    model: HookedModel,
    runs: Sequence[_Run],
    layer: int,
    what: Restored,
    answers: Int64[Tensor, "prompt 2"],
) -> Float64[np.ndarray, "place prompt"]:
    """Logit differences with one layer's state put back, at each position and at all."""
    prompts, length = runs[1].tokens.shape
    places = torch.cat([torch.eye(length), torch.ones(1, length)]).bool().to(answers.device)
    changes = (places & _differs(runs, layer, what)).any(1)
    found = logit_difference(runs[1].logits, answers).repeat(length + 1, 1)
    if changes.any():  # else it is the corrupted run
        few = max(1, TOKENS_PER_PASS // (prompts * length))
        parts = [_rerun(model, runs, layer, what, at) for at in places[changes].split(few)]
        found[changes] = torch.cat([logit_difference(part, answers) for part in parts])
    return as_float64(found)


def _differs(runs: Sequence[_Run], layer: int, what: Restored) -> Bool[Tensor, " pos"]:
    """At which positions the part of the state that is put back is not the same in both runs."""
    clean, corrupted = (
        [run.streams[layer]]
        if what == "resid_pre"
        else [run.outputs[j] for j in _back(layer, what)]
        for run in runs
    )
    pairs = zip(clean, corrupted, strict=True)
    return torch.stack([(ours != theirs).any(-1).any(0) for ours, theirs in pairs]).any(0)


def _back(layer: int, what: Restored) -> Sequence[int]:
    """Which outputs are put back."""
    return {"state": range(layer + 1), "output": [layer], "resid_pre": []}[what]


def _rerun(
    model: HookedModel,
    runs: Sequence[_Run],
    layer: int,
    what: Restored,
    at: Bool[Tensor, "place pos"],
) -> Float[Tensor, "place prompt pos d_vocab"]:
    """The logits that follow from a corrupted state with clean parts, a copy for each place."""
    clean, corrupted = runs

    def mixed(ours: Tensor, theirs: Tensor) -> Float[Tensor, "row pos d_model"]:
        return torch.where(at[:, None, :, None], ours, theirs).flatten(0, 1)

    def copies(x: Float[Tensor, "prompt pos d_model"]) -> Float[Tensor, "row pos d_model"]:
        return x.repeat(len(at), 1, 1)

    back = _back(layer, what)
    outputs = [
        mixed(clean.outputs[j], x) if j in back else copies(x)
        for j, x in enumerate(corrupted.outputs[: layer + 1])
    ]
    hooks: list[Hook] = []
    if what == "resid_pre":
        stream = mixed(clean.streams[layer], corrupted.streams[layer])
        hooks = [(model.wiring.read(layer).hook, partial(_replace, stream))]
    logits = _logits_from(model, corrupted.tokens.repeat(len(at), 1), outputs, hooks)
    return logits.unflatten(0, (len(at), -1))


def _logits_from(
    model: HookedModel,
    tokens: Int64[Tensor, "row pos"],
    outputs: Sequence[Float[Tensor, "row pos d_model"]],
    hooks: Sequence[Hook],
) -> Float[Tensor, "row pos d_vocab"]:
    """Logits from X_0..X_l on: without the blocks below, where the model can do that."""
    going_on = resumable(model)
    if going_on is not None:
        with model.hooks(hooks):
            return going_on.logits_from(outputs)
    sources = zip(model.wiring.sources, outputs, strict=False)
    pins = [(source.hook, partial(_replace, x)) for source, x in sources]
    with model.hooks([*pins, *hooks]):
        return model(tokens, return_type="logits")


def _replace(
    new: Float[Tensor, "row pos d_model"],
    x: Float[Tensor, "row pos d_model"],  # noqa: ARG001 (a hook's signature)
    hook: Any,  # noqa: ARG001 (a hook's signature)
) -> Float[Tensor, "row pos d_model"]:
    return new
