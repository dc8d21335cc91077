"""Two models side by side: every result that a figure is drawn from, each computed once.

The command line, the dashboard, and anyone who wants the same numbers in Python go through this.
"""

import hashlib
import math
import os
from collections.abc import Callable, Generator, Iterable, Mapping, MutableMapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

import mudd_interp
from mudd_interp import axes
from mudd_interp.analysis import (
    Analysis,
    LossComparison,
    LossComparisonAnalysis,
    Progress,
    Provenance,
    Result,
    rank_and_world_size,
    sweep_over_ranks,
)
from mudd_interp.analysis.finite import finite_hooks
from mudd_interp.analysis.provenance import TokensSeen, model_name, provenance
from mudd_interp.checkpoints import load_model
from mudd_interp.data import Batches, one_batch, repeated_batches, take
from mudd_interp.files import place_of, sha256
from mudd_interp.images import ImageSet
from mudd_interp.pictures import image_name, image_of, image_set_of, reads_images
from mudd_interp.protocol import HookedModel, Inputs, Observer
from mudd_interp.request import ROLES, Request, Role, canonical
from mudd_interp.texts import (
    corpus_of,
    packing,
    prompt_of,
    text_digest,
    text_only,
    tokenizer_digest,
)

T = TypeVar("T")

PROMPT = "the prompt"
"""What a prompt that was given is called beside its numbers."""

Text = Literal["scope", "corpus", "repeated"]
"""What an analysis walks over: the text of the request's scope, the corpus whatever the scope, or
random tokens that repeat (:func:`mudd_interp.data.repeated_batches`)."""


@runtime_checkable
class Given(Protocol):
    """A dataclass that becomes an analysis once another result is there."""

    def given(self, result: Any) -> Analysis[Any]:
        """The analysis."""
        ...


@dataclass(frozen=True)
class Need:
    """A result that is wanted of one of the models.

    Attributes:
        role: The model.
        analysis: What to compute; with ``after``, an object whose ``given`` makes it.
        most: How many sequences at most, where the request does not say; ``None`` for all.
        text: What to compute it on.
        after: Another result, from which the analysis is made: ``analysis.given(result)``.
    """

    role: Role
    analysis: "Analysis[Any] | Given"
    most: int | None = None
    text: Text = "scope"
    after: "Need | None" = None


class Study:
    """A model and its baseline on the text of a request; results are computed on first use.

    Under ``torchrun`` each process takes its share of the corpus and all get the whole result.

    Args:
        request: What to look at.
        load: Makes a model from a name, as :func:`mudd_interp.load_model` does.
        kept: Where results are kept. A key is a sha256 over everything that changes the value, so
            one mapping can serve any number of studies; by default each has its own.
        progress: Called after each batch of a sweep with the sequences and tokens seen by this
            process, of both models together.
        lock: Held during every forward pass, and free between the batches of a sweep: studies in
            several threads may share models if they share it.
        states: A folder in which the sweeps keep what they have, each in a folder of its own, to
            resume from after an interruption.

    Raises:
        ValueError: If a model or the text cannot be had.
    """

    def __init__(
        self,
        request: Request,
        load: Callable[..., HookedModel] = load_model,
        kept: MutableMapping[str, Any] | None = None,
        progress: Progress | None = None,
        lock: AbstractContextManager[Any] | None = None,
        states: str | os.PathLike[str] | None = None,
    ):
        join_process_group()
        self.request = request
        self.models: dict[Role, HookedModel] = {
            role: load(name, device=_device(request.device), dtype=request.dtype)
            for role in ROLES
            if (name := getattr(request, role)) is not None
        }
        self._require_same_kind()
        self.swept: dict[Role, dict[str, Result]] = {role: {} for role in self.models}
        self._kept: MutableMapping[str, Any] = {} if kept is None else kept
        self._counter = _Counter(progress)
        self._lock = nullcontext() if lock is None else lock
        self._states = None if states is None else place_of(states)
        self._read: dict[tuple[Role, Request], str] = {}
        self._prompts: dict[Role, Inputs] = {}
        self.used: dict[Role, list[Provenance]] = {role: [] for role in self.models}

    def _require_same_kind(self) -> None:
        """Refuse a model of images beside one of text.

        Raises:
            ValueError: With both names.
        """
        kinds = {reads_images(model): model.info.name for model in self.models.values()}
        if len(kinds) > 1:
            raise ValueError(
                f"{kinds[True]} reads images and {kinds[False]} reads text, so no input is for "
                "both: name a baseline that reads the same, or none."
            )

    @property
    def roles(self) -> tuple[Role, ...]:
        """Which models there are: ``model``, and ``baseline`` unless there is none."""
        return tuple(self.models)

    def with_request(self, request: Request) -> "Study":
        """The same models and results, looked at by another request.

        What is computed for either is in the records of both: :attr:`swept` and :attr:`used`.
        """
        study = copy(self)
        study.request, study._prompts = request, {}
        return study

    def name(self, role: Role) -> str:
        """What one of the models is called in figures and tables."""
        return model_name(self.models[role])

    def prepare(self, needs: Iterable[Need]) -> None:
        """Compute the results that are not there yet, with one walk for each model and text."""
        wanted = {self.key(need): need for need in needs}
        for walked in self.walks(wanted.values()):
            self._walk(walked)
        for key, need in wanted.items():
            self._note(need.role, self._kept[key])

    def walks(self, needs: Iterable[Need]) -> list[dict[str, Need]]:
        """The walks that :meth:`prepare` would make: what each of them computes, by its key."""
        every = [each for need in needs for each in (need.after, need) if each is not None]
        missing = {key: need for need in every if (key := self.key(need)) not in self._kept}
        walks: dict[Any, dict[str, Need]] = {}
        for key, need in missing.items():
            one = need.after is not None, need.role, self._limit(need), need.text
            walks.setdefault(one, {})[key] = need
        return [
            walks[one] for one in sorted(walks, key=lambda one: one[0])
        ]  # first those that others come after

    def _walk(self, missing: Mapping[str, Need]) -> None:
        """Compute what one walk gives, each process its share."""
        need = next(iter(missing.values()))
        found = sweep_over_ranks(
            self.models[need.role],
            self.walked(need),
            [self._analysis(each) for each in missing.values()],
            self._counter.next(),
            self._lock,
            self._state(missing),
        )
        self._kept.update(zip(missing, found, strict=True))

    def _analysis(self, need: Need) -> Analysis[Any]:
        if isinstance(need.analysis, Analysis) and need.after is None:
            return need.analysis
        assert isinstance(need.analysis, Given)
        assert need.after is not None
        return need.analysis.given(self._kept[self.key(need.after)])

    def _limit(self, need: Need) -> int | None:
        return need.most if self.request.sequences is None else None

    def at_most(self, need: Need) -> int | None:
        """How many sequences a need's walk takes at most; ``None`` where that is not known."""
        counts = (self.walked(need).n_sequences, self._limit(need), self.request.sequences)
        return min((count for count in counts if count is not None), default=None)

    def walked(self, need: Need) -> Batches:
        """The tokens that a need's walk goes over."""
        model = self.models[need.role]
        if need.text == "repeated":
            return repeated_batches(model)
        batches = self.batches(need.role) if need.text == "scope" else self._corpus(need.role)
        limit = self._limit(need)
        return batches if limit is None else take(batches, limit)

    def _state(self, keys: Iterable[str]) -> Path | None:
        """Where a sweep for these results keeps what it has."""
        if self._states is None:
            return None
        return self._states / sha256("".join(keys).encode())[:16]

    def result(self, role: Role, analysis: Analysis[Any], **how: Any) -> Any:
        """The result of an analysis of one of the models; ``how`` are fields of :class:`Need`."""
        return self.of(Need(role, analysis, **how))

    def of(self, need: Need) -> Any:
        """The result that is wanted."""
        self.prepare([need])
        return self._kept[self.key(need)]

    def of_prompt(self, role: Role, compute: Callable[..., T], **options: Any) -> T:
        """``compute(model, tokens, **options)`` on the prompt, kept under the function's name."""
        tokens, name = self.prompt(role), self.prompt_name(role)

        def of_named(model: HookedModel) -> T:
            found: Any = compute(model, tokens, **options)
            source = getattr(found, "provenance", None)
            if source is None or source.data != (PROMPT,):
                return found
            return replace(found, provenance=replace(source, data=(name,)))

        plain = {option: self._plain(value) for option, value in options.items()}
        values = {"prompt": self._contents(role), "name": name, "options": plain}
        key = self._key(role, f"{compute.__module__}.{compute.__qualname__}", values)
        if key not in self._kept:
            with self._lock:
                self._kept[key] = of_named(self.models[role])
        found = self._kept[key]
        self.used[role].append(getattr(found, "provenance", None) or self.prompt_provenance(role))
        return found

    def comparison(self) -> Need:
        """The losses of both models on the corpus, compared.

        Raises:
            ValueError: If there is no baseline.
        """
        if "baseline" not in self.models:
            raise ValueError("a comparison of losses needs a baseline: name one.")
        return Need("model", LossComparisonAnalysis(self.models["baseline"]), text="corpus")

    def key(self, need: Need) -> str:
        """The key of a result: a sha256."""
        options: Any = fields(need.analysis)  # pyright: ignore[reportArgumentType]  (a dataclass)
        values = {each.name: self._plain(getattr(need.analysis, each.name)) for each in options}
        what: list[Any] = [values, self._text_key(need)]
        if (limit := self._limit(need)) is not None:
            what.append({"most": limit})
        if need.after is not None:
            what.append({"after": self.key(need.after)})
        return self._key(need.role, type(need.analysis).__name__, what)

    def _plain(self, value: Any) -> Any:
        """An option as it enters a key: a model by its identity, a result by its provenance."""
        if isinstance(value, HookedModel):
            return _identity(value)
        return value.provenance.to_dict() if isinstance(value, Result) else value

    def found(self, keys: Iterable[str]) -> dict[str, Any]:
        """The results that are there already, of some keys."""
        return {key: self._kept[key] for key in keys if key in self._kept}

    def batches(self, role: Role) -> Batches:
        """The text that averages are over."""
        if self.request.scope == "prompt":
            return one_batch(self.prompt(role), self.prompt_name(role))
        return self._corpus(role)

    def _corpus(self, role: Role) -> Batches:
        return corpus_of(self.request, self.models[role], list(self.models.values()))

    def prompt(self, role: Role) -> Inputs:
        """The prompt in the tokens of one of the models, or the image, where they read images."""
        if role not in self._prompts:
            models = list(self.models.values())
            if self.prompt_name(role) != PROMPT:
                self._corpus_key(role)  # takes note of the text as it is now
            self._prompts[role] = prompt_of(self.request, self.models[role], models)
        return self._prompts[role]

    def _contents(self, role: Role) -> Any:
        """The prompt as it enters a key."""
        prompt = self.prompt(role)
        if not reads_images(self.models[role]):
            return prompt.tolist()
        return [sha256(content) for content in self.models[role].front.contents(prompt)]

    def prompt_name(self, role: Role) -> str:
        """What the prompt is, in words: the beginning of the text, if none was given."""
        if reads_images(self.models[role]):
            return image_name(self.request, self.models[role])
        if self.request.prompt is not None or self.request.prompt_ids is not None:
            return PROMPT
        return f"the first tokens of {self._corpus(role).description}"

    def picture(self, role: Role) -> ImageSet:
        """The image that is looked at, as a set of one, with its label where that is known.

        Raises:
            ValueError: If the model reads no images.
        """
        return image_of(self.request, self.models[role])[1]

    def position(self, role: Role) -> int:
        """The token of the prompt, or the patch of the image, that is looked at.

        If none is asked for it is the last token, or the patch in the middle.

        Raises:
            ValueError: If the prompt is shorter.
        """
        front, wanted = self.models[role].front, self.request.position
        length = front.positions(self.prompt(role))
        side = math.isqrt(length)  # of a square of patches, which are the last positions
        middle = length - side**2 + side // 2 * (side + 1)
        usual = middle if reads_images(self.models[role]) else length - 1
        position = usual if wanted is None else wanted
        if not 0 <= position < length:
            what = "image" if reads_images(self.models[role]) else "prompt"
            raise ValueError(f"position must lie in 0..{length - 1} of this {what}, got {wanted}.")
        return position

    def layer(self, role: Role) -> int:
        """The layer that is looked at.

        Raises:
            ValueError: If the model has no such layer.
        """
        return self._layer(role, self.models[role].cfg.n_layers)

    def row(self, role: Role) -> int:
        """The same of a model's table of weights, which may have a row for each sublayer.

        Raises:
            ValueError: If the table has no such row.
        """
        return self._layer(role, self.models[role].wiring.n_rows)

    def _layer(self, role: Role, n_layers: int) -> int:
        wanted = self.request.layer
        if wanted is None:
            return min(n_layers - 1, round(n_layers * 25 / 32))
        if not 0 <= wanted < n_layers:
            name = self.name(role)
            raise ValueError(f"layer must lie in 0..{n_layers - 1} for {name}, got {wanted}.")
        return wanted

    def block(self, role: Role) -> int:
        """The block that reads the stream in question; behind the last one, the final norm.

        Raises:
            ValueError: If the model has no such block.
        """
        named = "layer" if self.request.block is None else "block"
        wanted: int | None = getattr(self.request, named)
        if wanted is None:
            return self.layer(role)
        last = self.models[role].cfg.n_layers
        if not 0 <= wanted <= last:
            what = f"{self.name(role)} ({last} is the final norm)"
            raise ValueError(f"{named} must lie in 0..{last} for {what}, got {wanted}.")
        return wanted

    def head(self, role: Role) -> int:
        """The head that is looked at.

        Raises:
            ValueError: If the model has no such head.
        """
        n_heads, wanted = self.models[role].cfg.n_heads, self.request.head
        if not 0 <= wanted < n_heads:
            name = self.name(role)
            raise ValueError(f"head must lie in 0..{n_heads - 1} for {name}, got {wanted}.")
        return wanted

    def pattern(self, role: Role) -> Float[Tensor, "head query key"]:
        """The attention patterns of that layer on the prompt."""
        return self.of_prompt(role, attention_pattern, layer=self.layer(role))

    def token_texts(self, role: Role) -> tuple[str, ...]:
        """The text of each token of the prompt."""
        return self.models[role].front.labels(self.prompt(role)[0])

    def provenance(self, role: Role) -> Provenance:
        """What one model's numbers come from: of several texts, the one with the most sequences.

        If nothing has been computed yet, that is the prompt.
        """
        used = self.used[role]
        if used:
            return max(used, key=lambda source: source.sequences)
        return self.prompt_provenance(role)

    def prompt_provenance(self, role: Role) -> Provenance:
        """What one model's numbers on the prompt, or on the image, come from."""
        seen = TokensSeen(self.models[role].front)
        seen.add(self.prompt(role))
        return provenance(self.models[role], self.prompt_name(role), seen, {})

    def _note(self, role: Role, found: Result) -> None:
        """Remember what was asked for: a manifest says on what it was computed, and how."""
        self.swept[role][type(found).__name__] = found
        self.used[role].append(found.provenance)
        if isinstance(found, LossComparison):
            self.used["baseline"].append(found.baseline_provenance)

    @contextmanager
    def noting(self) -> Generator[dict[Role, list[Provenance]]]:
        """What is asked for in a block, by model: what each result was computed on, once."""
        before = {role: len(used) for role, used in self.used.items()}
        noted: dict[Role, list[Provenance]] = {}
        yield noted
        for role, used in self.used.items():
            texts = {canonical(source.text): source for source in used[before[role] :]}
            if texts:
                noted[role] = list(texts.values())

    def reads_text(self) -> bool:
        """Whether anything has been computed on the text that the request names."""
        return bool(self._read)

    def require_same_text(self) -> None:
        """Refuse to name a text that is not the one that was read.

        Raises:
            ValueError: If a text file has changed since.
        """
        for (role, request), key in self._read.items():
            if key != self._text_of(role, request):
                raise ValueError(
                    f"{request.text} has changed while it was read: the results are not of one and "
                    "the same text. Run it again."
                )

    def _text_key(self, need: Need) -> dict[str, Any]:
        """What a walk goes over."""
        role = need.role
        if need.text == "repeated":
            return {"repeated": tokenizer_digest(self.models[role].tokenizer)}
        if need.text == "scope" and self.request.scope == "prompt":
            return {"prompt": self._contents(role), "name": self.prompt_name(role)}
        return {"corpus": self._corpus_key(role)}

    def _corpus_key(self, role: Role) -> str:
        request = text_only(self.request)
        if (role, request) not in self._read:
            self._read[role, request] = self._text_of(role, request)
        return self._read[role, request]

    def _text_of(self, role: Role, request: Request) -> str:
        if reads_images(self.models[role]):
            return canonical(
                [text_digest(request), image_set_of(request, self.models[role]).digest]
            )
        n_ctx = packing(request, list(self.models.values())).n_ctx
        reader = tokenizer_digest(self.models[role].tokenizer)
        return canonical([text_digest(request), n_ctx, reader])

    def _key(self, role: Role, what: str, values: Any) -> str:
        """sha256 over everything that changes a value."""
        identity, where = _identity(self.models[role])
        return hashlib.sha256(canonical([what, identity, where, values]).encode()).hexdigest()


def _identity(model: HookedModel) -> tuple[list[Any], list[str]]:
    """What a model is, and where and how it runs."""
    identity = [model.info.name, model.info.revision, model.info.digest or id(model)]
    return identity, [str(model.cfg.device), str(model.cfg.dtype), mudd_interp.__version__]


class _Counter:
    """Adds up the progress of one sweep after another."""

    def __init__(self, progress: Progress | None):
        self._progress, self._before, self._last = progress, (0, 0), (0, 0)

    def next(self) -> Progress:
        """The progress function of the next sweep."""
        self._before = self._last

        def report(sequences: int, tokens: int) -> None:
            self._last = (self._before[0] + sequences, self._before[1] + tokens)
            if self._progress is not None:
                self._progress(*self._last)

        return report


def join_process_group() -> None:
    """Start the process group that ``torchrun`` prepared, once; otherwise do nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and rank_and_world_size() == (0, 1):
        dist.init_process_group("gloo")


def _device(name: str | None) -> str | None:
    """The device that a name means; under ``torchrun`` each process has its own CUDA device."""
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        return f"cuda:{os.environ['LOCAL_RANK']}"
    return name


def attention_pattern(
    model: HookedModel, tokens: Inputs, layer: int
) -> Float[Tensor, "head query key"]:
    """The attention probabilities of all heads of a layer; rows sum to one."""
    name = axes.pattern(layer)
    kept: list[Tensor] = []
    look = Observer(lambda pattern, _: kept.append(pattern[0].cpu()))
    with torch.no_grad(), model.hooks([*finite_hooks(model), (name, look)]):
        model(tokens, return_type=None)
    return kept[0]
