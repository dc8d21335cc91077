"""Weights held as they were: what an edit does when nothing that routes answers to it.

An edit moves whatever follows it, the weights of later reads too, where they depend on tokens: it
is *live*. With those weights held at what they are in the pass without edits it is *frozen*: what
attention and FFN make of it is computed anew, what is read of what is not. Neither is the truth
about an edge; what differs between the two went through the weights.
"""

from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from mudd_interp.protocol import Hook, HookedModel, Observer

M = TypeVar("M", bound=HookedModel)


class Held:
    """The weights of one pass, or the gates that they are composed of.

    Args:
        model: Whose weights.
    """

    def __init__(self, model: HookedModel):
        self._names, self._name = model.wiring.moving, model.info.name
        self._tape: dict[str, Tensor] = {}

    def looks(self) -> list[Hook]:
        """Hooks that keep them while a pass runs; none where no token changes them."""
        return [(name, Observer(self._keep)) for name in self._names]

    def hooks(self, times: int = 1) -> list[Hook]:
        """Hooks that hold them in another pass, of the same batch or of several copies of it.

        They go before those of edits, which change what is held.
        """
        return [(name, partial(self._hold, times)) for name in self._names]

    def _keep(self, x: Tensor, hook: Any) -> None:
        self._tape[hook.name] = x.detach().clone()

    def _hold(self, times: int, x: Tensor, hook: Any) -> Tensor:
        kept = self._tape[hook.name]
        held = kept.repeat(times, *[1] * (kept.ndim - 1))
        if held.shape != x.shape:
            raise ValueError(
                f"the weights of {self._name} are held at those of {_shape(kept)}, got "
                f"{_shape(x)}: run the batch that they are of."
            )
        return held.to(x)


@contextmanager
def frozen(model: M, *batch: Any) -> Generator[M]:
    """A model whose weights stay those of one batch, whatever is edited inside the ``with`` block.

    It is run once on the batch, with the hooks that are on it; inside, edits are added and the same
    batch is run::

        with mi.frozen(model, tokens), mi.edited(model, "cut v 5<-2"):
            logits = model(tokens)

    An edit of a weight changes what is held; all that is not a weight is computed anew. Where no
    weight depends on a token (``model.wiring.gates == "static"``) nothing is different from a model
    that is not frozen.

    Args:
        model: Any hooked model, in evaluation mode.
        batch: Its input, token ids ``[batch pos]``.

    Raises:
        ValueError: Inside, if the model is run on another number of sequences or tokens.
    """
    held = Held(model)
    with torch.no_grad(), model.hooks(held.looks()):
        model(*batch, return_type=None)
    with model.hooks(held.hooks()):
        yield model


def _shape(x: Tensor) -> str:
    return f"{x.shape[0]} sequences of {x.shape[1]} tokens"
