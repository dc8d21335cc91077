"""What a call of ``generate`` asks for, checked before anything runs, and the steps that follow."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from rich.progress import track
from torch import Tensor
from transformers.generation.stopping_criteria import (
    StoppingCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
)

from mudd_interp.edits import edits_by_position
from mudd_interp.model.sampling import Sampling, is_integer, require
from mudd_interp.model.token_ids import check_tokens, is_text
from mudd_interp.model.tokens import Tokens
from mudd_interp.protocol import HookedModel, NamesFilter

Reader = Callable[[Int[Tensor, "batch pos"]], Float[Tensor, "batch d_vocab"]]
"""From all tokens so far to the logits of the next; asked again, they have grown by one."""


@dataclass(frozen=True)
class Decoding:
    """How to go on from a prompt.

    Attributes:
        max_new_tokens: How many tokens to add at most.
        eos: The tokens that end a row, if any do.
        fill: What a row that has ended is filled up with.
        criteria: What else ends a row, by Hugging Face's interface.
        sampling: How each token is drawn.
        use_past_kv_cache: Keep keys and values instead of running the whole prefix again.
        verbose: Show a progress bar.
    """

    max_new_tokens: int
    eos: tuple[int, ...]
    fill: int
    criteria: StoppingCriteriaList
    sampling: Sampling
    use_past_kv_cache: bool
    verbose: bool

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
        return ended | torch.isin(tokens[:, -1], tokens.new_tensor(self.eos))


@runtime_checkable
class Decoder(HookedModel, Protocol):
    """A model that goes on from a prompt."""

    @property
    def tokens(self) -> Tokens:
        """Its way from text to token ids and back."""
        ...

    def reader(self, how: Decoding, rows: int, room: int) -> Reader:
        """What reads tokens: each time all so far, of which it may have kept the earlier ones.

        Args:
            how: How to go on.
            rows: How many sequences there are.
            room: The most tokens that each will have.
        """
        ...

    def matching(self, names_filter: NamesFilter) -> list[str]:
        """The hook names that a filter selects."""
        ...

    def run_with_cache(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """The output of a forward pass, and the cache of its activations."""
        ...


@torch.no_grad()
def steps(
    read: Reader, tokens: Int[Tensor, "batch pos"], how: Decoding
) -> Iterator[tuple[Int[Tensor, "batch longer"], Float[Tensor, "batch d_vocab"]]]:
    """After each new token: all so far, and the logits that it was drawn from."""
    done = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    for _ in track(range(how.max_new_tokens), "generating", disable=not how.verbose):
        logits = read(tokens)
        choice = how.sampling.draw(logits, tokens).masked_fill(done, how.fill)
        tokens = torch.cat((tokens, choice[:, None]), dim=1)
        done = done | how.ended(tokens, logits)
        yield tokens, logits
        if done.all():
            return


def asked(
    model: Decoder,
    tokens: Int[Tensor, "batch pos"],
    *,
    eos_token_id: Any,
    stop_at_eos: bool,
    stop_strings: str | Sequence[str] | None,
    stopping_criteria: Any,
    use_past_kv_cache: bool,
    max_new_tokens: int,
    sampling: Sampling,
    verbose: bool,
) -> Decoding:
    """How to go on from a prompt, after a look at whether the model can.

    Raises:
        ValueError: See :func:`check_room`, :func:`ends_of_text`, :func:`stopping` and
            :func:`fill_token`.
    """
    check_room(model, tokens, max_new_tokens)
    eos = ends_of_text(model, eos_token_id) if stop_at_eos else ()
    criteria = stopping(model, stop_strings, stopping_criteria)
    return Decoding(
        max_new_tokens=max_new_tokens,
        eos=eos,
        fill=fill_token(model, eos, len(tokens), bool(criteria)),
        criteria=criteria,
        sampling=sampling,
        use_past_kv_cache=use_past_kv_cache and not edits_by_position(model),
        verbose=verbose,
    )


def check_room(model: Decoder, tokens: Int[Tensor, "batch pos"], max_new_tokens: int) -> None:
    """Refuse a prompt that cannot be read, or to which so many tokens cannot be added.

    Raises:
        ValueError: See :func:`check_tokens`; or if the new tokens do not fit the context.
    """
    require(is_integer(max_new_tokens, 0), "max_new_tokens", "an integer from 0", max_new_tokens)
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


def ends_of_text(model: Decoder, given: Any) -> tuple[int, ...]:
    """The tokens that end a row: the given ones, or the tokenizer's.

    Raises:
        ValueError: If there are none, or one is outside the vocabulary.
    """
    own = getattr(model.tokenizer, "eos_token_id", None)
    found = own if given is None else given
    several = found if isinstance(found, list | tuple) else [found]
    ends = [each for each in several if each is not None]
    if not ends:
        raise ValueError(
            "stop_at_eos needs an end-of-text token, and the model has no tokenizer that knows "
            "one: give eos_token_id, or stop_at_eos=False."
        )
    return tuple(_id(model, "eos_token_id", each) for each in ends)


def stopping(
    model: Decoder, stop_strings: str | Sequence[str] | None, criteria: Any
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


def fill_token(model: Decoder, eos: tuple[int, ...], rows: int, criteria: bool) -> int:
    """What a row that has ended is filled up with, while others go on.

    The one token that ends a row; of several the tokenizer's end-of-text token, or the first. If
    criteria end it and no token, the tokenizer's padding or end-of-text token.

    Raises:
        ValueError: If there are several rows and none of these tokens, or one outside the
            vocabulary.
    """
    if not eos and not criteria:
        return 0  # no row ends
    end, padding = (getattr(model.tokenizer, f"{name}_token_id", None) for name in ("eos", "pad"))
    candidates = (end if len(eos) > 1 else None, *eos) if eos else (padding, end)
    fill = next((token for token in candidates if token is not None), None)
    if fill is None and rows > 1:
        raise ValueError(
            "rows that end early are filled up with a padding token, and the model has no "
            "tokenizer that knows one: give eos_token_id and stop_at_eos=True, or one row only."
        )
    return 0 if fill is None else _id(model, "the padding token", fill)


def _id(model: Decoder, name: str, token: int) -> int:
    valid = is_integer(token, 0) and token < model.cfg.d_vocab
    require(valid, name, f"an id of the vocabulary, 0 to {model.cfg.d_vocab - 1}", token)
    return token
