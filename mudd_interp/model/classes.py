"""The task of a vision model: the class of what was read."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from mudd_interp.config import Classes
from mudd_interp.ids import id_tensor
from mudd_interp.model.layers import linear_weight
from mudd_interp.precision import wide
from mudd_interp.protocol import Inputs, Trait


class ClassHead(nn.Module):
    """Class logits: ``pooled W_U + b_U``, with ``pooled`` the mean over positions, or the first.

    With pre-logits it is ``tanh(pooled W_P + b_P) W_U + b_U``. ``hook_pooled`` is what is pooled.
    """

    def __init__(self, classes: Classes, d_model: int, n_classes: int):
        super().__init__()
        self.W_U = linear_weight(d_model, n_classes)
        self.b_U = nn.Parameter(torch.zeros(n_classes))
        self.pre_logits, self.pooling = classes.pre_logits, classes.pooling
        if classes.pre_logits:
            self.W_P = linear_weight(d_model, d_model)
            self.b_P = nn.Parameter(torch.zeros(d_model))
        self.hook_pooled = HookPoint()

    def forward(self, final: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch d_vocab"]:
        """Logits of the classes, of the normed final stream."""
        pooled = final.mean(1) if self.pooling == "mean" else final[:, 0]
        return self.decode(self.hook_pooled(pooled))

    def decode(self, x: Float[Tensor, "*shape d_model"]) -> Float[Tensor, "*shape d_vocab"]:
        """What would be said of a stream as it is."""
        if self.pre_logits:
            x = F.linear(x, self.W_P.T, self.b_P).tanh()
        return F.linear(x, self.W_U.T, self.b_U)


class ClassTask:
    """Tells the class of an input; see :class:`mudd_interp.model.task.Task`.

    Args:
        head: Logits ``[batch d_vocab]``, one for each class.
    """

    traits: frozenset[Trait] = frozenset({"classes"})

    def __init__(self, head: ClassHead):
        self.head = head

    def loss(
        self,
        output: Float[Tensor, "batch d_vocab"],
        batch: Inputs,
        target: Any = None,
        each: bool = False,
    ) -> Float[Tensor, "..."]:
        """Cross-entropy of the right classes, in nats.

        Raises:
            ValueError: If there are no classes to score by, or they are not one for each input.
        """
        classes = self._targets(batch, target, output.shape[-1])
        reduction = "none" if each else "mean"
        return F.cross_entropy(wide(output), classes.to(output.device), reduction=reduction)

    def _targets(self, batch: Inputs, target: Any, n_classes: int) -> Int64[Tensor, " batch"]:
        if target is None:
            raise ValueError("a loss of classes needs the class of each input: give a target.")
        classes = id_tensor(target)
        if list(classes.shape) != [len(batch)]:
            raise ValueError(
                f"expected one class for each of {len(batch)} inputs, got shape "
                f"{list(classes.shape)}."
            )
        low, high = (int(end) for end in classes.aminmax())
        if low < 0 or high >= n_classes:
            wrong = low if low < 0 else high
            raise ValueError(f"a class must lie in 0..{n_classes - 1}, got {wrong}.")
        return classes
