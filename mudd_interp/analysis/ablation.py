"""What each edit costs: every edge or group of edits, one after another, on a corpus."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from mudd_interp.analysis.base import Accumulator, Analysis, Tape
from mudd_interp.analysis.bootstrap import mean_and_interval
from mudd_interp.analysis.finite import arrays_of, finite_hooks
from mudd_interp.analysis.inputs import MOVING, NEXT_TOKEN
from mudd_interp.analysis.predictions import as_float64
from mudd_interp.analysis.provenance import Provenance
from mudd_interp.analysis.result import Result
from mudd_interp.analysis.resumable import go_on, own_file
from mudd_interp.analysis.walk import NO_LOCK, Progress, walk
from mudd_interp.analysis.weights import DenseWeights
from mudd_interp.data import TokenBatches
from mudd_interp.edits import (
    Edit,
    Edits,
    Held,
    as_edits,
    batched_hooks,
    edit_hooks,
    edits_text,
    every_edge,
)
from mudd_interp.precision import wide
from mudd_interp.protocol import HookedModel, Observer, Trait, resumable

TOKENS_PER_PASS = 1024
"""About how many tokens, over several edits, go through the blocks at once: enough to keep a
processor busy, and few enough that their logits stay small."""

EFFECTS = ("loss", "kl", "logit_difference")
"""What is measured; each is a column of the frame, beside its ``_low`` and ``_high``."""


@dataclass(frozen=True, eq=False, kw_only=True)
class AblationSweep(Result):
    """Effects of edits, each alone against the model without edits, by sequence.

    Attributes:
        loss_sum: Without edits: sum of −log p over the predicted tokens, in nats.
        loss_change: Loss with an edit minus loss without, summed over the predicted tokens.
        kl_sum: KL(unedited ‖ edited) of the next-token distributions, in nats, not negative (except
            for rounding), summed over all positions.
        logit_change: Change of the logit difference, summed over the tokens that it is taken at:
            the logit of the token that follows minus that of the likeliest other one (as the model
            without edits has it), at each predicted token; or of a given pair of tokens, at the
            last position.
        predicted: Predicted tokens: all but the first.
        positions: All tokens.
        compared: Tokens at which the logit difference is taken.
    """

    needed: ClassVar[Mapping[str, Any]] = MappingProxyType({"edits": list[str]})
    labelled: ClassVar[Mapping[str, str]] = MappingProxyType({"edit": "edits"})

    loss_sum: Float64[np.ndarray, " sequence"]
    loss_change: Float64[np.ndarray, "edit sequence"]
    kl_sum: Float64[np.ndarray, "edit sequence"]
    logit_change: Float64[np.ndarray, "edit sequence"]
    predicted: Int64[np.ndarray, " sequence"]
    positions: Int64[np.ndarray, " sequence"]
    compared: Int64[np.ndarray, " sequence"]

    @property
    def edits(self) -> list[tuple[Edit, ...]]:
        """What was done, in the order of the rows."""
        return [as_edits(text) for text in self.provenance.options["edits"]]

    @property
    def frozen(self) -> bool:
        """Whether the weights of later reads were held at what they are without edits."""
        return bool(self.provenance.options.get("frozen", False))

    @property
    def loss(self) -> float:
        """Mean loss without edits, in nats per token."""
        return float(self.loss_sum.sum() / max(1, self.predicted.sum()))

    @property
    def frame(self) -> pd.DataFrame:
        """A row for each edit or group, in the order in which they were given.

        Columns ``edits`` (as text), ``action``, ``part``, ``stream``, ``layer``, ``source``,
        ``head`` (missing where an edit is about all of them, and for a group of several), and the
        mean effects per token with the ends of their 95% intervals (paired bootstrap over
        sequences): ``loss``, ``kl`` (nats) and ``logit_difference`` (logits). Effects do not add
        up: what several edits do together is the effect of a row in which they are all done.
        """
        frame = edits_table(self.edits)
        sums = (self.loss_change, self.kl_sum, self.logit_change)
        counts = (self.predicted, self.positions, self.compared)
        for name, each, count in zip(EFFECTS, sums, counts, strict=True):
            mean, low, high = mean_and_interval(each, count)
            frame = frame.assign(**{name: mean, f"{name}_low": low, f"{name}_high": high})
        return frame

    def _check_shapes(self, other: Result) -> None:
        """Nothing: results of one set of edits have sequences of their own."""

    def _merged(self, other: Any) -> dict[str, np.ndarray]:
        names = arrays_of(self)
        return {n: np.concatenate([getattr(self, n), getattr(other, n)], axis=-1) for n in names}


def edits_table(groups: Sequence[tuple[Edit, ...]]) -> pd.DataFrame:
    """What each group of edits is: the label columns of a table of effects."""
    alone = [group[0] if len(group) == 1 else None for group in groups]
    columns: dict[str, Any] = {"edits": np.array([edits_text(g) for g in groups], dtype=object)}
    for name in ("action", "part", "stream"):
        columns[name] = pd.Series([edit and getattr(edit, name) for edit in alone], dtype=object)
    for name in ("layer", "source", "head"):
        columns[name] = pd.array([edit and getattr(edit, name) for edit in alone], dtype="Int64")
    return pd.DataFrame(columns)


@dataclass(frozen=True)
class AblationAnalysis(Analysis[AblationSweep]):
    """Computes :class:`AblationSweep`.

    Attributes:
        edits: What to do, as text, one after another; edits in one text, with semicolons between,
            are done together. ``None`` cuts every edge.
        means: As for ``mudd_interp.edited``.
        pair: As for :func:`ablation_sweep`.
        frozen: As for :func:`ablation_sweep`.
    """

    name = "ablation_sweep"
    result = AblationSweep
    requires = NEXT_TOKEN
    chunk = 1

    edits: tuple[str, ...] | None = None
    means: DenseWeights | None = None
    pair: tuple[int, int] | None = None
    frozen: bool = False

    @property
    def required(self) -> frozenset[Trait]:
        """See :class:`Analysis`."""
        return self.requires | MOVING if self.frozen else self.requires

    def given(self, result: DenseWeights) -> "AblationAnalysis":
        """The same with mean weights."""
        return replace(self, means=result)

    def start(self, model: HookedModel) -> "AblationSums":
        """Empty sums for one model.

        Raises:
            ValueError: If there is no edit, one cannot be done, or a token of the pair is outside
                the vocabulary.
        """
        given = every_edge(model) if self.edits is None else self.edits
        groups = [as_edits(each) for each in given]
        _check_groups(model, groups, self.means, self.pair)
        return AblationSums(model, groups, self.means, self.pair, self.frozen)


class AblationSums(Accumulator[AblationSweep]):
    """The effects of each edit on each sequence, from passes of its own.

    The pass without edits is its own too: the passes with edits are compared with one that is
    computed as they are, whatever else is asked for.
    """

    shared = False

    def __init__(
        self,
        model: HookedModel,
        groups: Sequence[tuple[Edit, ...]],
        means: DenseWeights | None,
        pair: tuple[int, int] | None,
        frozen: bool,
    ):
        self._model, self._groups, self._means, self._pair = model, groups, means, pair
        self._frozen = frozen
        self.options: Mapping[str, Any] = {
            "edits": [edits_text(group) for group in groups],
            "pair": None if pair is None else list(pair),
            "means": None if means is None else means.provenance.token_digest,
            **({"frozen": True} if frozen else {}),
        }
        self._measured: list[dict[str, np.ndarray]] = []

    def steps(self, tape: Tape) -> Iterable[Callable[[], object]]:
        """The pass without edits, and those with each, on as many sequences as fit into one."""
        for tokens in tape.tokens.split(max(1, TOKENS_PER_PASS // tape.tokens.shape[1])):
            run = _Run(
                self._model, tokens, self._means, Held(self._model) if self._frozen else None
            )
            yield run.without_edits
            reference = _Reference(run.logits, tokens, self._pair)
            changes = np.zeros((3, len(self._groups), len(tokens)))
            for numbers in run.shares(self._groups):
                yield partial(self._change, run, reference, numbers, changes)
            self._measured.append(_arrays(reference, changes, tokens, self._pair))

    def _change(
        self,
        run: "_Run",
        reference: "_Reference",
        numbers: Sequence[int],
        changes: Float64[np.ndarray, "effect edit batch"],
    ) -> None:
        """Fill in what some of the edits change, in a single pass for all of these."""
        logits = run.edited([self._groups[number] for number in numbers])
        changes[:, numbers] = reference.changes(logits)

    def finish(self, provenance: Provenance) -> AblationSweep:
        """The result of all batches so far."""
        sums = {
            name: np.concatenate([each[name] for each in self._measured], -1)
            for name in self._measured[0]
        }
        return AblationSweep(provenance=provenance, streams=self._model.wiring.streams, **sums)


def _arrays(
    reference: "_Reference",
    changes: Float64[np.ndarray, "effect edit batch"],
    tokens: Int64[Tensor, "batch pos"],
    pair: tuple[int, int] | None,
) -> dict[str, np.ndarray]:
    """The arrays of a result, of some sequences."""
    batch, pos = tokens.shape
    return {
        "loss_sum": reference.loss_sum,
        **dict(zip(("loss_change", "kl_sum", "logit_change"), changes, strict=True)),
        "predicted": np.full(batch, pos - 1),
        "positions": np.full(batch, pos),
        "compared": np.full(batch, pos - 1 if pair is None else 1),
    }


def ablation_sweep(
    model: HookedModel,
    batches: TokenBatches,
    edits: Sequence[Edits] | None = None,
    *,
    means: DenseWeights | None = None,
    pair: tuple[int, int] | None = None,
    frozen: bool = False,
    path: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    lock: AbstractContextManager[Any] = NO_LOCK,
) -> AblationSweep:
    """Measure what each edit, or group of edits, does to a model on a corpus.

    An edit changes nothing below it: a model that can continue from the outputs of its first blocks
    (``HookedMUDDTransformer``) is run from there only, and several edits share one pass.

    Args:
        model: Any hooked model, in evaluation mode.
        batches: int64 token ids ``[batch pos]``, without padding.
        edits: What to do, one after another; edits given as one (a text with semicolons, a list)
            are done together. ``None`` cuts every edge.
        means: As for ``mudd_interp.edited``.
        pair: Two token ids, whose difference of logits at the last position is measured; by default
            it is that of the following token and its likeliest rival, at each position.
        frozen: Hold the weights of later reads at what they are without edits, as
            ``mudd_interp.frozen`` does; else they are computed anew, as everything is.
        path: A file for the results so far, written after each batch. If it exists already, the
            sweep resumes from it; at the end it holds the whole result. Only one process may work
            on it at once.
        progress: See :data:`Progress`; called when all edits of a batch are done.
        lock: Held during each forward pass, as for :func:`sweep`.

    Raises:
        ValueError: If an edit cannot be done, there is none, there are no batches, one is not as
            described, a token of the pair is outside the vocabulary, the model is in training mode,
            or the file is of another model, text, precision or set of edits, or in use by another
            process.
        OSError: If the file cannot be written.
    """
    given = None if edits is None else tuple(edits_text(each) for each in edits)
    analysis = AblationAnalysis(given, means, pair, frozen)
    if path is None:
        return walk(model, batches, [analysis], progress, lock)[0]
    if model.info.digest is None:
        raise ValueError(
            "a sweep into a file needs a model with a digest, to recognise it: save the model "
            "and load it, or leave out the path."
        )
    with own_file(path) as state:
        return go_on(model, batches, [analysis], state, progress, lock)[0]


def _check_groups(
    model: HookedModel,
    groups: Sequence[tuple[Edit, ...]],
    means: DenseWeights | None,
    pair: tuple[int, int] | None,
) -> None:
    if not groups or not all(groups):
        raise ValueError("expected at least one edit, in each group too, got none.")
    for group in groups:
        edit_hooks(model, group, means)
    for token in pair or ():
        if not 0 <= token < model.cfg.d_vocab:
            last = model.cfg.d_vocab - 1
            raise ValueError(f"a token of the pair must lie in 0..{last}, got {token}.")


class _Run:
    """One batch through a model without edits, and then with each of them."""

    def __init__(
        self,
        model: HookedModel,
        tokens: Int64[Tensor, "batch pos"],
        means: DenseWeights | None,
        held: Held | None,
    ):
        self._model, self._tokens, self._means, self._held = model, tokens, means, held
        self._outputs: list[Float[Tensor, "batch pos d_model"]] = []

    def without_edits(self) -> None:
        """Run the batch, and keep its logits and each block's output."""
        model = self._model
        sources = () if resumable(model) is None else model.wiring.sources
        keep = Observer(lambda x, _: self._outputs.append(x))
        hooks = [*finite_hooks(model), *((source.hook, keep) for source in sources)]
        hooks += [] if self._held is None else self._held.looks()
        with model.hooks(hooks):
            self.logits = model(self._tokens, return_type="logits")

    def shares(self, groups: Sequence[tuple[Edit, ...]]) -> Iterator[list[int]]:
        """The numbers of the groups that share a pass: those that begin at one block."""
        size = max(1, TOKENS_PER_PASS // self._tokens.numel())
        order = sorted(range(len(groups)), key=lambda number: self._kept(groups[number]))
        for _, same in groupby(order, key=lambda number: self._kept(groups[number])):
            numbers = list(same)
            for start in range(0, len(numbers), size):
                yield numbers[start : start + size]

    def _kept(self, group: tuple[Edit, ...]) -> int:
        return min(edit.kept_outputs for edit in group)

    def edited(
        self, groups: Sequence[tuple[Edit, ...]]
    ) -> Float[Tensor, "group batch pos d_vocab"]:
        """The logits with each group of edits."""
        times, kept = len(groups), self._kept(groups[0])
        before = [] if self._held is None else self._held.hooks(times)
        hooks = batched_hooks(self._model, groups, self._means)
        with self._model.hooks([*before, *hooks]):
            going_on = resumable(self._model)
            if going_on is not None:
                start = [x.repeat(times, 1, 1) for x in self._outputs[:kept]]
                logits = going_on.logits_from(start)
            else:
                logits = self._model(self._tokens.repeat(times, 1), return_type="logits")
        return logits.unflatten(0, (times, -1))


class _Reference:
    """The predictions without edits, and how those of other passes differ."""

    def __init__(
        self,
        logits: Float[Tensor, "batch pos d_vocab"],
        tokens: Int64[Tensor, "batch pos"],
        pair: tuple[int, int] | None,
    ):
        self._following = tokens[:, 1:, None].to(logits.device)
        self._pair = None if pair is None else list(pair)
        others = logits[:, :-1].scatter(-1, self._following, -torch.inf)
        self._rival = others.argmax(-1, keepdim=True)
        log_probs = wide(logits).log_softmax(-1)
        self._probs = log_probs.exp()
        self._negative_entropy = torch.linalg.vecdot(self._probs, log_probs)
        self._loss = self._losses(log_probs)
        self._difference = self._differences(wide(logits))
        self.loss_sum = as_float64(self._loss).sum(-1)

    def changes(
        self, logits: Float[Tensor, "group batch pos d_vocab"]
    ) -> Float64[np.ndarray, "effect group batch"]:
        """Loss change, KL and change of the logit difference, summed over each sequence."""
        log_probs = wide(logits).log_softmax(-1)
        kl = self._negative_entropy - torch.linalg.vecdot(self._probs, log_probs)
        losses = self._losses(log_probs) - self._loss
        differences = self._differences(wide(logits)) - self._difference
        return np.stack([as_float64(each).sum(-1) for each in (losses, kl, differences)])

    def _losses(
        self, log_probs: Float[Tensor, "*group batch pos d_vocab"]
    ) -> Float[Tensor, "*group batch predicted"]:
        return -self._at(log_probs[..., :-1, :], self._following)

    def _differences(
        self, logits: Float[Tensor, "*group batch pos d_vocab"]
    ) -> Float[Tensor, "*group batch compared"]:
        if self._pair is not None:
            first, second = logits[..., -1:, self._pair].unbind(-1)
            return first - second
        before = logits[..., :-1, :]
        return self._at(before, self._following) - self._at(before, self._rival)

    @staticmethod
    def _at(
        values: Float[Tensor, "*group batch predicted d_vocab"],
        ids: Int64[Tensor, "batch predicted 1"],
    ) -> Float[Tensor, "*group batch predicted"]:
        return values.gather(-1, ids.expand(*values.shape[:-1], 1)).squeeze(-1)
