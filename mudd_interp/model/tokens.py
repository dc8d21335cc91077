"""Text to token ids and back, in one place, for every model of the package."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor


def check_tokens(tokens: Int[Tensor, "..."], seen: int, n_ctx: int, d_vocab: int) -> None:
    """Refuse ids that a model cannot read.

    Args:
        tokens: What is to be run.
        seen: Positions that came before, when decoding.
        n_ctx: The model's context, in tokens.
        d_vocab: Its vocabulary: ids are 0 to ``d_vocab - 1``.

    Raises:
        ValueError: If there are no tokens, too many, or ids outside the vocabulary.
    """
    if tokens.dtype != torch.int64:
        raise ValueError(
            f"token ids must be int64, got {str(tokens.dtype).removeprefix('torch.')}: convert "
            "them with .long() if they are ids."
        )
    if tokens.ndim != 2 or tokens.numel() == 0:
        raise ValueError(
            "expected token ids of shape [batch pos] with at least one token, got shape "
            f"{list(tokens.shape)}: the prompt is empty or has an axis too many."
        )
    if seen + tokens.shape[1] > n_ctx:
        raise ValueError(
            f"{seen + tokens.shape[1]} tokens do not fit the context of {n_ctx}: shorten the "
            "prompt, or cut it into batches with mudd_interp.data."
        )
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= d_vocab:
        raise ValueError(
            f"token id {low if low < 0 else high} is outside the vocabulary of {d_vocab} (ids 0 "
            f"to {d_vocab - 1}): was the text encoded with another model's tokenizer?"
        )


class TokenMethods:
    """TransformerLens' tokenisation methods over a Hugging Face tokenizer.

    No token is put in front of a text unless asked for: the models here were trained without one.
    """

    tokenizer: Any

    @property
    def cfg(self) -> Any:
        """Read for the device only."""
        raise NotImplementedError

    def to_tokens(
        self, input: str | Sequence[str], prepend_bos: bool | None = None
    ) -> Int[Tensor, "batch pos"]:
        """Token ids of one text, or of several that have the same length in tokens.

        Raises:
            ValueError: If there is no tokenizer, a text is empty, lengths differ, or it is no text.
        """
        texts: list[Any] = [input] if isinstance(input, str) else list(input)
        if not texts or not all(isinstance(text, str) for text in texts):
            raise ValueError(
                f"expected a text, a list of texts or an int64 tensor of token ids, got "
                f"{type(input).__name__}: turn ids into a tensor, torch.tensor(ids)."
            )
        rows = [self._encode(text, bool(prepend_bos)) for text in texts]
        if len({len(row) for row in rows}) != 1:
            raise ValueError(
                f"the texts have {sorted({len(row) for row in rows})} tokens: batches are never "
                "padded, so give texts of one length, or run them one by one."
            )
        return torch.tensor(rows, dtype=torch.int64, device=self.cfg.device)

    def tokens_of(
        self, given: str | Sequence[str] | Int[Tensor, "..."], prepend_bos: bool | None
    ) -> Int[Tensor, "batch pos"]:
        """Ids ``[batch pos]`` on the model's device, from text or from ids; ``[pos]`` is a row."""
        if not isinstance(given, Tensor):
            return self.to_tokens(given, prepend_bos=prepend_bos)
        return (given[None] if given.ndim == 1 else given).to(self.cfg.device)

    def _encode(self, text: str, prepend_bos: bool) -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError as error:  # from a command line in another encoding
            raise ValueError(
                f"the prompt holds what is no text at character {error.start}: give it as UTF-8."
            ) from error
        ids = self._require_tokenizer()(text, add_special_tokens=False)["input_ids"]
        if prepend_bos and self.tokenizer.bos_token_id is None:
            raise ValueError("prepend_bos=True, but the tokenizer has no such token: leave it out.")
        if prepend_bos:
            ids = [self.tokenizer.bos_token_id, *ids]
        if not ids:
            raise ValueError("the prompt is empty: give at least one token.")
        return ids

    def _require_tokenizer(self) -> Any:
        if self.tokenizer is None:
            raise ValueError(
                "this model came without a tokenizer: pass token ids (an int64 tensor), or set "
                "model.tokenizer to a Hugging Face tokenizer."
            )
        return self.tokenizer

    def to_string(self, tokens: Int[Tensor, "..."] | Sequence[int] | int) -> str | list[str]:
        """The text of token ids: one string, or a list of them for a batch."""
        ids = torch.as_tensor(tokens)
        if ids.ndim == 2:
            return [self._decode(row) for row in ids.tolist()]
        return self._decode(ids.reshape(-1).tolist())

    def _decode(self, ids: list[int]) -> str:
        return self._require_tokenizer().decode(ids, clean_up_tokenization_spaces=False)

    def to_str_tokens(
        self,
        input: str | Sequence[str] | Int[Tensor, "..."] | Sequence[int],
        prepend_bos: bool | None = None,
    ) -> list[str]:
        """The text of each token of one prompt.

        Raises:
            ValueError: If there are several prompts, or :meth:`to_tokens` refuses it.
        """
        is_text = isinstance(input, str) or (
            not isinstance(input, Tensor) and any(isinstance(each, str) for each in input)
        )
        ids = self.to_tokens(input, prepend_bos) if is_text else torch.as_tensor(input)  # pyright: ignore[reportArgumentType]  (by then it is text)
        if ids.ndim == 2 and ids.shape[0] != 1:
            raise ValueError(f"expected one prompt, got a batch of {ids.shape[0]}.")
        return [self._decode([token]) for token in ids.reshape(-1).tolist()]

    def to_single_token(self, string: str) -> int:
        """The id of a text that is exactly one token.

        Raises:
            ValueError: If it is not, with the tokens that it is.
        """
        ids = self._encode(string, prepend_bos=False)
        if len(ids) != 1:
            raise ValueError(
                f"{string!r} is {len(ids)} tokens, not one: {[self._decode([i]) for i in ids]}."
            )
        return ids[0]

    def to_single_str_token(self, token: int) -> str:
        """The text of one token."""
        return self._decode([token])
