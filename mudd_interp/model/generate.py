"""Decoding: ``generate`` of every model, and the loop of ours with a cache of keys and values."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float, Int
from rich.progress import track
from torch import Tensor
from transformer_lens.utilities.logits_utils import sample_logits

from mudd_interp.edits import edits_by_position
from mudd_interp.model.attention import LayerKeyValues
from mudd_interp.model.decoding import (
    Decoding,
    Sampling,
    check_room,
    end_of_text,
    fill_token,
    refuse,
    stopping,
    wants_text,
)
from mudd_interp.model.hooking import NamesFilter


class Generate:
    """``generate``, with the arguments of TransformerBridge's; a model says how it decodes."""

    def _continue(
        self: Any, tokens: Int[Tensor, "batch pos"], how: Decoding
    ) -> tuple[Int[Tensor, "batch longer"], tuple[Float[Tensor, "batch d_vocab"], ...]]:
        """Prompt and new tokens, and the logits of each step (none unless they are to be kept)."""
        raise NotImplementedError

    @torch.no_grad()
    def generate(
        self: Any,
        input: str | list[str] | Int[Tensor, "..."] = "",
        max_new_tokens: int = 10,
        stop_at_eos: bool = True,
        eos_token_id: int | None = None,
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
            eos_token_id: That token; ``None`` means the tokenizer's.
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
            padding_side=padding_side,
            pixel_values=pixel_values,
            attention_mask=attention_mask,
            forced_bos_token_id=forced_bos_token_id,
            **multimodal_kwargs,
        )
        sampling = Sampling(top_k, top_p, temperature, freq_penalty, repetition_penalty)
        text = wants_text(input, return_type) and not output_logits
        tokenizer = self._require_tokenizer() if text else None
        if return_cache:
            self.matching(names_filter)
        tokens = self.tokens_of(input, prepend_bos)
        check_room(self, tokens, max_new_tokens)
        eos = end_of_text(self, eos_token_id) if stop_at_eos else None
        criteria = stopping(self, stop_strings, stopping_criteria)
        how = Decoding(
            max_new_tokens=max_new_tokens,
            eos=eos,
            fill=fill_token(self, eos, len(tokens)) if criteria else eos or 0,
            criteria=criteria,
            sampling=sampling if do_sample else sampling.greedy(),
            use_past_kv_cache=use_past_kv_cache and not edits_by_position(self),
            verbose=verbose,
            keep_logits=output_logits,
        )
        longer, logits = self._continue(tokens, how) if max_new_tokens else (tokens, ())
        result: Any = longer
        if output_logits:
            result = _model_output(sequences=longer, logits=logits)
        elif text:
            result = _text(tokenizer, longer)
        further = []
        if return_cache:
            options = {"names_filter": names_filter, "device": device, "return_type": None}
            further.append(self.run_with_cache(longer, **options)[1])
        if return_input_tokens:
            further.append(tokens)
        return (result, *further) if further else result


class GenerateMethods(Generate):
    """The decoding of ``HookedMUDDTransformer``."""

    def new_kv_cache(self: Any, batch: int, pos: int) -> list[LayerKeyValues]:
        """An empty cache for :meth:`forward`'s ``past_kv_cache``: one entry for each block.

        Decoding keeps keys and values per block; of the outputs X_j, which the dense connections
        mix within a token only, those of the current tokens are enough. In memory the positions of
        a head follow each other: so its newest query reads them in one go.
        """
        shape = (batch, self.config.kv_heads, pos, self.config.head_width)

        def empty() -> Float[Tensor, "batch pos kv_head d_head"]:
            return self.embed.W_E.new_empty(shape).transpose(1, 2)

        return [LayerKeyValues(empty(), empty()) for _ in range(self.config.n_layers)]

    def _continue(
        self: Any, tokens: Int[Tensor, "batch pos"], how: Decoding
    ) -> tuple[Int[Tensor, "batch longer"], tuple[Float[Tensor, "batch d_vocab"], ...]]:
        room = tokens.shape[1] + how.max_new_tokens
        past = self.new_kv_cache(len(tokens), room) if how.use_past_kv_cache else None
        done = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
        kept: list[Tensor] = []
        for step in track(range(how.max_new_tokens), "generating", disable=not how.verbose):
            unseen = tokens[:, -1:] if step and past is not None else tokens
            logits = self.logits(unseen, past)[:, -1].clone()  # a view would keep the prompt's
            choice = sample_logits(logits, tokens=tokens, **asdict(how.sampling))
            choice = choice.masked_fill(done, how.fill)
            tokens = torch.cat((tokens, choice[:, None]), dim=1)
            done = done | how.ended(tokens, logits)
            if how.keep_logits:
                kept.append(logits)
            if done.all():
                break
        return tokens, tuple(kept)


def _text(tokenizer: Any, tokens: Int[Tensor, "batch pos"]) -> str | list[str]:
    texts = [
        tokenizer.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for row in tokens.tolist()
    ]
    return texts[0] if len(texts) == 1 else texts


def _model_output(**fields: Any) -> Any:
    # two seconds to import
    from transformers.generation.utils import GenerateDecoderOnlyOutput

    return GenerateDecoderOnlyOutput(**fields)
