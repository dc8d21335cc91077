"""Our hook points, each tied to the place in a TransformerBridge where its tensor is."""

from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from mudd_interp import axes
from mudd_interp.axes import Stream
from mudd_interp.model.block import ATTENTION_STREAMS
from mudd_interp.model.points import (
    PointTable,
    enter,
    has_gradient_hooks,
    has_hooks,
    may_change,
    same,
)

NO_PLACE = "this architecture's bridge has no place for it"

ATTENTION_HOOKS = ("hook_q", "hook_k", "hook_v", "hook_rot_q", "hook_rot_k", "hook_attn_scores",
                   "hook_pattern")  # fmt: skip
MLP_HOOKS = ("hook_pre", "hook_pre_linear", "hook_post")
NORM_HOOKS = ("hook_scale", "hook_normalized")

HOOKS = ("fwd_hooks", "bwd_hooks", "_forward_hooks", "_backward_hooks")
"""Where a hook point keeps its hooks: TransformerLens' lists, and PyTorch's."""


class Tap:
    """A permanent hook on a bridge's hook point that passes the tensor through one of ours.

    With ``copy`` a hook that may change the tensor gets a copy of its own: others read the tensor
    too, or the bridge takes the same object for an unchanged one.
    """

    def __init__(self, point: HookPoint, copy: bool = False):
        self.point, self.copy = point, copy

    def __call__(self, tensor: Tensor, hook: HookPoint) -> Tensor | None:  # noqa: ARG002 (a hook's signature)
        """The tensor after our hooks, or ``None`` if it is the same."""
        if not has_hooks(self.point):
            return None
        seen = enter(self.point, tensor) if self.copy else self.point(tensor)
        return None if seen is tensor else seen


class NormTap(Tap):
    """A tap of a block's first norm that remembers whether its last pass was edited."""

    edited: bool = False

    def __call__(self, tensor: Tensor, hook: HookPoint) -> Tensor | None:
        """See :class:`Tap`."""
        seen = super().__call__(tensor, hook)
        self.edited = seen is not None and not same(seen, tensor)
        return seen


class Taps(PointTable):
    """All hook points of a bridged model."""

    def __init__(self, bridge: Any):
        super().__init__()
        self.add(axes.EMBED)
        self.blocks = [BlockTaps(self, block, layer) for layer, block in enumerate(bridge.blocks)]
        self.tie(axes.RESID_FINAL, bridge, "ln_final.hook_in", copy=True)
        self.tie_norm(bridge, "ln_final", "ln_final")

    def tie(
        self, name: str, root: Any, path: str, copy: bool = False, kind: type[Tap] = Tap
    ) -> Tap | None:
        """A hook point of ours on a place of the bridge; the name is absent if there is none."""
        place = hook_point(root, path)
        if place is None:
            self.absent[name] = NO_PLACE
            return None
        tap = kind(self.add(name), copy)
        place.add_perma_hook(tap)
        return tap

    def tie_norm(self, root: Any, path: str, name: str) -> list[NormTap]:
        """The two hook points of a norm; the bridge cannot edit one that has no weight."""
        weight = getattr(getattr(root, path, None), "weight", None)
        taps: list[Tap | None] = []
        for hook in NORM_HOOKS:
            if hook_point(root, f"{path}.{hook}") is not None and weight is None:
                self.absent[f"{name}.{hook}"] = "the bridge cannot edit a norm without a weight"
            else:
                taps.append(self.tie(f"{name}.{hook}", root, f"{path}.{hook}", True, NormTap))
        return [tap for tap in taps if isinstance(tap, NormTap)]

    @contextmanager
    def between(self, start: int | None, stop: int | None) -> Generator[None]:
        """No hook of ours fires before one block, nor when another is reached and not run.

        The bridge runs what it then throws away, and shows the input of the block where it stops.
        """
        below = () if start is None else (axes.EMBED, *(axes.block(i, "") for i in range(start)))
        reached = () if stop is None else (axes.resid_pre(stop),)
        silent = (*below, *reached)
        muted = [point for name, point in self.points.items() if name.startswith(silent)]
        kept = [{name: point.__dict__[name] for name in HOOKS} for point in muted]
        for point in muted:
            point.__dict__.update({name: type(point.__dict__[name])() for name in HOOKS})
        try:
            yield
        finally:
            for point, hooks in zip(muted, kept, strict=True):
                point.__dict__.update(hooks)


class BlockTaps:
    """The hook points of one block, and what its exact edits need of the running forward pass.

    A bridge lacks three of our edits: one stream of q, k and v alone (it has one per head, and
    for all layers at once), the middle of the residual stream (its hook changes what the FFN
    reads, and not the stream itself), and the output of each head of one layer only. They are
    computed here, from the tensors of the pass; without a hook nothing is computed twice.
    """

    def __init__(self, taps: Taps, block: Any, layer: int):
        self.block, self.layer, self.taps = block, layer, taps
        self.embed = taps.points[axes.EMBED] if layer == 0 else None
        self.resid_pre = self._on("hook_in", "hook_resid_pre", self.begin)
        self.ln1 = taps.tie_norm(block, "ln1", self._name("ln1"))
        for stream in ATTENTION_STREAMS:
            self._on(f"attn.{stream}.hook_in", f"hook_{stream}_input", partial(self.split, stream))
        for name in ATTENTION_HOOKS:
            taps.tie(self._name(f"attn.{name}"), block, f"attn.{name}")
        self.z = self._on("attn.hook_z", "attn.hook_z", self.keep_z)
        self.result = self._on("attn.o.hook_out", "attn.hook_result", self.add_heads)
        taps.tie(self._name("hook_attn_out"), block, "hook_attn_out")
        self.resid_mid = self._on("hook_resid_mid", "hook_resid_mid", self.middle)
        taps.tie_norm(block, "ln2", self._name("ln2"))
        for name in MLP_HOOKS:
            taps.tie(self._name(f"mlp.{name}"), block, f"mlp.{name}")
        self.mlp_out = self._on("hook_mlp_out", "hook_mlp_out", self.keep_mlp_out)
        self.resid_post = self._on("hook_out", "hook_resid_post", self.end)
        self._forget()

    def _name(self, name: str) -> str:
        return axes.block(self.layer, name)

    def _on(self, path: str, name: str, action: Any) -> HookPoint | None:
        place = hook_point(self.block, path)
        if place is None:
            self.taps.absent[self._name(name)] = NO_PLACE
            return None
        point = self.taps.add(self._name(name))
        place.add_perma_hook(action)
        return point

    def _forget(self) -> None:
        self._input: Tensor | None = None
        self._middle: Tensor | None = None
        self._z: Tensor | None = None
        self._mlp_out: Tensor | None = None

    def begin(
        self,
        x: Float[Tensor, "batch pos d_model"],
        hook: HookPoint,  # noqa: ARG002 (a hook's signature)
    ) -> Float[Tensor, "batch pos d_model"]:
        """What enters the block; for the first one, X_0 (token and position embedding) first."""
        if self.embed is not None:
            x = enter(self.embed, x)
        assert self.resid_pre is not None
        self._input = enter(self.resid_pre, x)
        return self._input

    def split(
        self,
        stream: Stream,
        normed: Float[Tensor, "batch pos d_model"],
        hook: HookPoint,  # noqa: ARG002 (a hook's signature)
    ) -> Float[Tensor, "batch pos d_model"] | None:
        """What one projection reads: the block's input after the stream's own hook and norm."""
        point = self.taps.points.get(axes.stream_input(self.layer, stream))
        if point is None or not has_hooks(point) or self._input is None:
            return None
        if not may_change(point):
            point(self._input)
            return None
        own = enter(point, self._input)
        edits = [tap.point.name for tap in self.ln1 if tap.edited]
        if edits and same(own, self._input) and not has_gradient_hooks(point):
            return None  # only looked at
        if edits:
            raise ValueError(
                f"an edit of {edits[0]} would not reach stream {stream}, which is edited by itself "
                f"at {axes.stream_input(self.layer, stream)} and normed apart: use one of the two."
            )
        return self._norm(own).to(normed.dtype)

    def _norm(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """The block's first norm without its hooks, which belong to the unsplit input."""
        norm = getattr(self.block, "ln1", None)
        return x if norm is None else norm.original_component(x)

    def keep_z(self, z: Float[Tensor, "batch pos head d_head"], hook: HookPoint) -> Tensor | None:
        """The mixed values of each head; kept if the heads' outputs are asked for."""
        assert self.z is not None
        changed = Tap(self.z)(z, hook)
        if self.result is not None and has_hooks(self.result):
            self._z = z if changed is None else changed
        return changed

    def add_heads(
        self,
        out: Float[Tensor, "batch pos d_model"],
        hook: HookPoint,  # noqa: ARG002 (a hook's signature)
    ) -> Float[Tensor, "batch pos d_model"] | None:
        """The sum of the heads' outputs, where a hook may change them."""
        z, self._z = self._z, None
        if self.result is None or z is None or not has_hooks(self.result):
            return None
        attn = self.block.attn
        heads = self.result(torch.einsum("bphe,hed->bphd", z, attn.W_O.to(z.dtype)))
        if not may_change(self.result):
            return None
        bias = getattr(attn.o.original_component, "bias", None)
        total = heads.sum(2)
        return (total if bias is None else total + bias).to(out.dtype)

    def middle(
        self,
        x: Float[Tensor, "batch pos d_model"],
        hook: HookPoint,  # noqa: ARG002 (a hook's signature)
    ) -> Float[Tensor, "batch pos d_model"]:
        """The stream between attention and FFN; an edit also goes past the FFN, see ``end``."""
        assert self.resid_mid is not None
        seen = enter(self.resid_mid, x)
        self._middle = seen if may_change(self.resid_mid) else None
        return seen

    def keep_mlp_out(self, x: Float[Tensor, "batch pos d_model"], hook: HookPoint) -> Tensor | None:
        """The output of the FFN."""
        assert self.mlp_out is not None
        changed = Tap(self.mlp_out)(x, hook)
        self._mlp_out = x if changed is None else changed
        return changed

    def end(
        self,
        x: Float[Tensor, "batch pos d_model"],
        hook: HookPoint,  # noqa: ARG002 (a hook's signature)
    ) -> Float[Tensor, "batch pos d_model"]:
        """The block's output: of the edited middle, where that is hooked."""
        assert self.resid_post is not None
        if self._middle is not None and self._mlp_out is not None:
            x = self._middle + self._mlp_out
        self._forget()
        return self.resid_post(x)


def hook_point(root: Any, path: str) -> HookPoint | None:
    """The hook point at a dotted path below a bridge's component, if there is one."""
    found = root
    for part in path.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, HookPoint) else None
