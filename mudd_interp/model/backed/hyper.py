"""The hook points on the streams and gates of a model with hyper-connections.

The gate p is no output of Hugging Face's modules: it is computed here from their parameters, and
what a hook makes of it is made of what the sublayer reads, too.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from mudd_interp import axes
from mudd_interp.model.backed.places import Places, first_of, moved, with_first
from mudd_interp.model.points import enter, has_hooks, may_change
from mudd_interp.model.wirings.hyper import taken
from mudd_interp.precision import wide


class Site:
    """The hook points in front of one sublayer, on the module that makes its gates.

    That module returns ``(w, comb, u)``, with ``comb`` the transpose of T, or ``(w, u)`` where the
    streams are not mixed.

    Args:
        places: All hook points of the model.
        number: Of the sublayer, in the order of depth.
        connection: The module.
        mixes: Whether streams are mixed.
        read: The name of the hook on what the sublayer reads.
        hold: The module that is given the streams, to keep them beside the sublayer; or, where
            the block makes them itself, the connection.

    Attributes:
        edit: What an edit of the streams adds to them behind the sublayer, where the block does not
            see it.
    """

    def __init__(
        self,
        places: Places,
        number: int,
        connection: nn.Module,
        *,
        mixes: bool,
        read: str,
        hold: nn.Module,
    ):
        self.streams = places.add(axes.hyper(number, "hook_streams"))
        hold.register_forward_pre_hook(self._begin)
        self.pre = places.add(axes.hyper(number, "hook_pre"))
        self.post = places.add(axes.hyper(number, "hook_post"))
        self.mix = places.add(axes.hyper(number, "hook_mix")) if mixes else None
        self.read = places.add(read)
        self.edit: Tensor | None = None
        self.apart = hold is connection
        connection.register_forward_hook(self._gates)

    def _begin(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:  # noqa: ARG002 (a hook's signature)
        """The streams after their hook."""
        self.edit = None
        if not has_hooks(self.streams):
            return None
        x = enter(self.streams, inputs[0])
        if self.apart and may_change(self.streams):
            self.edit = wide(x) - wide(inputs[0])
        return (x, *inputs[1:])

    def _gates(self, module: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> Any:
        """The gates and what is read, after their hooks."""
        x = inputs[0]
        post, *combined, read = output
        read = edited_read(self.pre, module, x, read)
        post, mix = self.post(post), None if self.mix is None else self.mix(combined[0].mT)
        if self.edit is not None and mix is not None:
            self.edit = wide(mix) @ self.edit
        return (post, *(() if mix is None else (mix.mT,)), enter(self.read, read))


class Block:
    """The hook points of one block on its streams, gates, norms and sublayers.

    An edit of the streams in front of the FFN would reach its gates only, since the block keeps the
    unedited streams beside it: then what the block puts out is edited too.

    Args:
        places: All hook points of the model.
        layer: The block's number.
        block: The decoder layer.
        mixes: Whether streams are mixed.
    """

    def __init__(self, places: Places, layer: int, block: Any, mixes: bool):
        self.attn = Site(
            places,
            2 * layer,
            block.attn_hc,
            mixes=mixes,
            read=axes.resid_pre(layer),
            hold=block,
        )
        self._block, self._mixes = block, mixes

    def ffn(self, places: Places, layer: int) -> None:
        """The half of the block behind its attention."""
        block = self._block
        self.mlp = Site(
            places,
            2 * layer + 1,
            block.ffn_hc,
            mixes=self._mixes,
            read=axes.block(layer, "hook_resid_mid"),
            hold=block.ffn_hc,
        )
        places.on_norm(
            axes.block(layer, "ln2"),
            block.post_attention_layernorm,
            block.post_attention_layernorm.variance_epsilon,
        )
        places.on_output(axes.mlp_out(layer), block.mlp)
        block.register_forward_hook(self._put_out)

    def _put_out(self, module: nn.Module, inputs: Any, output: Any) -> Any:  # noqa: ARG002 (a hook's signature)
        """The streams behind the block, where those in front of its FFN may have been edited."""
        beside, self.mlp.edit = self.mlp.edit, None
        return None if beside is None else with_first(output, moved(first_of(output), beside))


class Head:
    """The hook points on the streams in front of the head, and on its gate."""

    def __init__(self, places: Places, head: nn.Module):
        places.on_input(axes.HEAD_STREAMS, head)
        self.pre = places.add(axes.HEAD_GATE)
        head.register_forward_hook(self._gate)

    def _gate(self, module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        return edited_read(self.pre, module, inputs[0], output)


def edited_read(
    point: HookPoint,
    module: Any,
    x: Float[Tensor, "batch pos stream d_model"],
    read: Float[Tensor, "batch pos d_model"],
) -> Float[Tensor, "batch pos d_model"]:
    """What is read of streams, after the hook on p."""
    if not has_hooks(point):
        return read
    pre = gate_of(module, x)
    seen = enter(point, pre)
    return moved(read, taken(seen - pre, wide(x))) if may_change(point) else read


def gate_of(
    module: Any, x: Float[Tensor, "batch pos stream d_model"]
) -> Float[Tensor, "batch pos stream"]:
    """The gate p of a connection or of the head, from its parameters, in at least float32.

    It is ``sigmoid(a m + b) + eps``, with m a matrix times all streams side by side, RMS-normed.
    """
    is_head = hasattr(module, "hc_fn")
    names = ("hc_fn", "hc_scale", "hc_base") if is_head else ("fn", "scale", "base")
    fn, scale, base = (wide(getattr(module, name)) for name in names)
    n, flat = x.shape[-2], wide(x).flatten(-2)
    normed = flat * torch.rsqrt(flat.square().mean(-1, keepdim=True) + module.input_norm.eps)
    eps = module.eps if is_head else module.hc_eps
    return torch.sigmoid(F.linear(normed, fn[:n]) * scale[0] + base[:n]) + eps
