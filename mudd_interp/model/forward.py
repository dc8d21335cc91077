"""``forward`` with TransformerLens' arguments, and the loss."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from mudd_interp.model.arguments import FORWARD, FORWARD_TAKES, check_return_type, refuse
from mudd_interp.model.attention import LayerKeyValues
from mudd_interp.model.hooking import eager_where_hooked
from mudd_interp.model.switches import HookSwitches
from mudd_interp.model.tokens import check_tokens
from mudd_interp.precision import wide


class LossMethods:
    """Next-token losses of a model's logits."""

    @staticmethod
    def loss_fn(
        logits: Float[Tensor, "batch pos d_vocab"],
        tokens: Int[Tensor, "batch pos"],
        attention_mask: Tensor | None = None,
        per_token: bool = False,
    ) -> Float[Tensor, ""] | Float[Tensor, "batch predicted"]:
        """Next-token cross-entropy in nats.

        Args:
            logits: Of every position.
            tokens: What was read.
            attention_mask: ``[batch pos]``, 1 where a token counts. A prediction counts if both of
                its tokens do, the one that is read and the one that is predicted.
            per_token: One value for each predicted position, 0 where it does not count; else the
                mean over those that do.

        Raises:
            ValueError: If there is nothing to predict, or the mask has another shape.
        """
        if tokens.shape[1] < 2:
            raise ValueError("a loss needs at least two tokens: the second is predicted.")
        predictions = wide(logits[:, :-1]).flatten(0, 1)
        targets = tokens[:, 1:].flatten().to(logits.device)
        loss = F.cross_entropy(predictions, targets, reduction="none").view(len(tokens), -1)
        if attention_mask is None:
            return loss if per_token else loss.mean()
        if getattr(attention_mask, "shape", None) != tokens.shape:
            raise ValueError(
                f"attention_mask must be a tensor of the tokens' shape, {list(tokens.shape)}, got "
                f"{getattr(attention_mask, 'shape', attention_mask)!r}."
            )
        mask = attention_mask.to(logits.device).bool()
        counts = mask[:, 1:] & mask[:, :-1]
        if not counts.any():
            raise ValueError("attention_mask leaves no two tokens in a row: nothing is predicted.")
        loss = loss.masked_fill(counts.logical_not(), 0.0)
        return loss if per_token else loss.sum() / counts.sum()

    def input_to_embed(
        self: Any,
        input: Any,
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
        tokens = self.tokens_of(input, prepend_bos)
        return self(tokens, stop_at_layer=0), tokens, None, None


class ForwardMethods(LossMethods, HookSwitches):
    """``forward`` of ``HookedMUDDTransformer``."""

    @eager_where_hooked
    def forward(
        self: Any,
        input: Any,
        return_type: str | None = "logits",
        loss_per_token: bool = False,
        prepend_bos: bool | None = None,
        start_at_layer: int | None = None,
        stop_at_layer: int | None = None,
        past_kv_cache: Any = None,
        **refused: Any,
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
                is the final norm. With dense connections a later block needs X_0..X_l, so only 0 is
                taken, and X_0 with it: :meth:`logits_from` goes on from all of them.
            stop_at_layer: Return the R stream that enters this block instead, ``[batch pos
                d_model]``; counted in the same way. (In a MUDD model the other streams are in the
                hooks.)
            past_kv_cache: Keys and values of earlier positions, from :meth:`new_kv_cache`.
            **refused: Other arguments of TransformerLens' models: each is refused, with the reason.

        Raises:
            ValueError: If the input is empty, longer than the context, or has ids outside the
                vocabulary; or an argument is out of range or refused.
        """
        refuse("forward", FORWARD, FORWARD_TAKES, refused)
        check_return_type(return_type)
        stop = None if stop_at_layer is None else layer_index(self, "stop_at_layer", stop_at_layer)
        if start_at_layer is None:
            tokens = self.tokens_of(input, prepend_bos)
            self._check_tokens(tokens, self._seen(past_kv_cache))
            stream = self.final_stream(tokens, past_kv_cache, stop)
        else:
            tokens = None
            start = layer_index(self, "start_at_layer", start_at_layer)
            if past_kv_cache is not None:
                raise ValueError("start_at_layer and past_kv_cache exclude each other.")
            given = stream_to_start(self, input, start, stop, return_type)
            stream = self._stream_from(given, start, stop)
        if stop is not None:
            return stream
        final = self.ln_final(stream)
        if return_type is None:
            return None
        logits = self.unembed(final)
        if return_type == "logits":
            return logits
        loss = self.loss_fn(logits, tokens, per_token=loss_per_token)
        return loss if return_type == "loss" else (logits, loss)

    def _stream_from(
        self: Any, x: Float[Tensor, "batch pos d_model"], start: int, stop: int | None
    ) -> Float[Tensor, "batch pos d_model"]:
        if start and not self.wiring.additive:
            raise ValueError(
                f"block {start} reads X_0..X_{start}, each with weights of its own, so one stream "
                "does not say how to go on: give them all to model.logits_from, or start at 0 "
                "with X_0."
            )
        return self.run_blocks([x] * (start + 1), stop_at_layer=stop)

    def _seen(self: Any, past: Any) -> int:
        """How many positions came before."""
        if past is None:
            return 0
        listed = isinstance(past, Sequence) and len(past) == self.config.n_layers
        if not listed or not isinstance(past[0], LayerKeyValues):
            raise ValueError(
                f"past_kv_cache must hold keys and values of {self.config.n_layers} blocks, from "
                f"model.new_kv_cache(batch, pos), got {type(past).__name__}."
            )
        return past[0].length

    def _check_tokens(self: Any, tokens: Int[Tensor, "batch pos"], seen: int) -> None:
        if not torch.compiler.is_compiling():
            check_tokens(tokens, seen, self.config.n_ctx, self.config.d_vocab)


def layer_index(model: Any, name: str, layer: int) -> int:
    """A block's number from 0, where negative ones count from the end; n_layers is allowed."""
    n_layers = model.cfg.n_layers
    if not -n_layers <= layer <= n_layers:
        raise ValueError(f"{name} must lie in -{n_layers}..{n_layers}, got {layer}.")
    return layer + n_layers if layer < 0 else layer


def stream_to_start(
    model: Any, given: Any, start: int, stop: int | None, return_type: str | None
) -> Float[Tensor, "batch pos d_model"]:
    """What to go on from, on the model's device; ``[pos d_model]`` is a row.

    Raises:
        ValueError: If it is no stream of the model, the end lies before the start, or a loss is
            asked for, which needs tokens.
    """
    if stop is not None and stop < start:
        raise ValueError(f"stop_at_layer {stop} lies before start_at_layer {start}.")
    if stop is None and return_type in ("loss", "both"):
        raise ValueError(
            "a loss needs the tokens, and start_at_layer takes a stream: take the logits, and "
            "model.loss_fn(logits, tokens)."
        )
    cfg = model.cfg
    shape = list(given.shape) if isinstance(given, Tensor) else []
    if len(shape) not in (2, 3) or shape[-1] != cfg.d_model:
        raise ValueError(
            f"start_at_layer takes a residual-stream tensor [batch pos {cfg.d_model}], such as "
            f"cache['resid_pre', layer], got {shape or type(given).__name__}."
        )
    if given.dtype != cfg.dtype:
        raise ValueError(f"the stream is {given.dtype}, and the model {cfg.dtype}: convert one.")
    if not 0 < shape[-2] <= cfg.n_ctx:
        raise ValueError(f"a stream has 1 to {cfg.n_ctx} positions here, got {shape[-2]}.")
    return (given if len(shape) == 3 else given[None]).to(cfg.device)
