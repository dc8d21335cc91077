"""Text to token ids and back, in one place, for every model of the package."""

from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from mudd_interp.encoding import decode, encode, token_text
from mudd_interp.ids import id_tensor
from mudd_interp.model.arguments import PADDING, TOKENS, refuse
from mudd_interp.model.token_ids import as_batch, check_vocabulary, is_text
from mudd_interp.protocol import ModelShape


def check_tokenizer(tokenizer: Any) -> None:
    """Refuse what is neither a Hugging Face tokenizer nor ``None``.

    Raises:
        ValueError: With what came.
    """
    usable = all(hasattr(tokenizer, name) for name in ("__call__", "decode", "get_vocab"))
    if tokenizer is not None and not usable:
        raise ValueError(
            f"expected a Hugging Face tokenizer or None, got {type(tokenizer).__name__}: one "
            "of the package tokenizers is wrapped by transformers' "
            "PreTrainedTokenizerFast(tokenizer_object=...)."
        )


class Tokens:
    """TransformerLens' tokenisation methods over a Hugging Face tokenizer.

    No token is put in front of a text unless asked for: the models here were trained without one.
    A special token that a prompt spells (``<|endoftext|>``) is that token; in a corpus it is text
    (:mod:`mudd_interp.data`). Token ids may be a tensor or a NumPy array of any integer type, an
    integer, or lists and tuples of them.

    Where a text's tokens are put together again, :meth:`to_string` gives that text, if the
    tokenizer keeps all of it. The pieces of :meth:`to_str_tokens` are what each token reads by
    itself: bytes that are part of a character only read ``�``, and a tokenizer of SentencePiece's
    kind begins with the space that it puts in front of a text.

    Args:
        tokenizer: A Hugging Face tokenizer, or ``None``: then there are token ids only.
        cfg: The context, the size of the vocabulary and the device of the model that reads them.
    """

    def __init__(self, tokenizer: Any, cfg: ModelShape):
        self.tokenizer, self.cfg = tokenizer, cfg

    def to_tokens(
        self,
        input: Any,
        prepend_bos: bool | None = None,
        padding_side: str | None = None,
        move_to_device: bool = True,
        truncate: bool = False,
    ) -> Int64[Tensor, "batch pos"]:
        """Token ids of one text, or of several that have the same length in tokens.

        Args:
            input: A text or a list of texts. Ids are returned as a batch.
            prepend_bos: Put the beginning-of-text token in front of text; ``None`` means no.
            padding_side: Refused: batches are never padded.
            move_to_device: Put the ids where the model is; else they are on the CPU.
            truncate: Keep the first ``n_ctx`` tokens. Other than in TransformerLens that is not the
                default: a text is never cut without a word, and running one that is too long is an
                error.

        Raises:
            ValueError: If there is no tokenizer, a text is empty or cannot be encoded, lengths
                differ, it is neither text nor ids, or a padding side is given.
        """
        refuse("to_tokens", TOKENS, (), {"padding_side": padding_side})
        longest = self.cfg.n_ctx if truncate else None
        if is_text(input):
            tokens = self._rows(input, bool(prepend_bos), longest)
        else:
            tokens = as_batch(input)[:, :longest]
        return tokens.to(self.cfg.device) if move_to_device else tokens

    def _rows(
        self, given: Any, prepend_bos: bool, longest: int | None = None
    ) -> Int64[Tensor, "batch pos"]:
        texts = [given] if isinstance(given, str) else given
        other = [type(text).__name__ for text in texts if not isinstance(text, str)]
        if other:
            raise ValueError(f"expected a list of texts, got {other[0]} among them.")
        rows = [self._encode(text, prepend_bos)[:longest] for text in texts]
        if len({len(row) for row in rows}) != 1:
            raise ValueError(
                f"the texts have {sorted({len(row) for row in rows})} tokens: {PADDING}, so "
                "give texts of one length, or run them one by one."
            )
        return torch.tensor(rows, dtype=torch.int64)

    def vocabulary_index(self, tokens: Any) -> Int64[Tensor, "*shape"]:
        """Ids of this model's vocabulary, on its device, from the text of one token or from ids.

        Raises:
            ValueError: If the text is not one token, or an id is outside the vocabulary.
        """
        ids = id_tensor(self.to_single_token(tokens) if isinstance(tokens, str) else tokens)
        check_vocabulary(ids, self.cfg.d_vocab)
        return ids.to(self.cfg.device)

    def _encode(self, text: str, prepend_bos: bool) -> list[int]:
        ids = encode(self.require_tokenizer(), text)
        if prepend_bos and self.tokenizer.bos_token_id is None:
            raise ValueError("prepend_bos=True, but the tokenizer has no such token: leave it out.")
        if prepend_bos:
            ids = [self.tokenizer.bos_token_id, *ids]
        if not ids:
            raise ValueError("the prompt is empty: give at least one token.")
        return ids

    def require_tokenizer(self) -> Any:
        """The tokenizer.

        Raises:
            ValueError: If there is none.
        """
        if self.tokenizer is None:
            raise ValueError(
                "this model came without a tokenizer: pass token ids (an int64 tensor), or set "
                "model.tokenizer to a Hugging Face tokenizer."
            )
        return self.tokenizer

    def to_string(self, tokens: Any) -> str | list[str]:
        """The text of token ids: one string, or a list of them for a batch ``[batch pos]``.

        Raises:
            ValueError: If there is no tokenizer, or they are no ids of one or two axes.
        """
        ids, tokenizer = id_tensor(tokens), self.require_tokenizer()
        if ids.ndim > 2:
            raise ValueError(f"expected ids [pos] or [batch pos], got shape {list(ids.shape)}.")
        if ids.ndim == 2:
            return [decode(tokenizer, row) for row in ids.tolist()]
        return decode(tokenizer, ids.reshape(-1).tolist())

    def to_str_tokens(
        self, input: Any, prepend_bos: bool | None = None, padding_side: str | None = None
    ) -> list[Any]:
        """The text of each token of one prompt; of a list of texts, such a list for each.

        Args:
            input: A text, a list of texts, or ids ``[pos]`` or ``[1 pos]``.
            prepend_bos: As in :meth:`to_tokens`; of ids it changes nothing.
            padding_side: Refused, as in :meth:`to_tokens`.

        Raises:
            ValueError: If there are several rows of ids, or :meth:`to_tokens` refuses it.
        """
        if is_text(input) and not isinstance(input, str):
            return [self.to_str_tokens(text, prepend_bos, padding_side) for text in input]
        refuse("to_str_tokens", TOKENS, (), {"padding_side": padding_side})
        ids = self._one_row(self._rows(input, bool(prepend_bos)) if is_text(input) else input)
        tokenizer = self.require_tokenizer()
        return [token_text(tokenizer, token) for token in ids.tolist()]

    def _one_row(self, tokens: Any) -> Int64[Tensor, " pos"]:
        batch = as_batch(tokens)
        if len(batch) != 1:
            raise ValueError(f"expected one prompt, got ids of shape {list(batch.shape)}.")
        return batch[0]

    def to_single_token(self, string: str) -> int:
        """The id of a text that is exactly one token.

        Raises:
            ValueError: If it is not, with the tokens that it is.
        """
        ids = self._encode(string, prepend_bos=False)
        if len(ids) != 1:
            texts = [token_text(self.tokenizer, token) for token in ids]
            raise ValueError(f"{string!r} is {len(ids)} tokens, not one: {texts}.")
        return ids[0]

    def to_single_str_token(self, int_token: Any) -> str:
        """The text of one token, as in :meth:`to_str_tokens`.

        Raises:
            ValueError: If it is not one id.
        """
        ids = id_tensor(int_token)
        if ids.numel() != 1:
            raise ValueError(f"expected one token id, got {ids.numel()}.")
        return token_text(self.require_tokenizer(), int(ids))

    def get_token_position(
        self,
        single_token: Any,
        input: Any,
        mode: str = "first",
        prepend_bos: bool | None = None,
        padding_side: str | None = None,
    ) -> int:
        """Where a token stands in one prompt, from 0.

        Args:
            single_token: The token, as text or id.
            input: A text, or ids ``[pos]`` or ``[1 pos]``.
            mode: Where it stands more than once, ``"first"`` or ``"last"``.
            prepend_bos: As in :meth:`to_tokens`; of ids it changes nothing.
            padding_side: Refused, as in :meth:`to_tokens`.

        Raises:
            ValueError: If it is not there, or not one token; or see :meth:`to_tokens`.
        """
        if mode not in ("first", "last"):
            raise ValueError(f"mode must be 'first' or 'last', got {mode!r}.")
        tokens = self._one_row(self.to_tokens(input, prepend_bos, padding_side))
        wanted = self.vocabulary_index(single_token)
        if wanted.numel() != 1:
            raise ValueError(f"expected one token id, got {wanted.numel()}.")
        places = (tokens == wanted.reshape(())).nonzero()
        if not len(places):
            raise ValueError(f"the token {single_token!r} does not occur in the prompt.")
        return int(places[0 if mode == "first" else -1])
