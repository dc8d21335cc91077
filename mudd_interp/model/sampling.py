"""How the next token is drawn from logits."""

import math
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.utilities.logits_utils import sample_logits
from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

from mudd_interp.precision import wide

SINGLE = torch.finfo(torch.float32)
"""What is drawn from is float32 in the end, and so are the numbers that scale it."""


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn: the arguments of TransformerLens' ``sample_logits``, checked.

    Raises:
        ValueError: If one is no number or out of range, or both ``top_k`` and ``top_p`` are given.
    """

    # What came is looked at here, so anything may come.
    top_k: Any
    top_p: Any
    temperature: Any
    freq_penalty: Any
    repetition_penalty: Any

    def __post_init__(self):
        if self.top_k is not None:
            require(is_integer(self.top_k, 1), "top_k", "an integer from 1", self.top_k)
        if self.top_p is not None:
            valid = _is_number(self.top_p) and 0 < self.top_p <= 1
            require(valid, "top_p", "above 0 and at most 1", self.top_p)
        if self.top_k is not None and self.top_p is not None:
            raise ValueError("top_k and top_p exclude each other: give one of them.")
        for name in ("temperature", "freq_penalty"):
            number = getattr(self, name)
            require(_is_number(number) and number >= 0, name, "a finite number from 0", number)
        penalty = self.repetition_penalty
        valid = _is_number(penalty) and penalty > 0
        require(valid, "repetition_penalty", "finite and above 0", penalty)

    def greedy(self) -> "Sampling":
        """The same at temperature 0, which is how ``sample_logits`` is told to be greedy."""
        return replace(self, temperature=0.0)

    def draw(
        self, logits: Float[Tensor, "batch d_vocab"], tokens: Int[Tensor, "batch pos"]
    ) -> Int[Tensor, " batch"]:
        """The next token of each row of ``tokens``.

        Computed in at least float32, and with the largest logit of a row at 0: that changes no
        probability, and no temperature is so low that dividing by it loses the likeliest token.

        Raises:
            ValueError: If a row of logits holds NaN or plus infinity, or minus infinity only.
        """
        scores = self._penalised(wide(logits), tokens)
        top = scores.max(-1, keepdim=True).values
        if not torch.isfinite(top).all():
            row = int(torch.isfinite(top[:, 0]).logical_not().nonzero()[0, 0])
            raise ValueError(
                f"no token can be drawn for row {row}: its largest logit is {float(top[row, 0])}. "
                "Look for the weight or the hook that makes it, or run in float32."
            )
        return sample_logits(
            scores - top,
            tokens=tokens,
            top_k=self.top_k,
            top_p=None if self.top_p == 1 else self.top_p,
            temperature=_in_single(self.temperature) if self.temperature else 0.0,
            # Taken off once for each time a token occurred: the sum has to be finite.
            freq_penalty=min(float(self.freq_penalty), SINGLE.max / (2 * tokens.shape[1])),
        )

    def _penalised(
        self, scores: Float[Tensor, "batch d_vocab"], tokens: Int[Tensor, "batch pos"]
    ) -> Float[Tensor, "batch d_vocab"]:
        if self.repetition_penalty == 1:
            return scores
        penalty = RepetitionPenaltyLogitsProcessor(_in_single(self.repetition_penalty))
        penalised = penalty(tokens, scores)  # pyright: ignore[reportArgumentType]
        overflowed = penalised.isinf() & scores.isfinite()
        return torch.where(overflowed, penalised.clamp(-SINGLE.max, SINGLE.max), penalised)


def require(valid: bool, name: str, expected: str, value: object) -> None:
    """Refuse an argument that is not as expected."""
    if not valid:
        raise ValueError(f"{name} must be {expected}, got {value!r}.")


def is_integer(number: object, least: int) -> bool:
    """Whether it is a whole number from ``least``."""
    return isinstance(number, Integral) and int(number) >= least


def _is_number(number: object) -> bool:
    return isinstance(number, Real) and math.isfinite(number)


def _in_single(number: float) -> float:
    """A positive number, or the nearest that float32 holds without loss."""
    return min(max(float(number), SINGLE.tiny), SINGLE.max)
