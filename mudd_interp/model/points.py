"""Small questions to hook points: is anything there that looks, or that may change a tensor?

Besides TransformerLens' hooks these are torch's own (``register_forward_hook`` and its kin), a
``forward`` that was put in the place of a module's own (nnsight does so), and a module put in the
place of a hook point. Torch's global hooks, which profilers use, are not asked for.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from mudd_interp.protocol import Observer

FORWARD_TABLES = ("_forward_hooks", "_forward_pre_hooks")
GRADIENT_TABLES = ("_backward_hooks", "_backward_pre_hooks")


class PointTable:
    """The hook points of a model by name, in the order in which they run.

    Attributes:
        points: Those that it has.
        absent: Names that other models have and this one has not, each with the reason.
    """

    def __init__(self) -> None:
        self.points: dict[str, HookPoint] = {}
        self.absent: dict[str, str] = {}

    def add(self, name: str) -> HookPoint:
        """A new hook point."""
        point = HookPoint()
        point.name = name
        self.points[name] = point
        return point

    def drop(self, name: str, reason: str) -> None:
        """Take a name out of the hook points, for a reason."""
        del self.points[name]
        self.absent[name] = reason


def hook_tables(module: nn.Module) -> tuple[Mapping[int, object], ...]:
    """Where torch keeps a module's hooks, TransformerLens' among them: always the same objects."""
    return tuple(module.__dict__[name] for name in (*FORWARD_TABLES, *GRADIENT_TABLES))


def is_hooked(module: nn.Module) -> bool:
    """Whether a module has a hook of any kind, or a ``forward`` that is not its class's."""
    own = module.__dict__  # asked for each norm of each pass: no loop, no generator
    return bool(
        own["_forward_hooks"]
        or own["_backward_hooks"]
        or own["_forward_pre_hooks"]
        or own["_backward_pre_hooks"]
        or "forward" in own
    )


def has_hooks(*points: nn.Module) -> bool:
    """Whether any of the hook points has a hook of any kind, or is another module by now."""
    for point in points:  # noqa: SIM110  (twice as fast as a generator)
        if type(point) is not HookPoint or is_hooked(point):
            return True
    return False


def has_gradient_hooks(*points: nn.Module) -> bool:
    """Whether any of the modules has a hook on its gradient."""
    return any(point.__dict__[name] for point in points for name in GRADIENT_TABLES)


def may_change(point: nn.Module) -> bool:
    """Whether something at a hook point could change the tensor, or needs its gradient."""
    return has_hooks(point) and not _only_looked_at(point)


def _only_looked_at(point: nn.Module) -> bool:
    """Whether all that is there are observers of ours."""
    return (
        type(point) is HookPoint
        and "forward" not in point.__dict__
        and not (point.__dict__["_forward_pre_hooks"] or has_gradient_hooks(point))
        and len(point.__dict__["_forward_hooks"]) == len(point.fwd_hooks)
        and all(isinstance(handle.user_hook, Observer) for handle in point.fwd_hooks)
    )


def enter(point: nn.Module, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Pass a tensor that others read too: hooks that may change it get a copy of their own."""
    return point(x.clone() if may_change(point) else x)


def same(a: Float[Tensor, "..."], b: Float[Tensor, "..."]) -> bool:
    """Whether two tensors hold the same numbers, NaN included."""
    alike = a.shape == b.shape and a.dtype == b.dtype
    return a is b or (alike and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True))
