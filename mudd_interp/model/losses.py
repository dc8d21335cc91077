"""Next-token losses of logits."""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from mudd_interp.precision import wide


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
