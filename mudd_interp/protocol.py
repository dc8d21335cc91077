"""What an analysis may ask of a model.

:class:`HookedModel` is the whole contract between the analyses and the models. Both
``HookedMUDDTransformer`` and a wrapped TransformerBridge baseline satisfy it, so that one piece
of analysis code serves both: a plain Transformer is a MUDD model whose weights are one-hot on the
newest source.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from mudd_interp import wiring
from mudd_interp.axes import Stream, pattern
from mudd_interp.wiring import Hook as Hook
from mudd_interp.wiring import Observer as Observer
from mudd_interp.wiring import Wiring

NOT_TRIED = "forward pass: not tried"
"""What :attr:`ModelInfo.checks` says where nothing was run."""


NamesFilter = str | Sequence[str] | Callable[[str], bool] | None
"""Which hooks are meant: a name, names, a predicate on names, or ``None`` for all of them."""


Inputs = Shaped[Tensor, "batch *rest"]
"""A batch of what a model reads: token ids ``[batch pos]``, or what else its front takes."""

Trait = wiring.Trait | Literal["tokens", "next_token", "causal", "images", "classes", "patterns"]
"""What not every model is: what not every wiring is; it reads tokens, it predicts the next one, it
sees no later position; it reads images, it tells classes. A model does not list ``patterns``: it
lacks them if their hooks are ``absent``.
"""

DECODER: frozenset[Trait] = frozenset({"tokens", "next_token", "causal"})
"""What a decoder of text is."""

LACKS: Mapping[Trait, str] = {
    "tokens": "it reads no tokens",
    "next_token": "it does not predict the next token",
    "causal": "its positions see later ones",
    "states": "it keeps no states X_j: its sublayers read what others wrote one by one, and "
    "read_weights says how much of it",
    "numbers": "with PrePostDANorm a norm stands between writes and reads, so that each weight is "
    "a vector over d_model and not a number (cache.path_coefficients gives them)",
    "moving": "no token changes its weights: frozen and live are the same",
    "streams": "it has no hyper-connections",
    "mixing": "it mixes no streams",
    "images": "it reads no images",
    "classes": "it tells no classes",
    "patterns": "it has no attention patterns, whose rows sum to one: a learned sink takes a "
    "share, or its code does not show them",
}
"""Why something is not for a model, by the trait that the model has not."""


@dataclass(frozen=True)
class ModelInfo:
    """Where a model comes from: part of the provenance of every result.

    Attributes:
        name: The name or path that the model was loaded by.
        revision: The hub revision, or ``None`` for local and bundled models.
        digest: sha256 over configuration and weights, hexadecimal; ``None`` for random weights.
        checks: What was checked when the model was loaded, each with its outcome in words.
    """

    name: str
    revision: str | None = None
    digest: str | None = None
    checks: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready copy."""
        return asdict(self)


@runtime_checkable
class ModelShape(Protocol):
    """The part of ``model.cfg`` that analyses read (TransformerLens' names)."""

    @property
    def n_layers(self) -> int:
        """How many blocks there are."""
        ...

    @property
    def n_heads(self) -> int:
        """How many heads (of queries) a block has."""
        ...

    @property
    def d_model(self) -> int:
        """Width of a stream."""
        ...

    @property
    def d_head(self) -> int:
        """Width of a head."""
        ...

    @property
    def d_vocab(self) -> int:
        """How many tokens the vocabulary has."""
        ...

    @property
    def n_ctx(self) -> int:
        """The longest text, in tokens."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the weights."""
        ...


@runtime_checkable
class Front(Protocol):
    """What turns a batch into X_0, and says what stands at each position.

    A front reads one kind of input (token ids, images, ...); whatever is behind it reads streams.
    """

    @property
    def traits(self) -> frozenset[Trait]:
        """``tokens``, where it reads them."""
        ...

    def batch(self, given: Any) -> Inputs:
        """A batch, of whatever form it comes in.

        Raises:
            ValueError: If it is none, with what was expected and what came.
        """
        ...

    def one(self, given: Any) -> Inputs:
        """One input, with or without an axis for the batch, as a batch of one.

        Raises:
            ValueError: If it is anything else.
        """
        ...

    def example(self) -> Inputs:
        """Some input, the same at every call, as a batch of one: to try a model with."""
        ...

    def refuse_padding(self, batch: Inputs) -> None:
        """Refuse a batch in which there are positions that do not count.

        Raises:
            ValueError: With what to do.
        """
        ...

    @property
    def embed(self) -> Callable[..., Any]:
        """From a batch to X_0, ``[batch pos d_model]``; of a model of ours a module."""
        ...

    def positions(self, batch: Inputs) -> int:
        """How many positions each input of a batch has."""
        ...

    def labels(self, row: Shaped[Tensor, "*rest"]) -> tuple[str, ...]:
        """What stands at each position of one input, which has no axis for the batch."""
        ...

    def ids(self, row: Shaped[Tensor, "*rest"]) -> Int64[Tensor, " pos"]:
        """The token at each position of one input; without tokens the positions' numbers."""
        ...

    def contents(self, batch: Inputs) -> Sequence[bytes]:
        """What tells each input of a batch from others: a digest of what was seen is over them."""
        ...


@runtime_checkable
class PatchFront(Front, Protocol):
    """A front that cuts square images into a square of patches: a position for each, row by row."""

    @property
    def n_prefix(self) -> int:
        """How many positions, such as a class token, stand before the patches."""
        ...

    @property
    def side(self) -> int:
        """How many patches stand beside each other, and how many below each other."""
        ...

    def pixels(self, batch: Inputs) -> Float[Tensor, "batch pos channel pixel"]:
        """The pixels of each patch."""
        ...


@runtime_checkable
class HookedModel(Protocol):
    """A Transformer with hooks, described by ``W[stream, destination, source, token]``."""

    @property
    def cfg(self) -> ModelShape:
        """The shape of the model."""
        ...

    @property
    def info(self) -> ModelInfo:
        """Name, revision and digest of the model."""
        ...

    @property
    def tokenizer(self) -> Any:
        """A Hugging Face tokenizer, or ``None``: then the model works on token ids only."""
        ...

    @property
    def front(self) -> Front:
        """What it reads."""
        ...

    @property
    def traits(self) -> frozenset[Trait]:
        """What it is, of what not every model is."""
        ...

    @property
    def hook_dict(self) -> Mapping[str, Any]:
        """Every hook point by name."""
        ...

    @property
    def wiring(self) -> Wiring:
        """How much of each earlier write each of its reads takes."""
        ...

    def hooks(
        self, fwd_hooks: Sequence[Hook] = (), bwd_hooks: Sequence[Hook] = ()
    ) -> AbstractContextManager[Any]:
        """Hooks for the length of a ``with`` block; gone afterwards, whatever happens inside."""
        ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """A forward pass: ``model(batch, return_type="logits" | "loss" | "both" | None)``.

        With ``stop_at_layer=l`` it ends before block ``l``; the hooks of earlier blocks have fired.
        """
        ...


@runtime_checkable
class ResumableModel(Protocol):
    """A model that may go on from the outputs of its first blocks."""

    @property
    def resumes(self) -> bool:
        """Whether it can."""
        ...

    def logits_from(
        self, outputs: Sequence[Float[Tensor, "batch pos d_model"]]
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Logits from X_0..X_l on; the last aggregation before is made anew, with its hooks."""
        ...


@runtime_checkable
class CachedModel(HookedModel, Protocol):
    """A model whose streams can be divided among its components.

    Its cache has the methods of ``MUDDActivationCache``.
    """

    def run_with_cache(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """The output of a forward pass and the cache of the hooked activations."""
        ...

    @property
    def blocks(self) -> Any:
        """The blocks, with ``attn.W_Q``, ``W_K``, ``W_V`` and ``W_O``."""
        ...

    def norm_gain(self, layer: int, stream: Stream) -> Float[Tensor, " d_model"]:
        """The gain of the norm that a block puts a stream through."""
        ...


@runtime_checkable
class DecomposableModel(CachedModel, Protocol):
    """A model whose logits can be divided among its components, too."""

    def to_single_token(self, string: str) -> int:
        """The id of a text that is one token."""
        ...

    def tokens_to_residual_directions(self, tokens: object) -> Float[Tensor, "..."]:
        """The directions of the final stream that raise tokens' logits, the norm's gain in them."""
        ...

    def logit_constant(self, tokens: object) -> Float[Tensor, "..."]:
        """The part of tokens' logits that no component wrote."""
        ...

    def decode_stream(
        self, x: Float[Tensor, "batch pos d_model"]
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Logits of any stream, through the final norm and the unembedding."""
        ...


@runtime_checkable
class ClassModel(DecomposableModel, Protocol):
    """A decomposable model whose logits are of classes."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the classes are called, by number."""
        ...


def resumable(model: HookedModel) -> ResumableModel | None:
    """A model that can go on from the states that its first blocks left; else ``None``."""
    return model if isinstance(model, ResumableModel) and model.resumes else None


def why_not(model: HookedModel, required: Collection[Trait]) -> str | None:
    """Why something that requires traits is not for a model; ``None`` where it is.

    Returns:
        A part of a sentence: ``not for M, because it reads no tokens``.
    """
    for trait, reason in LACKS.items():
        if trait in required and not _has(model, trait):
            return f"not for {model.info.name}, because {reason}"
    return None


def _has(model: HookedModel, trait: Trait) -> bool:
    if trait != "patterns":
        return trait in model.traits
    absent = getattr(model, "absent", {})  # of a wrapped model: hooks that it has not
    return not any(pattern(layer) in absent for layer in range(model.cfg.n_layers))


def require_traits(model: HookedModel, what: str, required: Collection[Trait]) -> None:
    """Refuse what is not for a model.

    Args:
        model: The model.
        what: What is refused, the subject of the sentence.
        required: The traits that it requires.

    Raises:
        ValueError: With the reason.
    """
    reason = why_not(model, required)
    if reason is not None:
        raise ValueError(f"{what} is {reason}.")
