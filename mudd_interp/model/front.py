"""The front of a language model: token ids."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from mudd_interp.encoding import token_text
from mudd_interp.ids import id_tensor
from mudd_interp.model.token_ids import padded_with
from mudd_interp.model.tokens import Tokens
from mudd_interp.protocol import Trait

EXAMPLE = 6
"""How many tokens an example has."""


class TokenFront:
    """Reads token ids ``[batch pos]``; see :class:`mudd_interp.protocol.Front`.

    Args:
        tokens: The vocabulary: a tokenizer, or none.
        embed: From ids to X_0.
    """

    traits: frozenset[Trait] = frozenset({"tokens"})

    def __init__(self, tokens: Tokens, embed: Callable[..., Any]):
        self.tokens, self.embed = tokens, embed

    def batch(self, given: Any) -> Int64[Tensor, "batch pos"]:
        """A batch of token ids, in any form that :func:`mudd_interp.ids.id_tensor` takes.

        Raises:
            ValueError: If it is none, with what was expected and what came.
        """
        tokens = id_tensor(given)
        if tokens.ndim != 2 or tokens.numel() == 0:
            kind = "int64" if isinstance(given, Tensor) else f"a {type(given).__name__}"
            least = " with at least one token" if not tokens.numel() else ""
            raise ValueError(
                f"expected batches that are int64 tensors [batch pos]{least}, got {kind} of shape "
                f"{list(tokens.shape)}."
            )
        return tokens

    def one(self, given: Any) -> Int64[Tensor, "1 pos"]:
        """One sequence, given as ``[pos]`` or ``[1 pos]``, as a batch of one.

        Raises:
            ValueError: If it is anything else.
        """
        ids = given if isinstance(given, Tensor) else id_tensor(given)
        batch = self.batch(ids[None] if ids.ndim == 1 else ids)
        if len(batch) != 1:
            raise ValueError(f"expected one sequence, got {len(batch)}: run them one by one.")
        return batch

    def example(self) -> Int64[Tensor, "1 pos"]:
        """A few token ids."""
        cfg = self.tokens.cfg
        return (torch.arange(min(EXAMPLE, cfg.n_ctx)) % cfg.d_vocab)[None]

    def refuse_padding(self, batch: Int64[Tensor, "batch pos"]) -> None:
        """Refuse a pad token, or a pair of them at an end where it also separates texts.

        Raises:
            ValueError: With what to do.
        """
        tokenizer = self.tokens.tokenizer
        pad = padded_with(batch, tokenizer)
        if pad is not None:
            raise ValueError(
                f"a batch is padded (token id {pad} is {tokenizer.pad_token!r}): every position "
                "counts, so pack the texts with mudd_interp.data, or run them one by one."
            )

    def positions(self, batch: Int64[Tensor, "batch pos"]) -> int:
        """How many tokens each sequence has."""
        return batch.shape[1]

    def labels(self, row: Int64[Tensor, " pos"]) -> tuple[str, ...]:
        """The text of each token, or its id where there is no tokenizer."""
        tokenizer = self.tokens.tokenizer
        if tokenizer is None:
            return tuple(str(token) for token in row.tolist())
        return tuple(token_text(tokenizer, token) for token in row.tolist())

    def ids(self, row: Int64[Tensor, " pos"]) -> Int64[Tensor, " pos"]:
        """The tokens themselves."""
        return row

    def contents(self, batch: Int64[Tensor, "batch pos"]) -> Sequence[bytes]:
        """The ids of each sequence, eight bytes each, the lowest first."""
        return [row.tobytes() for row in batch.cpu().numpy().astype("<i8")]
