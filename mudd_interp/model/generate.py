"""Decoding: ``generate`` and ``generate_stream`` of every model."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mudd_interp.model.arguments import GENERATE, GENERATE_TAKES, refuse
from mudd_interp.model.decoding import Decoder, Decoding, asked, steps, wants_text
from mudd_interp.model.pieces import TextPieces, decoded
from mudd_interp.model.sampling import Sampling, is_integer, require
from mudd_interp.protocol import NamesFilter, require_traits


class Generator:
    """Decoding with the names and arguments of TransformerBridge's.

    Args:
        model: What goes on from a prompt.
    """

    def __init__(self, model: Decoder):
        self.model = model

    @torch.no_grad()
    def generate(
        self,
        input: Any = "",
        max_new_tokens: int = 10,
        stop_at_eos: bool = True,
        eos_token_id: int | Sequence[int] | None = None,
        do_sample: bool = True,
        top_k: int | None = None,
        top_p: float | None = None,
        temperature: float = 1.0,
        freq_penalty: float = 0.0,
        repetition_penalty: float = 1.0,
        use_past_kv_cache: bool = True,
        prepend_bos: bool | None = None,
        padding_side: str | None = None,
        return_type: str | None = "input",
        verbose: bool = True,
        output_logits: bool = False,
        return_cache: bool = False,
        return_input_tokens: bool = False,
        names_filter: NamesFilter = None,
        device: torch.device | str | None = None,
        pixel_values: Tensor | None = None,
        stop_strings: str | Sequence[str] | None = None,
        stopping_criteria: Any = None,
        attention_mask: Tensor | None = None,
        forced_bos_token_id: int | None = None,
        **multimodal_kwargs: Any,
    ) -> Any:
        """The prompt and up to ``max_new_tokens`` more; hooks apply.

        With ``use_past_kv_cache`` a hook sees the prompt in one pass and then each new token alone
        (position axis of length 1); without it, the whole prefix each time.

        Args:
            input: Text or token ids, as in :meth:`forward`.
            max_new_tokens: How many tokens to add at most; 0 returns the prompt.
            stop_at_eos: End a row at the end-of-text token.
            eos_token_id: That token, or several; ``None`` means the tokenizer's.
            do_sample: Sample; else take the token of the largest logit, the first one on ties.
                ``use_past_kv_cache`` rounds in another order: in half precision that decides
                between near-equal logits now and then, so a row may go on differently.
            top_k: Sample among the k most likely only, from 1.
            top_p: Sample among the most likely that make up this probability, in (0, 1]; not
                together with ``top_k``.
            temperature: Divides the logits, from 0; 0 is ``do_sample=False``.
            freq_penalty: Subtracted from a token's logit for each time it occurred, from 0; only
                when sampling.
            repetition_penalty: Divides (multiplies, if negative) logits of tokens that occurred,
                also when not sampling; above 0.
            use_past_kv_cache: Keep keys and values instead of running the whole prefix again. Not
                done where an edit is of chosen positions or moves weights between tokens: those
                need all of the sequence in one pass.
            prepend_bos: As in :meth:`forward`.
            padding_side: Refused: batches are never padded.
            return_type: ``"str"``, ``"tokens"`` (or ``None``), or ``"input"``: what the input was.
            verbose: Show a progress bar.
            output_logits: Return transformers' ``GenerateDecoderOnlyOutput``: ``sequences`` (ids)
                and ``logits``, for each step those of the model ``[batch d_vocab]``, before
                temperature and penalties; ``return_type`` plays no part.
            return_cache: Also return the :class:`MUDDActivationCache` of one more pass over prompt
                and new tokens.
            return_input_tokens: Also return the prompt's ids ``[batch pos]``, as the model read it.
            names_filter: What ``return_cache`` keeps, as in :meth:`run_with_cache`.
            device: Where ``return_cache`` keeps it.
            pixel_values: Refused: there are no images.
            stop_strings: End a row where its text, the prompt's included, comes to end with one of
                these (transformers' ``StopStringCriteria``: its last token may go on after it).
            stopping_criteria: transformers' ``StoppingCriteria``, or a list: called with the ids so
                far and the newest logits, they return for each row whether it ends.
            attention_mask: Refused: batches are never padded.
            forced_bos_token_id: Refused: it is for encoder-decoder models.
            **multimodal_kwargs: Refused.

        Returns:
            Ids ``[batch pos]``, or text without special tokens, a string for one row and a list for
            several. Rows that ended are filled up with the end-of-text token (with
            ``stop_at_eos=False`` the tokenizer's padding token, if it has one). With
            ``return_cache`` and ``return_input_tokens`` a tuple: this, then the cache, then the
            ids.

        Raises:
            ValueError: Before anything runs: if an argument is out of range or refused, the new
                tokens do not fit the context, or a token or the tokenizer is missing that
                ``stop_at_eos``, ``stop_strings`` or text needs. While it runs: if a stopping
                criterion does not return one bool for each row.
        """
        refuse(
            "generate",
            GENERATE,
            GENERATE_TAKES,
            {
                "padding_side": padding_side,
                "pixel_values": pixel_values,
                "attention_mask": attention_mask,
                "forced_bos_token_id": forced_bos_token_id,
                **multimodal_kwargs,
            },
        )
        require_traits(self.model, "generate", ["next_token"])
        sampling = Sampling(top_k, top_p, temperature, freq_penalty, repetition_penalty)
        text = wants_text(input, return_type) and not output_logits
        tokenizer = self.model.tokens.require_tokenizer() if text else None
        if return_cache:
            self.model.matching(names_filter)
        tokens = self.model.tokens.to_tokens(input, prepend_bos)
        how = asked(
            self.model,
            tokens,
            max_new_tokens=max_new_tokens,
            eos_token_id=eos_token_id,
            stop_at_eos=stop_at_eos,
            stop_strings=stop_strings,
            stopping_criteria=stopping_criteria,
            sampling=sampling if do_sample else sampling.greedy(),
            use_past_kv_cache=use_past_kv_cache,
            verbose=verbose,
        )
        longer, kept = tokens, []
        for longer, logits in self._steps(tokens, how):  # noqa: B007 (the last one is used)
            if output_logits:
                kept.append(logits)
        result: Any = longer
        if output_logits:
            result = _model_output(sequences=longer, logits=tuple(kept))
        elif text:
            texts = decoded(tokenizer, longer)
            result = texts[0] if len(texts) == 1 else texts
        further = []
        if return_cache:
            options = {"names_filter": names_filter, "device": device, "return_type": None}
            further.append(self.model.run_with_cache(longer, **options)[1])
        if return_input_tokens:
            further.append(tokens)
        return (result, *further) if further else result

    def generate_stream(
        self,
        input: Any = "",
        max_new_tokens: int = 10,
        max_tokens_per_yield: int = 25,
        stop_at_eos: bool = True,
        eos_token_id: int | Sequence[int] | None = None,
        do_sample: bool = True,
        top_k: int | None = None,
        top_p: float | None = None,
        temperature: float = 1.0,
        freq_penalty: float = 0.0,
        repetition_penalty: float = 1.0,
        use_past_kv_cache: bool = True,
        prepend_bos: bool | None = None,
        padding_side: str | None = None,
        return_type: str | None = "input",
        verbose: bool = True,
        stop_strings: str | Sequence[str] | None = None,
        stopping_criteria: Any = None,
        attention_mask: Tensor | None = None,
        forced_bos_token_id: int | None = None,
    ) -> Iterator[Any]:
        """What :meth:`generate` returns, in pieces as it comes.

        Args:
            input: See :meth:`generate`, as for all arguments that are not here.
            max_new_tokens: How many tokens to add at most.
            max_tokens_per_yield: A piece is given as soon as it has so many tokens. The first one
                begins with the prompt, whose tokens count.
            stop_at_eos: End a row at the end-of-text token.
            eos_token_id: That token, or several.
            do_sample: Sample; else take the token of the largest logit.
            top_k: Sample among the k most likely only.
            top_p: Sample among the most likely that make up this probability.
            temperature: Divides the logits.
            freq_penalty: Subtracted from a token's logit for each time it occurred.
            repetition_penalty: Divides logits of tokens that occurred.
            use_past_kv_cache: Keep keys and values.
            prepend_bos: As in :meth:`forward`.
            padding_side: Refused.
            return_type: ``"str"``, ``"tokens"`` (or ``None``), or ``"input"``.
            verbose: Show a progress bar.
            stop_strings: End a row where its text comes to end with one of these.
            stopping_criteria: End a row where these say so.
            attention_mask: Refused.
            forced_bos_token_id: Refused.

        Returns:
            An iterator over pieces: ids ``[batch pos]``, or text without special tokens, a string
            for one row and a list for several. A character whose bytes are not all there waits for
            the next piece. Put together they are what :meth:`generate` returns.

        Raises:
            ValueError: At the call: see :meth:`generate`; or if ``max_tokens_per_yield`` is no
                integer from 1.
        """
        refused = {
            "padding_side": padding_side,
            "attention_mask": attention_mask,
            "forced_bos_token_id": forced_bos_token_id,
        }
        refuse("generate_stream", GENERATE, GENERATE_TAKES, refused)
        valid = is_integer(max_tokens_per_yield, 1)
        require(valid, "max_tokens_per_yield", "an integer from 1", max_tokens_per_yield)
        require_traits(self.model, "generate", ["next_token"])
        sampling = Sampling(top_k, top_p, temperature, freq_penalty, repetition_penalty)
        tokenizer = (
            self.model.tokens.require_tokenizer() if wants_text(input, return_type) else None
        )
        tokens = self.model.tokens.to_tokens(input, prepend_bos)
        how = asked(
            self.model,
            tokens,
            max_new_tokens=max_new_tokens,
            eos_token_id=eos_token_id,
            stop_at_eos=stop_at_eos,
            stop_strings=stop_strings,
            stopping_criteria=stopping_criteria,
            sampling=sampling if do_sample else sampling.greedy(),
            use_past_kv_cache=use_past_kv_cache,
            verbose=verbose,
        )
        return self._pieces(tokens, how, max_tokens_per_yield, tokenizer)

    def _steps(
        self, tokens: Int[Tensor, "batch pos"], how: Decoding
    ) -> Iterator[tuple[Int[Tensor, "batch longer"], Float[Tensor, "batch d_vocab"]]]:
        room = tokens.shape[1] + how.max_new_tokens
        return steps(self.model.reader(how, len(tokens), room), tokens, how)

    def _pieces(
        self, tokens: Int[Tensor, "batch pos"], how: Decoding, size: int, tokenizer: Any
    ) -> Iterator[Any]:
        texts, given = TextPieces(tokenizer), 0
        for longer, _ in self._steps(tokens, how):
            if longer.shape[1] - given >= size:
                yield longer[:, given:] if tokenizer is None else texts.next(longer)
                given = longer.shape[1]
            tokens = longer
        if tokenizer is None and tokens.shape[1] > given:
            yield tokens[:, given:]
        if tokenizer is not None and (rest := texts.next(tokens, last=True)):
            yield rest


def _model_output(**fields: Any) -> Any:
    # two seconds to import
    from transformers.generation.utils import GenerateDecoderOnlyOutput

    return GenerateDecoderOnlyOutput(**fields)
