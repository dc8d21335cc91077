"""What a model is for: the way from its final stream to an output, and how that is scored."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from mudd_interp.precision import wide
from mudd_interp.protocol import Inputs, Trait


@runtime_checkable
class Task(Protocol):
    """What scores an output."""

    @property
    def head(self) -> Callable[..., Any]:
        """From the normed final stream ``[batch pos d_model]`` to the output.

        Of a model of ours it is a module, whose matrices ``W_...`` are drawn as all others are.
        """
        ...

    @property
    def traits(self) -> frozenset[Trait]:
        """``next_token``, where it is that."""
        ...

    def loss(
        self, output: Tensor, batch: Inputs, target: Any = None, each: bool = False
    ) -> Float[Tensor, "..."]:
        """The loss of an output, in nats.

        Args:
            output: What the head made of a batch.
            batch: What was read.
            target: What the output should be, where what was read does not say it.
            each: One value for each prediction; else their mean.

        Raises:
            ValueError: If there is nothing to score the output by.
        """
        ...


class NextToken:
    """Every position predicts the token that follows it.

    Args:
        head: The unembedding: logits ``[batch pos d_vocab]``.
    """

    traits: frozenset[Trait] = frozenset({"next_token"})

    def __init__(self, head: Callable[..., Any]):
        self.head = head

    def loss(
        self, output: Tensor, batch: Inputs, target: Any = None, each: bool = False
    ) -> Float[Tensor, "..."]:
        """See :class:`Task` and :func:`loss_fn`.

        Raises:
            ValueError: If a target is given: it is the tokens that were read.
        """
        if target is not None:
            raise ValueError("the next token is the target, so give none.")
        return loss_fn(output, batch, per_token=each)


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
