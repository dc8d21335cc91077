"""Where a forward pass starts and stops, with TransformerLens' arguments."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from mudd_interp.protocol import ModelShape


def layer_index(cfg: ModelShape, name: str, layer: int) -> int:
    """A block's number from 0, where negative ones count from the end; n_layers is allowed."""
    n_layers = cfg.n_layers
    if not -n_layers <= layer <= n_layers:
        raise ValueError(f"{name} must lie in -{n_layers}..{n_layers}, got {layer}.")
    return layer + n_layers if layer < 0 else layer


def stream_to_start(
    cfg: ModelShape, given: Any, start: int, stop: int | None, return_type: str | None
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
