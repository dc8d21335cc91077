"""What makes a hooked Transformer a language model: text, the loss of the next token, decoding."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mudd_interp.model.arguments import (
    FORWARD,
    FORWARD_TAKES,
    TOKENS,
    check_return_type,
    refuse,
)
from mudd_interp.model.core import HookedCore
from mudd_interp.model.decoding import Decoding, Reader
from mudd_interp.model.ends import Ends
from mudd_interp.model.forward import layer_index, stream_to_start
from mudd_interp.model.front import TokenFront
from mudd_interp.model.generate import Generator
from mudd_interp.model.hooking import eager_where_hooked
from mudd_interp.model.parts import forwarded
from mudd_interp.model.task import NextToken, Task, loss_fn
from mudd_interp.model.token_ids import check_tokens
from mudd_interp.model.tokens import Tokens, check_tokenizer
from mudd_interp.protocol import require_traits


class LanguageModel(HookedCore):
    """A hooked Transformer that reads tokens and predicts the next one.

    Its parts do the work: ``tokens`` between text and ids, ``generator`` the decoding, ``ends`` the
    way from and to the vocabulary, ``weights`` the views of the blocks' parameters. The names that
    TransformerLens' models have for their methods are here, and lead to them.
    """

    refused: Mapping[str, str] = FORWARD
    """Arguments of ``forward`` that mean nothing, each with the reason."""

    _tokenizer: Any = None

    # --- What each kind of model does in its own way --------------------------------------------

    @property
    def ends(self) -> Ends:
        """Its embedding, final norm and unembedding."""
        raise NotImplementedError

    def run(
        self,
        given: Tensor,
        return_type: str | None = "logits",
        start: int | None = None,
        stop: int | None = None,
        past: Any = None,
    ) -> Tensor | None:
        """A forward pass whose arguments were looked at.

        Args:
            given: Token ids ``[batch pos]``; with ``start`` the stream that enters that block.
            return_type: ``None`` leaves the unembedding out.
            start: The first block that is run.
            stop: The block before which it ends.
            past: Keys and values of earlier positions.

        Returns:
            The R stream that enters block ``stop``; without one the logits, or ``None``.
        """
        raise NotImplementedError

    def positions_seen(self, past: Any) -> int:
        """How many positions came before, by what ``past_kv_cache`` is given."""
        raise NotImplementedError

    def reader(self, how: Decoding, rows: int, room: int) -> Reader:
        """What reads the tokens of a decoding, see :class:`~mudd_interp.model.decoding.Decoder`."""
        raise NotImplementedError

    # --- Text and tokens ------------------------------------------------------------------------

    @property
    def tokenizer(self) -> Any:
        """A Hugging Face tokenizer, or ``None``: then the model works on token ids only."""
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Any) -> None:
        check_tokenizer(tokenizer)
        self._tokenizer = tokenizer

    def set_tokenizer(self, tokenizer: Any, default_padding_side: str | None = None) -> None:
        """Set :attr:`tokenizer`, as TransformerLens spells it.

        Raises:
            ValueError: If it is no tokenizer, or a padding side is given.
        """
        refuse("set_tokenizer", TOKENS, (), {"default_padding_side": default_padding_side})
        self.tokenizer = tokenizer

    @property
    def tokens(self) -> Tokens:
        """The way from text to token ids and back."""
        return Tokens(self._tokenizer, self.cfg)

    @property
    def front(self) -> TokenFront:
        """What it reads: token ids."""
        return TokenFront(self.tokens, self.embed_ids)

    @property
    def task(self) -> Task:
        """What its output is for: the next token."""
        return NextToken(self.unembed)

    def embed_ids(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
        """X_0 of token ids."""
        raise NotImplementedError

    to_tokens = forwarded("tokens", Tokens.to_tokens)
    to_string = forwarded("tokens", Tokens.to_string)
    to_str_tokens = forwarded("tokens", Tokens.to_str_tokens)
    to_single_token = forwarded("tokens", Tokens.to_single_token)
    to_single_str_token = forwarded("tokens", Tokens.to_single_str_token)
    get_token_position = forwarded("tokens", Tokens.get_token_position)

    # --- Decoding -------------------------------------------------------------------------------

    @property
    def generator(self) -> Generator:
        """The decoding."""
        return Generator(self)

    generate = forwarded("generator", Generator.generate)
    generate_stream = forwarded("generator", Generator.generate_stream)

    # --- The vocabulary's directions ------------------------------------------------------------

    @property
    def W_E(self) -> Float[Tensor, "d_vocab d_model"]:  # noqa: N802 (the field's name)
        """The token embedding; X_0 of a bridged model may have more in it."""
        return self.ends.W_E

    @property
    def W_U(self) -> Float[Tensor, "d_model d_vocab"]:  # noqa: N802 (the field's name)
        """The unembedding."""
        return self.ends.W_U

    @property
    def b_U(self) -> Float[Tensor, " d_vocab"]:  # noqa: N802 (the field's name)
        """The unembedding's bias; zeros where there is none."""
        return self.ends.b_U

    tokens_to_residual_directions = forwarded("ends", Ends.tokens_to_residual_directions)
    logit_constant = forwarded("ends", Ends.logit_constant)
    decode_stream = forwarded("ends", Ends.decode_stream)

    # --- The forward pass and its loss ----------------------------------------------------------

    loss_fn = staticmethod(loss_fn)

    @eager_where_hooked
    def forward(
        self,
        input: object,
        return_type: str | None = "logits",
        loss_per_token: bool = False,
        prepend_bos: bool | None = None,
        start_at_layer: int | None = None,
        stop_at_layer: int | None = None,
        past_kv_cache: Any = None,
        **refused: object,
    ) -> Any:
        """Run the model.

        Args:
            input: Text, a list of texts of equal length in tokens, or ids ``[batch pos]`` or
                ``[pos]``; with ``start_at_layer`` a stream ``[batch pos d_model]``.
            return_type: ``"logits"`` ``[batch pos d_vocab]``; ``"loss"``, the mean next-token loss
                in nats; ``"both"``; or ``None``, which runs the blocks and the final norm only.
            loss_per_token: Return the loss of each position, ``[batch pos-1]``.
            prepend_bos: Put ``<|endoftext|>`` in front of text. ``None`` means no, as these models
                were trained.
            start_at_layer: Go on from the stream that enters this block, of which ``input`` is the
                value; hooks below do not fire. Negative values count from the end, and ``n_layers``
                is the final norm, where a bridged model does not start. With dense connections a
                later block needs X_0..X_l, so only 0 is taken, and X_0 with it:
                ``HookedMUDDTransformer.logits_from`` goes on from all of them.
            stop_at_layer: Return the R stream that enters this block instead, ``[batch pos
                d_model]``; counted in the same way. (In a MUDD model the other streams are in the
                hooks.)
            past_kv_cache: Keys and values of earlier positions, from ``new_kv_cache`` of a
                ``HookedMUDDTransformer``; a bridged model refuses it.
            **refused: Other arguments of TransformerLens' models: each is refused, with the reason.

        Raises:
            ValueError: If the input is empty, longer than the context, or has ids outside the
                vocabulary; an argument is out of range or refused; or a loss is asked for and
                positions see the token that they would predict.
        """
        refuse("forward", self.refused, FORWARD_TAKES, refused)
        check_return_type(return_type)
        cfg, seen = self.cfg, self.positions_seen(past_kv_cache)
        stop = None if stop_at_layer is None else layer_index(cfg, "stop_at_layer", stop_at_layer)
        if start_at_layer is not None:
            start = layer_index(cfg, "start_at_layer", start_at_layer)
            if past_kv_cache is not None:
                raise ValueError("start_at_layer and past_kv_cache exclude each other.")
            stream = stream_to_start(cfg, input, start, stop, return_type)
            return self.run(stream, return_type, start, stop)
        tokens = self.tokens.to_tokens(input, prepend_bos)
        if not torch.compiler.is_compiling():
            check_tokens(tokens, seen, cfg.n_ctx, cfg.d_vocab)
        found = self.run(tokens, return_type, stop=stop, past=past_kv_cache)
        if found is None or stop is not None or return_type == "logits":
            return found
        require_traits(self, "the loss of the next token", ["next_token"])
        loss = self.task.loss(found, tokens, each=loss_per_token)
        return loss if return_type == "loss" else (found, loss)

    def loss(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, ""]:
        """Mean next-token loss, in nats."""
        return self(tokens, return_type="loss")

    def loss_per_token(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch predicted"]:
        """Loss of each position but the first, in nats."""
        return self(tokens, return_type="loss", loss_per_token=True)

    def input_to_embed(
        self,
        input: object,
        prepend_bos: bool | None = None,
        padding_side: str | None = None,
        attention_mask: Tensor | None = None,
    ) -> tuple[Float[Tensor, "batch pos d_model"], Int[Tensor, "batch pos"], None, None]:
        """X_0, which ``forward(..., start_at_layer=0)`` goes on from, and the ids that were read.

        Args:
            input: As in :meth:`forward`.
            prepend_bos: As in :meth:`forward`.
            padding_side: Refused.
            attention_mask: Refused.

        Returns:
            X_0, the ids, and two times ``None``: TransformerLens' positions that are added later,
            and its mask.

        Raises:
            ValueError: As :meth:`forward`.
        """
        refused = {"padding_side": padding_side, "attention_mask": attention_mask}
        refuse("input_to_embed", FORWARD, ("prepend_bos",), refused)
        tokens = self.tokens.to_tokens(input, prepend_bos)
        return self(tokens, stop_at_layer=0), tokens, None, None
