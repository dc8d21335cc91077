"""Small questions to hook points."""

from jaxtyping import Float
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from mudd_interp.protocol import Observer


def has_hooks(*points: HookPoint) -> bool:
    """Whether any of the hook points has a hook, forward or backward."""
    return any(point.fwd_hooks or point.bwd_hooks for point in points)


def may_change(point: HookPoint) -> bool:
    """Whether a hook point has a hook that could change the tensor or needs its gradient."""
    return bool(point.bwd_hooks) or any(
        not isinstance(handle.user_hook, Observer) for handle in point.fwd_hooks
    )


def enter(point: HookPoint, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Pass a tensor that others read too: hooks that may change it get a copy of their own."""
    return point(x.clone() if may_change(point) else x)
