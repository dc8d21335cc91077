"""The hook points of a Gemma 3n: AltUp's streams, LAuReL and per-layer embeddings."""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mudd_interp import axes
from mudd_interp.model.backed.attention import AttentionPlaces, Heads
from mudd_interp.model.backed.places import Places
from mudd_interp.model.points import enter, has_hooks, may_change
from mudd_interp.model.wirings.altup import WRITES


class Block:
    """The hook points of one block, in the order in which they run.

    Args:
        places: All hook points of the model.
        layer: The block's number.
        block: The decoder layer.
        heads: How the heads of its attention are put together.
        n_heads: How many there are.
    """

    def __init__(self, places: Places, layer: int, block: Any, heads: Heads, n_heads: int):
        at = partial(axes.block, layer)
        places.end_before(layer, block, partial(_active_prediction, block.altup))
        if layer == 0:
            self.entering = [
                places.add(axes.embed_stream(i)) for i in range(block.config.altup_num_inputs)
            ]
            block.register_forward_pre_hook(self._enter)
        self.streams = places.add(axes.altup(layer, "hook_streams"))
        block.register_forward_pre_hook(self._begin)
        self.predict = places.add(axes.altup(layer, "hook_predict"))
        block.altup.prediction_coefs.register_forward_hook(self._predict)
        places.on_input(axes.resid_pre(layer), block.input_layernorm)
        places.on_norm(at("ln1"), block.input_layernorm, block.input_layernorm.eps)
        places.on_output(at(WRITES["laurel"]), block.laurel)
        AttentionPlaces(places, layer, block.self_attn, heads, n_heads)
        places.on_output(at(WRITES["attn"]), block.post_attention_layernorm)
        places.on_input(at("hook_resid_mid"), block.pre_feedforward_layernorm)
        places.on_norm(
            at("ln2"), block.pre_feedforward_layernorm, block.pre_feedforward_layernorm.eps
        )
        places.on_output(at(WRITES["mlp"]), block.post_feedforward_layernorm)
        self.correct = places.add(axes.altup(layer, "hook_correct"))
        block.altup.correction_coefs.register_forward_hook(self._correct)
        self.gated = places.add(at("hook_ple_in"))
        if block.config.altup_correct_scale:
            # the one seam between the stream and its scale is this method, which is no module
            scaled = block.altup.scale_corrected_output
            block.altup.scale_corrected_output = lambda x: scaled(enter(self.gated, x))
        else:
            block.per_layer_input_gate.register_forward_pre_hook(
                lambda _, inputs: (enter(self.gated, inputs[0]),)
            )
        places.on_output(at(WRITES["ple"]), block.post_per_layer_input_norm)

    def _enter(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:  # noqa: ARG002 (a hook's signature)
        """Each stream that enters block 0."""
        if not has_hooks(*self.entering):
            return None
        pairs = zip(self.entering, inputs[0].unbind(0), strict=True)
        return (torch.stack([enter(point, x) for point, x in pairs]), *inputs[1:])

    def _begin(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:  # noqa: ARG002 (a hook's signature)
        """The streams in front of the block."""
        if not has_hooks(self.streams):
            return None
        seen = enter(self.streams, by_stream(inputs[0]))
        return (seen.permute(2, 0, 1, 3), *inputs[1:]) if may_change(self.streams) else None

    def _predict(self, module: nn.Module, inputs: Any, flat: Tensor) -> Tensor | None:  # noqa: ARG002 (a hook's signature)
        """C, of whose coefficients the module gives a list."""
        if not has_hooks(self.predict):
            return None
        n = int(flat.shape[-1] ** 0.5)
        return self.predict(flat.unflatten(-1, (n, n))).flatten(-2)

    def _correct(self, module: nn.Module, inputs: Any, given: Tensor) -> Tensor | None:  # noqa: ARG002 (a hook's signature)
        """c, which is one more than what the module gives."""
        if not has_hooks(self.correct):
            return None
        seen = self.correct(given + 1.0)
        return seen - 1.0 if may_change(self.correct) else None


class Behind:
    """The hook point on the streams behind the last block."""

    def __init__(self, places: Places, block: nn.Module):
        self.point = places.add(axes.STREAMS_FINAL)
        block.register_forward_hook(self._seen)

    def _seen(self, module: nn.Module, inputs: Any, x: Tensor) -> Tensor | None:  # noqa: ARG002 (a hook's signature)
        if not has_hooks(self.point):
            return None
        seen = enter(self.point, by_stream(x))
        return seen.permute(2, 0, 1, 3) if may_change(self.point) else None


def by_stream(
    x: Float[Tensor, "stream batch pos d_model"],
) -> Float[Tensor, "batch pos stream d_model"]:
    """Streams as they are hooked, from as they are computed with."""
    return x.permute(1, 2, 0, 3)


def _active_prediction(
    altup: Any, x: Float[Tensor, "stream batch pos d_model"]
) -> Float[Tensor, "batch pos d_model"]:
    return altup.predict(x)[altup.config.altup_active_idx]
