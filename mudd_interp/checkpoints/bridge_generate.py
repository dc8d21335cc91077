"""Decoding with a baseline, by its bridge."""

from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from mudd_interp.model.tokens import check_tokens


class BaselineGenerate:
    """``generate``, with the arguments, errors and results of ``HookedMUDDTransformer``'s."""

    @torch.no_grad()
    def generate(
        self: Any,
        input: str | list[str] | Int[Tensor, "..."] = "",
        max_new_tokens: int = 10,
        stop_at_eos: bool = True,
        eos_token_id: int | None = None,
        prepend_bos: bool | None = None,
        return_type: Literal["input", "str", "tokens"] | None = "input",
        **kwargs: Any,
    ) -> str | list[str] | Int[Tensor, "batch pos"]:
        """The prompt and ``max_new_tokens`` more, by the bridge; hooks apply.

        The arguments, errors and result are those of ``HookedMUDDTransformer.generate``; further
        ones go to ``TransformerBridge.generate``.
        """
        tokens = self.tokens_of(input, prepend_bos)
        self._check_room(tokens, max_new_tokens)
        eos = self._eos(eos_token_id) if stop_at_eos else None
        with self._quiet():
            out = self.bridge.generate(
                tokens, max_new_tokens, stop_at_eos, eos, return_type="tokens", **kwargs
            )
        if return_type == "tokens" or (return_type != "str" and isinstance(input, Tensor)):
            return out
        texts = self.to_string(out)
        return texts if isinstance(input, list) else texts[0]

    def _check_room(self: Any, tokens: Int[Tensor, "batch pos"], new: int) -> None:
        check_tokens(tokens, 0, self.cfg.n_ctx, self.cfg.d_vocab)
        if tokens.shape[1] + new > self.cfg.n_ctx:
            raise ValueError(
                f"{tokens.shape[1]} tokens of prompt and {new} new ones do not fit the context of "
                f"{self.cfg.n_ctx}: ask for at most {self.cfg.n_ctx - tokens.shape[1]}."
            )

    def _eos(self: Any, given: int | None) -> int:
        eos = given if given is not None else getattr(self.tokenizer, "eos_token_id", None)
        if eos is None:
            raise ValueError(
                "stop_at_eos needs an end-of-text token, and the model has no tokenizer: give "
                "eos_token_id, or stop_at_eos=False."
            )
        return eos
