"""Hook points on modules of a Hugging Face model, tied by torch's forward (pre-)hooks."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from mudd_interp.model.points import PointTable, enter, has_hooks, may_change
from mudd_interp.precision import wide


class Stopped(Exception):  # noqa: N818 (it is no error)
    """The pass ends here; what it was to come to is its argument."""


class Places(PointTable):
    """All hook points of a backed model.

    Attributes:
        stop: The block in front of which a pass is to end; ``None`` for none.
    """

    stop: int | None = None

    def on_input(self, name: str, module: nn.Module) -> None:
        """A new hook point on a module's first argument."""
        module.register_forward_pre_hook(partial(_first_argument, self.add(name)))

    def on_output(self, name: str, module: nn.Module) -> None:
        """A new hook point on what a module returns, of several things the first."""
        module.register_forward_hook(partial(_first_output, self.add(name)))

    def on_norm(self, name: str, norm: nn.Module, eps: float) -> None:
        """The two hook points of an RMSNorm: what it divides by, and what it gives before a gain.

        Args:
            name: Of the norm.
            norm: The module; its ``weight`` is the gain.
            eps: What is added to the mean square.
        """
        scale, normalized = self.add(f"{name}.hook_scale"), self.add(f"{name}.hook_normalized")
        norm.register_forward_hook(partial(_norm, scale, normalized, eps))

    def end_before(self, layer: int, module: nn.Module, read: Callable[[Tensor], Tensor]) -> None:
        """Let passes end in front of a block, with what its first sublayer would read.

        Args:
            layer: The block.
            module: Its module.
            read: From the streams that it is given to that.
        """

        def end(module: nn.Module, inputs: tuple[Any, ...]) -> None:  # noqa: ARG001 (a hook's signature)
            if self.stop == layer:
                raise Stopped(read(inputs[0]))

        module.register_forward_pre_hook(end)


def _first_argument(
    point: HookPoint,
    module: nn.Module,  # noqa: ARG001 (a hook's signature)
    inputs: tuple[Any, ...],
) -> tuple[Any, ...] | None:
    if not has_hooks(point):
        return None
    return (enter(point, inputs[0]), *inputs[1:])


def _first_output(
    point: HookPoint,
    module: nn.Module,  # noqa: ARG001 (a hook's signature)
    inputs: tuple[Any, ...],  # noqa: ARG001 (a hook's signature)
    output: Any,
) -> Any:
    if not has_hooks(point):
        return None
    return with_first(output, enter(point, first_of(output)))


def first_of(output: Any) -> Tensor:
    """What a module returns, of several things the first."""
    return output[0] if isinstance(output, tuple) else output


def with_first(output: Any, changed: Tensor) -> Any:
    """What a module returns, with something else as the first of it."""
    return (changed, *output[1:]) if isinstance(output, tuple) else changed


def _norm(
    scale: HookPoint,
    normalized: HookPoint,
    eps: float,
    module: nn.Module,
    inputs: tuple[Any, ...],
    output: Tensor,
) -> Tensor | None:
    if not has_hooks(scale, normalized):
        return None
    x = wide(inputs[0])
    divisor = torch.sqrt(x.square().mean(-1, keepdim=True) + eps)
    divided = enter(normalized, x / enter(scale, divisor))
    if not may_change(scale) and not may_change(normalized):
        return None
    gain: Any = module.weight
    return moved(output, (divided - x / divisor) * wide(gain))


def moved(x: Tensor, by: Tensor) -> Tensor:
    """What a hook's edit makes of a tensor, by the difference that it makes.

    So where nothing is edited the code's own numbers stay, in any precision.
    """
    return (wide(x) + by).to(x.dtype)
