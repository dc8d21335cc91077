"""Our models as lm-evaluation-harness asks them: ``model="mudd-interp"`` after this import.

The harness hands over texts; here they become token ids, and sums of log-probabilities come back.
Rows of a batch are equally long, so nothing is padded: an edit that moves weights between tokens
moves none of padding.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, groupby
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import Tensor

from mudd_interp.analysis import dense_weights
from mudd_interp.axes import END_OF_TEXT, unknown_name
from mudd_interp.checkpoints import load_model
from mudd_interp.edits import Edits, Means, as_edits, edit_hooks, edited, edits_text
from mudd_interp.encoding import decode, encode_document
from mudd_interp.protocol import HookedModel
from mudd_interp.request import Request
from mudd_interp.texts import corpus_of, require_tokenizer

Prefix = Literal["document", "always", "never"]
"""Where ``<|endoftext|>`` is put: before a text that is predicted from its first token on, before
every context as well, or nowhere (the first token of a rolling text is then not predicted)."""

PREFIXES: tuple[Prefix, ...] = get_args(Prefix)
BATCH = 16
_KEPT = 64  # texts whose ids are kept: a context comes again with each of its choices
_NEW_TOKENS = 256  # the harness's own default where a task does not say

Pair = tuple[list[int], list[int]]
"""The ids of a context and of its continuation."""

Score = tuple[float, bool]
"""The log-probability of a continuation in nats, and whether greedy decoding writes it."""

Report = Callable[[int, int], object]
"""Called with the rows done so far and the rows in all."""


@dataclass
class Counts:
    """What happened to the requests so far.

    Attributes:
        requests: How many continuations were scored.
        merged: In how many the tokenizer joins the end of the context to the continuation: there
            the harness scores other tokens than those of the continuation.
        truncated: How many contexts lost their beginning.
    """

    requests: int = 0
    merged: int = 0
    truncated: int = 0


class HookedLM(TemplateLM):
    """A model that ``load_model`` gives, or any hooked model, as the harness's ``TemplateLM``.

    Hooks that the model has when it is asked count, and so do the edits. There is no chat template:
    these are base models.

    Args:
        model: A hooked model with a tokenizer, or the name, folder or hub id of one.
        edits: What to change in it, as values or text.
        means: Mean weights for edits that set weights to their mean; those over the bundled text if
            it is not given.
        prefix: Where ``<|endoftext|>`` is put.
        max_length: Tokens that the model reads at once; ``None`` for its context.
        truncate: Whether a context that is too long loses its beginning. It is refused otherwise:
            what is left of a few-shot prompt or of an article is another task.
        batch_size: Rows in a pass. In half precision it moves scores a little.
        max_batch_size: The harness's; nothing is tried out here.
        device: Where to load the model; ``None`` for torch's default.
        dtype: In which precision; ``None`` for that of the checkpoint.
        report: Called after each pass.

    Raises:
        ValueError: If the model cannot be had or has no tokenizer, an edit cannot be done in it, or
            an option is none.
    """

    def __init__(
        self,
        model: str | HookedModel = "mudd-tiny",
        *,
        edits: Edits = (),
        means: Means | None = None,
        prefix: str = "document",
        max_length: int | None = None,
        truncate: bool = False,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
        dtype: str | None = None,
        report: Report | None = None,
    ):
        super().__init__()
        del max_batch_size
        if prefix not in PREFIXES:
            raise ValueError(unknown_name("prefix", prefix, PREFIXES))
        self.prefix, self.truncate, self.report = prefix, truncate, report
        self.batch_size = _batch(batch_size)
        self.model = model if isinstance(model, HookedModel) else load_model(model, device, dtype)
        self.tokenizer = require_tokenizer(self.model)
        self.max_length = _length(max_length, self.model)
        self.edits = as_edits(edits)
        self.means = _means(self.model, self.edits) if means is None else means
        edit_hooks(self.model, self.edits, self.means)  # what cannot be done is said at once
        self.counts = Counts()
        self._ids = lru_cache(_KEPT)(self._encode)
        self._device = self.model.cfg.device

    @property
    def eot_token_id(self) -> int:
        """The id of ``<|endoftext|>``, or of the tokenizer's own end of a text.

        Raises:
            ValueError: If the tokenizer has neither.
        """
        found = self.tokenizer.get_vocab().get(END_OF_TEXT, self.tokenizer.eos_token_id)
        if found is None:
            raise ValueError(
                f"the tokenizer of {self.model.info.name} has no {END_OF_TEXT}: ask for prefix "
                "`never`, and for tasks that give a context."
            )
        return found

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text without context.

        Raises:
            ValueError: If nothing is to stand there, or the tokenizer has no such token.
        """
        if self.prefix == "never":
            raise ValueError(
                "a task asks for a continuation of nothing: with prefix `never` there is nothing "
                "to read before it; ask for `document`."
            )
        return self.eot_token_id

    def get_model_info(self) -> dict[str, Any]:
        """What the harness notes of a model."""
        info = self.model.info
        return {"model_name": info.name, "model_sha": info.digest, "edits": edits_text(self.edits)}

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """The ids of a text. It is a document: where it spells a special token, that is text."""
        del add_special_tokens, kwargs
        return list(self._ids(string))

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(chain.from_iterable(encode_document(self.tokenizer, [text])))

    def logits(self, tokens: Any) -> Float[Tensor, "batch pos d_vocab"]:
        """A forward pass, hooks and edits included."""
        with torch.no_grad(), edited(self.model, self.edits, self.means) as model:
            return model(tokens.to(self.model.cfg.device), return_type="logits")

    # --- Log-probabilities ----------------------------------------------------------------------

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[Score]:
        """Score a continuation of a context for each request.

        Raises:
            ValueError: If a continuation has no tokens of its own, or a context is too long.
        """
        del disable_tqdm
        for request in requests:
            asked: Any = request.args
            if not asked[1]:
                raise ValueError(_no_tokens(*asked))
        return super().loglikelihood(requests, disable_tqdm=True)

    def _encode_pair(self, context: str, continuation: str) -> Pair:
        """The harness's cut of a text in two, with an eye on where it falls.

        It cuts the ids of the whole where those of the context end, and takes white space at the
        end of a context for the continuation's. Where the tokenizer joins both sides of the cut,
        what is scored is not the continuation: that is counted, and refused if nothing is left.
        """
        before, after = super()._encode_pair(context, continuation)
        if not after:
            raise ValueError(_no_tokens(context, continuation))
        ids = self.tok_encode(context + continuation)
        self.counts.merged += ids[: len(before)] != before
        return before, after

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **kwargs: Any
    ) -> list[Score]:
        del kwargs
        pairs: list[Pair] = []
        for asked, before, after in requests:
            if not after:
                raise ValueError(_no_tokens(*asked))
            if self.prefix == "always" and before[0] != self.eot_token_id:
                before = [self.eot_token_id, *before]
            pairs.append(self._fitting(before, after))
        found = self._scores(pairs)
        for (asked, _, _), score in zip(requests, found, strict=True):
            if asked is not None:
                self.cache_hook.add_partial("loglikelihood", asked, score)
        return found

    def _fitting(self, before: list[int], after: list[int]) -> Pair:
        """A pair that the model can read: all but the last id of it.

        Raises:
            ValueError: If the context must be cut and may not be, or the continuation is too long.
        """
        over = len(before) + len(after) - 1 - self.max_length
        if over <= 0:
            return before, after
        if not self.truncate or over >= len(before):
            raise ValueError(
                f"a request has {len(before) + len(after) - 1} tokens, {self.model.info.name} "
                f"reads {self.max_length}: ask for fewer examples before the question or for "
                "another task, or allow that a context loses its beginning (--truncate)."
            )
        self.counts.truncated += 1
        return before[over:], after

    def _scores(self, pairs: Sequence[Pair]) -> list[Score]:
        """The scores of pairs; what asks for the same forward pass shares it."""
        self.counts.requests += len(pairs)
        wanted: dict[tuple[int, ...], list[int]] = {}
        for index, (before, after) in enumerate(pairs):
            wanted.setdefault((*before, *after[:-1]), []).append(index)
        found: dict[int, Score] = {}
        done = 0
        for rows in self._batches(wanted):
            longest = max(len(pairs[index][1]) for row in rows for index in wanted[row])
            logits = self.logits(torch.tensor(rows))[:, -longest:].float()
            for row, log_probs in zip(rows, logits.log_softmax(-1).cpu(), strict=True):
                for index in wanted[row]:
                    found[index] = _score(log_probs, pairs[index][1])
            done += len(rows)
            if self.report is not None:
                self.report(done, len(wanted))
        return [found[index] for index in range(len(pairs))]

    def _batches(
        self, wanted: Mapping[tuple[int, ...], object]
    ) -> Iterator[Sequence[tuple[int, ...]]]:
        """Rows of the same length; the longest first, so that what needs most memory is tried."""
        for _, same in groupby(sorted(wanted, key=len, reverse=True), key=len):
            rows = list(same)
            for start in range(0, len(rows), self.batch_size):
                yield rows[start : start + self.batch_size]

    # --- Whole texts ----------------------------------------------------------------------------

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[float]:
        """The log-probability of whole texts, in nats.

        A text longer than the context is read in the harness's windows. They are disjoint, so each
        begins with one token of what came before; only the last is moved back to be full. The
        result depends on how long a window is.
        """
        del disable_tqdm
        windows: list[Pair] = []
        owners: list[int] = []
        for index, request in enumerate(requests):
            for window in self.windows(self.tok_encode(request.args[0])):
                windows.append(window)
                owners.append(index)
        totals = [0.0] * len(requests)
        for index, (score, _) in zip(owners, self._scores(windows), strict=True):
            totals[index] += score
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def windows(self, ids: list[int]) -> list[Pair]:
        """The windows of a text; together they predict each of its tokens once."""
        if self.prefix == "never":
            before, ids = (ids[0], ids[1:]) if ids else (0, [])
        else:
            before = self.prefix_token_id
        rolled = get_rolling_token_windows(ids, before, self.max_length, context_len=1)
        return [make_disjoint_window(window) for window in rolled]

    # --- Decoding -------------------------------------------------------------------------------

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """What the model writes after each context, greedily, up to a stop.

        Raises:
            ValueError: If a task wants to sample, or a context leaves no room for an answer.
        """
        del disable_tqdm
        plans = [self._plan(*request.args) for request in requests]
        found: list[str] = []
        for request, (ids, room, until) in zip(requests, plans, strict=True):
            found.append(self._written(ids, room, until))
            self.cache_hook.add_partial("generate_until", request.args, found[-1])
            if self.report is not None:
                self.report(len(found), len(plans))
        return found

    def _plan(self, context: str, how: Mapping[str, Any]) -> tuple[list[int], int, list[str]]:
        """The ids to go on from, for how many tokens, and at what to stop."""
        if how.get("do_sample") or how.get("temperature", 0.0):
            raise ValueError("a task wants to sample: here an answer is decoded greedily.")
        until = how.get("until") or []
        room = int(how.get("max_gen_toks", _NEW_TOKENS))
        ids = self.tok_encode(context)
        if self.prefix == "always" or not ids:
            ids = [self.prefix_token_id, *ids]
        room = min(room, self.max_length - 1)
        # As if the answer were a continuation that is scored.
        ids, _ = self._fitting(ids, [0] * (room + 1))
        return ids, room, [until] if isinstance(until, str) else list(until)

    def _written(self, ids: list[int], room: int, until: Sequence[str]) -> str:
        model: Any = self.model
        ended = self.tokenizer.eos_token_id
        with edited(model, self.edits, self.means):
            whole = model.generate(
                torch.tensor([ids], device=model.cfg.device),
                max_new_tokens=room,
                do_sample=False,
                stop_at_eos=ended is not None,
                stop_strings=list(until) or None,
                return_type="tokens",
                verbose=False,
            )
        new = whole[0, len(ids) :].tolist()
        text = decode(self.tokenizer, new[: new.index(ended)] if ended in new else new)
        return text[: min((at for stop in until if (at := text.find(stop)) >= 0), default=None)]


register_model("mudd-interp")(HookedLM)


def _score(log_probs: Float[Tensor, "pos d_vocab"], after: list[int]) -> Score:
    """The score of a continuation by the log-probabilities at its end."""
    rows, ids = log_probs[-len(after) :], torch.tensor(after)
    total = rows.gather(1, ids[:, None]).double().sum().item()
    return total, bool((rows.argmax(-1) == ids).all())


def _no_tokens(context: str, continuation: str) -> str:
    return (
        f"the continuation {continuation!r} has no token of its own after {context[-40:]!r}: the "
        "tokenizer joins it to the context, and there is nothing to score. Cut the text where a "
        "word ends."
    )


def _batch(given: int | str | None) -> int:
    """The rows of a pass.

    Raises:
        ValueError: If it is no number from one.
    """
    text = str(BATCH if given is None else given)
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"batch_size must be a whole number from 1, got {given!r}.")
    return int(text)


def _length(given: int | None, model: HookedModel) -> int:
    """How many tokens the model reads at once.

    Raises:
        ValueError: If it cannot read so many, or they are fewer than two.
    """
    longest = model.cfg.n_ctx
    if given is None:
        return longest
    if not 2 <= int(given) <= longest:
        raise ValueError(f"max_length must lie in 2..{longest} for this model, got {given}.")
    return int(given)


def _means(model: HookedModel, edits: Edits) -> Means | None:
    """The mean weights over the bundled text, if an edit needs them."""
    if not any(edit.action == "mean" for edit in as_edits(edits)):
        return None
    return dense_weights(model, corpus_of(Request(), model, [model]))
