"""Decoding with a cache of keys and values."""

from typing import Any, Literal

import torch
from jaxtyping import Int
from rich.progress import track
from torch import Tensor
from transformer_lens.utilities.logits_utils import sample_logits

from mudd_interp.model.attention import LayerKeyValues


def new_kv_cache(
    n_layers: int, batch: int, pos: int, heads: tuple[int, int], like: Tensor
) -> list[LayerKeyValues]:
    """Empty keys and values for ``pos`` positions; ``heads`` is (number, width)."""
    return [
        LayerKeyValues(like.new_empty(batch, pos, *heads), like.new_empty(batch, pos, *heads))
        for _ in range(n_layers)
    ]


class GenerateMethods:
    """``generate``, with the arguments of TransformerBridge's."""

    def new_kv_cache(self: Any, batch: int, pos: int) -> list[LayerKeyValues]:
        """An empty cache for :meth:`forward`'s ``past_kv_cache``: one entry for each block.

        Decoding keeps keys and values per block; of the outputs X_j, which the dense connections
        mix within a token only, those of the current tokens are enough.
        """
        heads = (self.config.kv_heads, self.config.head_width)
        return new_kv_cache(self.config.n_layers, batch, pos, heads, self.embed.W_E)

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
        return_type: Literal["input", "str", "tokens"] | None = "input",
        verbose: bool = True,
    ) -> str | list[str] | Int[Tensor, "batch pos"]:
        """The prompt and ``max_new_tokens`` more.

        Args:
            input: Text or token ids, as in :meth:`forward`.
            max_new_tokens: How many tokens to add at most.
            stop_at_eos: End a row at the end-of-text token; the row is then filled up with it.
            eos_token_id: That token; ``None`` means the tokenizer's.
            do_sample: Sample; else take the most likely token (the first one on ties).
            top_k: Sample among the k most likely only.
            top_p: Sample among the most likely that make up this probability.
            temperature: Divides the logits.
            freq_penalty: Subtracted from a token's logit for each time it occurred.
            repetition_penalty: Divides (multiplies, if negative) logits of tokens that occurred.
            use_past_kv_cache: Keep keys and values instead of running the whole prefix again.
            prepend_bos: As in :meth:`forward`.
            return_type: ``"str"``, ``"tokens"``, or ``"input"``: what the input was.
            verbose: Show a progress bar.

        Returns:
            Text for text and ids ``[batch pos]`` for ids, unless ``return_type`` says otherwise.

        Raises:
            ValueError: If prompt and new tokens exceed the context, or ``stop_at_eos`` is set and
                no end-of-text token is known.
        """
        tokens = self.tokens_of(input, prepend_bos)
        self._check_tokens(tokens, 0)
        self._check_room(tokens.shape[1], max_new_tokens)
        eos = self._eos(eos_token_id) if stop_at_eos else None
        past = self.new_kv_cache(tokens.shape[0], tokens.shape[1] + max_new_tokens)
        done = torch.zeros(tokens.shape[0], dtype=torch.bool, device=tokens.device)
        for step in track(range(max_new_tokens), "generating", disable=not verbose):
            if use_past_kv_cache:
                logits = self.logits(tokens if step == 0 else tokens[:, -1:], past)[:, -1]
            else:
                logits = self.logits(tokens)[:, -1]
            choice = sample_logits(
                logits,
                top_k=top_k,
                top_p=top_p,
                temperature=temperature if do_sample else 0.0,
                freq_penalty=freq_penalty,
                repetition_penalty=repetition_penalty,
                tokens=tokens,
            )
            if eos is not None:
                choice = choice.masked_fill(done, eos)
                done |= choice == eos
            tokens = torch.cat((tokens, choice[:, None]), dim=1)
            if done.all():
                break
        return self._as_asked(tokens, input, return_type)

    def _check_room(self: Any, prompt: int, new: int) -> None:
        if prompt + new > self.config.n_ctx:
            raise ValueError(
                f"{prompt} tokens of prompt and {new} new ones do not fit the context of "
                f"{self.config.n_ctx}: ask for at most {self.config.n_ctx - prompt}."
            )

    def _eos(self: Any, given: int | None) -> int:
        eos = given if given is not None else getattr(self.tokenizer, "eos_token_id", None)
        if eos is None:
            raise ValueError(
                "stop_at_eos needs an end-of-text token, and the model has no tokenizer: give "
                "eos_token_id, or stop_at_eos=False."
            )
        return eos

    def _as_asked(self: Any, tokens: Int[Tensor, "batch pos"], given: Any, return_type: Any) -> Any:
        if return_type not in ("input", "str", "tokens", None):
            raise ValueError(
                f"return_type must be 'input', 'str', 'tokens' or None, got {return_type!r}."
            )
        text = return_type == "str" or (return_type == "input" and not isinstance(given, Tensor))
        if not text:
            return tokens
        strings = self.to_string(tokens)
        return strings if isinstance(given, list) else strings[0]
