"""The hook points inside the attention of a backed model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformer_lens.hook_points import HookPoint

from mudd_interp import axes
from mudd_interp.model.backed.places import Places, moved
from mudd_interp.model.points import enter, has_hooks, may_change

SINK = (
    "its rows would not sum to one: a learned sink takes the rest, and compressed keys may stand "
    "behind the positions; `{shares}` is what there is"
)
NORMED = "a norm stands between the heads and what their attention writes, so heads do not add up"


@dataclass(frozen=True)
class Heads:
    """How the heads of an architecture's attention are put together.

    Attributes:
        mixed: The part of the attention that reads what the heads mixed.
        out: The part of it that gives what they wrote.
        W_O: The output weights of each head, ``[head d_head d_model]``; ``None`` where what the
            heads give is normed before it is written.
        sink: Whether a learned sink takes a share of each row.
    """

    mixed: str
    out: str
    W_O: Callable[[Any], Float[Tensor, "head d_head d_model"]] | None
    sink: bool


class AttentionPlaces:
    """The hook points of one attention.

    Args:
        places: All hook points of the model.
        layer: Of the block.
        attn: The attention's module.
        heads: How its heads are put together.
        n_heads: How many there are.
    """

    def __init__(self, places: Places, layer: int, attn: Any, heads: Heads, n_heads: int):
        self.attn, self.heads, self.n_heads = attn, heads, n_heads
        self._z: Tensor | None = None
        name = axes.shares(layer) if heads.sink else axes.pattern(layer)
        _AtDropout(places.add(name), attn)
        if heads.sink:
            places.absent[axes.pattern(layer)] = SINK.format(shares=name)
        self.z = places.add(axes.attn(layer, "hook_z"))
        getattr(attn, heads.mixed).register_forward_pre_hook(self._mixed)
        result = axes.attn(layer, "hook_result")
        if heads.W_O is None:
            places.absent[result] = NORMED
            return
        self.result = places.add(result)
        getattr(attn, heads.out).register_forward_hook(self._written)

    def _mixed(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:  # noqa: ARG002 (a hook's signature)
        """What each head mixed."""
        wanted = self.heads.W_O is not None and has_hooks(self.result)
        if not has_hooks(self.z) and not wanted:
            return None
        x = inputs[0]
        z = enter(self.z, x.reshape(*x.shape[:2], self.n_heads, -1))
        self._z = z if wanted else None
        return (z.reshape(x.shape), *inputs[1:])

    def _written(
        self,
        module: nn.Module,  # noqa: ARG002 (a hook's signature)
        inputs: tuple[Tensor, ...],  # noqa: ARG002 (a hook's signature)
        out: Float[Tensor, "batch pos d_model"],
    ) -> Float[Tensor, "batch pos d_model"] | None:
        """The sum of what the heads wrote, where a hook may change one."""
        z, self._z = self._z, None
        if z is None or self.heads.W_O is None:
            return None
        each = torch.einsum("bphe,hed->bphd", z, self.heads.W_O(self.attn).to(z.dtype))
        seen = enter(self.result, each)
        return moved(out, (seen - each).sum(2)) if may_change(self.result) else None


class _AtDropout(TorchFunctionMode):
    """Passes attention probabilities through a hook point on their way to the values.

    Eager attention drops some of them there in training, and has no module for it.
    """

    def __init__(self, point: HookPoint, attn: nn.Module):
        super().__init__()
        self.point, self._entered = point, False
        attn.register_forward_pre_hook(self._begin)
        attn.register_forward_hook(self._end, always_call=True)

    def _begin(self, module: nn.Module, inputs: Any) -> None:  # noqa: ARG002 (a hook's signature)
        if has_hooks(self.point):
            self._entered = True
            self.__enter__()

    def _end(self, module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG002 (a hook's signature)
        if self._entered:
            self._entered = False
            self.__exit__(None, None, None)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Torch's method: what is called instead of a function of torch's."""
        if func is F.dropout:
            args = (enter(self.point, args[0]), *args[1:])
        return func(*args, **(kwargs or {}))


def of_one_matrix(n_heads: int, weight: Float[Tensor, "d_model heads_d_head"]) -> Any:
    """The output weights of each head, of one matrix for all of them."""
    return weight.T.unflatten(0, (n_heads, -1))


def of_groups(attn: Any) -> Float[Tensor, "head d_head d_model"]:
    """The same where groups of heads go through a matrix of their own, then all through one."""
    groups, n_heads = attn.o_a_proj.n_groups, attn.num_heads
    narrow = attn.o_a_proj.weight.unflatten(0, (groups, -1)).unflatten(2, (n_heads // groups, -1))
    broad = attn.o_b_proj.weight.unflatten(1, (groups, -1))
    return torch.einsum("grhe,dgr->ghed", narrow, broad).flatten(0, 1)
