"""The text of rows of tokens that grow, piece by piece."""

from typing import Any

from jaxtyping import Int
from torch import Tensor

UNFINISHED = "\ufffd"
"""What a decoder writes where the bytes of a character are not all there."""


class TextPieces:
    """What is new in the text of each row, special tokens left out.

    Args:
        tokenizer: A Hugging Face tokenizer.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self._given: list[int] = []

    def next(self, tokens: Int[Tensor, "batch pos"], last: bool = False) -> str | list[str]:
        """The text since the last call: a string for one row, a list for several.

        Args:
            tokens: All tokens so far.
            last: Nothing follows: give a character too whose bytes are not all there. Empty if
                there is nothing left in any row.
        """
        texts = decoded(self.tokenizer, tokens)
        if not last:
            texts = [text.rstrip(UNFINISHED) for text in texts]
        given = self._given or [0] * len(texts)
        new = [text[n:] for text, n in zip(texts, given, strict=True)]
        self._given = [len(text) for text in texts]
        if last and not any(new):
            return ""
        return new[0] if len(new) == 1 else new


def decoded(tokenizer: Any, tokens: Int[Tensor, "batch pos"]) -> list[str]:
    """The text of each row, without special tokens."""
    return [
        tokenizer.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for row in tokens.tolist()
    ]
