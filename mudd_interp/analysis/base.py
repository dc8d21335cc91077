"""What the walk over a corpus asks of an analysis."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from jaxtyping import Float64
from torch import Tensor

from mudd_interp.analysis.predictions import as_float64, token_losses
from mudd_interp.analysis.provenance import Provenance
from mudd_interp.analysis.result import Result
from mudd_interp.protocol import Hook, HookedModel, Inputs, Trait

R_co = TypeVar("R_co", bound=Result, covariant=True)


@dataclass(frozen=True, eq=False)
class Tape:
    """What is there of a batch when the pass that all analyses share is over.

    Attributes:
        tokens: The batch: token ids ``[batch pos]``, or what else the model reads.
        first: Number of its first sequence, among all that this process sees.
        logits: Of that pass, if an analysis asked for them.
    """

    tokens: Inputs
    first: int
    logits: Tensor | None

    @cached_property
    def losses(self) -> Float64[np.ndarray, "batch predicted"]:
        """-log p of every token but the first of each sequence, in nats."""
        assert self.logits is not None, "an accumulator that reads losses asks for logits"
        return as_float64(token_losses(self.logits, self.tokens))


class Accumulator(ABC, Generic[R_co]):
    """Running sums over the batches of a corpus.

    All that an analysis needs of a batch is said here, and an analysis overrides what it needs:
    hooks on the pass that all share, its logits or losses, and passes of its own.

    Nothing grows with the corpus but what is kept of each sequence: a tensor is consumed when its
    hook fires, or at the latest when its batch is over. Sums are float64 on the CPU.
    """

    options: Mapping[str, Any] = {}
    """The options as they apply to the model, JSON-ready: they go into the provenance."""

    shared: ClassVar[bool] = True
    """Whether it reads the pass that all share; where nobody does, there is none."""

    logits: ClassVar[bool] = False
    """Whether :attr:`Tape.logits` are asked for."""

    def hooks(self) -> list[Hook]:
        """Hooks on the shared pass, that observe and change nothing."""
        return []

    def begin(self, tokens: Any) -> None:
        """Say what the shared pass is about to see: a batch, as in :class:`Tape`."""

    def see(self, tape: Tape) -> None:
        """Take in a batch after the shared pass, before another thread has the model."""

    def steps(self, tape: Tape) -> Iterable[Callable[[], object]]:  # noqa: ARG002 (a subclass reads it)
        """What is left to do with a batch, such as passes of one's own.

        Each step is run under the lock, without gradients, and the lock is free in between.
        """
        return ()

    @abstractmethod
    def finish(self, provenance: Provenance) -> R_co:
        """The result of all batches so far."""


class Analysis(ABC, Generic[R_co]):
    """An analysis with its options: a frozen dataclass that can be started on any model."""

    name: ClassVar[str]
    """The name of the function that computes it with the same options."""

    result: ClassVar[type[Result]]
    """What it finds."""

    named: ClassVar[dict[str, type["Analysis[Any]"]]] = {}
    """Every analysis by its name."""

    requires: ClassVar[frozenset[Trait]] = frozenset()
    """What it requires of a model, of what not every model is."""

    chunk: ClassVar[int] = 32
    """Batches after which a walk that can be interrupted writes down what it has."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in vars(cls):
            Analysis.named[cls.name] = cls

    @property
    def required(self) -> frozenset[Trait]:
        """The same with these options."""
        return self.requires

    @abstractmethod
    def start(self, model: HookedModel) -> Accumulator[R_co]:
        """Empty sums for one model.

        Raises:
            ValueError: If the options do not suit the model.
        """
