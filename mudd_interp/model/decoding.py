"""What a call of ``generate`` asks for, checked before anything runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.generation.stopping_criteria import (
    StoppingCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
)

from mudd_interp.axes import unknown_name
from mudd_interp.model.tokens import NEVER_PADDED, check_tokens, is_text, refused

REFUSED = {
    "padding_side": NEVER_PADDED,
    "attention_mask": f"{NEVER_PADDED}, so every token of a prompt counts",
    "pixel_values": "the models read text only",
    "forced_bos_token_id": "it is for encoder-decoder models",
}
"""Arguments of ``TransformerBridge.generate`` that mean nothing here, each with the reason."""


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn: the arguments of TransformerLens' ``sample_logits``, checked.

    Raises:
        ValueError: If a number is out of range, or both ``top_k`` and ``top_p`` are given.
    """

    top_k: int | None
    top_p: float | None
    temperature: float
    freq_penalty: float
    repetition_penalty: float

    def __post_init__(self):
        if self.top_k is not None:
            _require(_is_integer(self.top_k, 1), "top_k", "an integer from 1", self.top_k)
        if self.top_p is not None:
            _require(0 < self.top_p <= 1, "top_p", "above 0 and at most 1", self.top_p)
        if self.top_k is not None and self.top_p is not None:
            raise ValueError("top_k and top_p exclude each other: give one of them.")
        for name in ("temperature", "freq_penalty"):
            number = getattr(self, name)
            _require(0 <= number < math.inf, name, "a finite number from 0", number)
        penalty = self.repetition_penalty
        _require(0 < penalty < math.inf, "repetition_penalty", "finite and above 0", penalty)

    def greedy(self) -> "Sampling":
        """The same at temperature 0, which is how ``sample_logits`` is told to be greedy."""
        return replace(self, temperature=0.0)


@dataclass(frozen=True)
class Decoding:
    """How to go on from a prompt.

    Attributes:
        max_new_tokens: How many tokens to add at most; at least 1.
        eos: The token that ends a row; ``None`` if no token does.
        fill: What a row that has ended is filled up with.
        criteria: What else ends a row, by Hugging Face's interface.
        sampling: How each token is drawn.
        use_past_kv_cache: Keep keys and values instead of running the whole prefix again.
        verbose: Show a progress bar.
        keep_logits: Return the logits of each step.
    """

    max_new_tokens: int
    eos: int | None
    fill: int
    criteria: StoppingCriteriaList
    sampling: Sampling
    use_past_kv_cache: bool
    verbose: bool
    keep_logits: bool

    def ended(
        self, tokens: Int[Tensor, "batch pos"], logits: Float[Tensor, "batch d_vocab"]
    ) -> Bool[Tensor, " batch"]:
        """Which rows end with their newest token, which was drawn from these logits."""
        ended = self.criteria(tokens, logits)  # pyright: ignore[reportArgumentType]
        if ended.shape != tokens.shape[:1]:
            raise ValueError(
                f"a stopping criterion must return one bool for each of the {len(tokens)} rows; "
                f"together they have shape {list(ended.shape)}."
            )
        return ended if self.eos is None else ended | (tokens[:, -1] == self.eos)


def refuse(**given: Any) -> None:
    """Refuse arguments that mean nothing here, and those that do not exist.

    Raises:
        ValueError: If one is given, with the reason or the nearest name.
    """
    for name, value in given.items():
        if name not in REFUSED:
            known = ("max_new_tokens", "do_sample", "temperature", "return_type", *REFUSED)
            raise ValueError(f"generate: {unknown_name('argument', name, known)}")
        if value is not None:
            raise refused("generate", name, REFUSED[name])


def check_room(model: Any, tokens: Int[Tensor, "batch pos"], max_new_tokens: int) -> None:
    """Refuse a prompt that cannot be read, or to which so many tokens cannot be added.

    Raises:
        ValueError: See :func:`check_tokens`; or if the new tokens do not fit the context.
    """
    _require(_is_integer(max_new_tokens, 0), "max_new_tokens", "an integer from 0", max_new_tokens)
    check_tokens(tokens, 0, model.cfg.n_ctx, model.cfg.d_vocab)
    room = model.cfg.n_ctx - tokens.shape[1]
    if max_new_tokens > room:
        raise ValueError(
            f"{tokens.shape[1]} tokens of prompt and {max_new_tokens} new ones do not fit the "
            f"context of {model.cfg.n_ctx}: ask for at most {room}."
        )


def wants_text(given: Any, return_type: str | None) -> bool:
    """Whether text is to be returned for an input.

    Raises:
        ValueError: If the return type does not exist.
    """
    if return_type not in ("input", "str", "tokens", None):
        raise ValueError(
            f"return_type must be 'input', 'str', 'tokens' or None, got {return_type!r}."
        )
    return return_type == "str" or (return_type == "input" and is_text(given))


def end_of_text(model: Any, given: int | None) -> int:
    """The token that ends a row: the given one, or the tokenizer's.

    Raises:
        ValueError: If there is neither, or the given one is outside the vocabulary.
    """
    eos = given if given is not None else getattr(model.tokenizer, "eos_token_id", None)
    if eos is None:
        raise ValueError(
            "stop_at_eos needs an end-of-text token, and the model has no tokenizer that knows "
            "one: give eos_token_id, or stop_at_eos=False."
        )
    return _id(model, "eos_token_id", eos)


def stopping(
    model: Any, stop_strings: str | Sequence[str] | None, criteria: Any
) -> StoppingCriteriaList:
    """What ends a row besides its end-of-text token.

    Raises:
        ValueError: If there are stop strings and no tokenizer, or something else than criteria.
    """
    given = [criteria] if isinstance(criteria, StoppingCriteria) else criteria or []
    if not isinstance(given, list | tuple) or not all(map(callable, given)):
        raise ValueError(
            "stopping_criteria must be one of transformers' StoppingCriteria or a list of them, "
            f"got {criteria!r}."
        )
    strings = [stop_strings] if isinstance(stop_strings, str) else stop_strings or []
    wanted = [string for string in strings if string]
    found = StoppingCriteriaList(given)
    if wanted:
        if model.tokenizer is None:
            raise ValueError(
                "stop_strings needs the vocabulary of a tokenizer, and the model has none: give "
                "stopping_criteria, which see token ids."
            )
        found.append(StopStringCriteria(model.tokenizer, wanted))
    return found


def fill_token(model: Any, eos: int | None, rows: int) -> int:
    """What a row that has ended is filled up with, while others go on.

    Its end-of-text token if it stops at one, else the tokenizer's padding or end-of-text token.

    Raises:
        ValueError: If there are several rows and none of these tokens, or one outside the
            vocabulary.
    """
    names = ("pad_token_id", "eos_token_id")
    candidates = (eos, *(getattr(model.tokenizer, name, None) for name in names))
    fill = next((token for token in candidates if token is not None), None)
    if fill is None and rows > 1:
        raise ValueError(
            "rows that end early are filled up with a padding token, and the model has no "
            "tokenizer that knows one: give eos_token_id and stop_at_eos=True, or one row only."
        )
    return 0 if fill is None else _id(model, "the padding token", fill)


def _id(model: Any, name: str, token: int) -> int:
    valid = _is_integer(token, 0) and token < model.cfg.d_vocab
    _require(valid, name, f"an id of the vocabulary, 0 to {model.cfg.d_vocab - 1}", token)
    return token


def _is_integer(number: Any, least: int) -> bool:
    return isinstance(number, Integral) and int(number) >= least


def _require(valid: bool, name: str, expected: str, value: Any) -> None:
    if not valid:
        raise ValueError(f"{name} must be {expected}, got {value!r}.")
