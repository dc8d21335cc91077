"""Norms, rotary position embedding, MLPs, and the unembedding."""

import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from mudd_interp.config import ModelConfig, NextTokenTask, RotaryRounding
from mudd_interp.model.points import has_hooks
from mudd_interp.precision import wide


def epsilon(eps: float | None, dtype: torch.dtype) -> float:
    """What a norm in a precision adds; ``None`` is the precision's smallest step."""
    return torch.finfo(dtype).eps if eps is None else eps


def rms_scale(x: Float[Tensor, "*shape d"], eps: float | None) -> Float[Tensor, "*shape 1"]:
    """Root mean square over the last axis, the divisor of RMSNorm; same unit as ``x``."""
    x = wide(x)
    return (x.square().mean(-1, keepdim=True) + epsilon(eps, x.dtype)).sqrt()


def rms_norm(x: Float[Tensor, "*shape d"], eps: float | None) -> Float[Tensor, "*shape d"]:
    """RMSNorm without a gain; the mean square of the result is one."""
    return F.rms_norm(wide(x), x.shape[-1:], eps=eps).to(x.dtype)


class Norm(nn.Module):
    """What both norms have: a gain ``w`` and hooks on the scale and on the normalised input.

    ``hook_scale`` is ``[... 1]``; ``hook_normalized`` is before the gain. Where neither is hooked
    the norm is one fused kernel, unless ``use_fused`` is off.
    """

    use_fused: bool = True

    def __init__(self, width: int, eps: float | None, gain: float = 1.0):
        super().__init__()
        self.eps, self.initial_gain = eps, gain
        self.w = nn.Parameter(torch.full((width,), gain))
        self.hook_scale = HookPoint()
        self.hook_normalized = HookPoint()

    @property
    def bias(self) -> Float[Tensor, " d"] | None:
        """What it adds, or ``None`` if nothing."""
        return getattr(self, "b", None)

    def forward(self, x: Float[Tensor, "*shape d"]) -> Float[Tensor, "*shape d"]:
        """Normalise, then apply the gain (and the bias, if there is one)."""
        return self.through(x, self.hook_scale, self.hook_normalized)

    def through(
        self, x: Float[Tensor, "*shape d"], hook_scale: nn.Module, hook_normalized: nn.Module
    ) -> Float[Tensor, "*shape d"]:
        """The same with the hook points of somebody else."""
        if self.use_fused and not has_hooks(hook_scale, hook_normalized):
            return self.fused(x)
        return self._in_steps(x, hook_scale, hook_normalized)

    def unhooked(
        self,
        x: Float[Tensor, "*shape d"],
        hook_scale: nn.Module | None = None,
        hook_normalized: nn.Module | None = None,
    ) -> Float[Tensor, "*shape d"]:
        """What :meth:`through` returns, to the bit, where its hooks change nothing."""
        points = (hook_scale or self.hook_scale, hook_normalized or self.hook_normalized)
        if self.use_fused and not has_hooks(*points):
            return self.fused(x)
        return self._in_steps(x, nn.Identity(), nn.Identity())

    def _in_steps(
        self, x: Float[Tensor, "*shape d"], hook_scale: nn.Module, hook_normalized: nn.Module
    ) -> Float[Tensor, "*shape d"]:
        centred = self.centred(wide(x))
        scale = hook_scale(rms_scale(centred, self.eps))
        return self.affine(hook_normalized((centred / scale).to(x.dtype)))

    def fused(self, x: Float[Tensor, "*shape d"]) -> Float[Tensor, "*shape d"]:
        """The whole norm in one kernel, where no hook asks for its parts."""
        raise NotImplementedError

    def centred(self, x: Float[Tensor, "*shape d"]) -> Float[Tensor, "*shape d"]:
        """What is divided by its root mean square."""
        raise NotImplementedError

    def affine(self, x: Float[Tensor, "*shape d"]) -> Float[Tensor, "*shape d"]:
        """Gain, and bias if there is one."""
        raise NotImplementedError


class RMSNorm(Norm):
    """``x / scale * w`` with ``scale`` the root mean square of ``x``."""

    def fused(self, x: Float[Tensor, "*shape d"]) -> Float[Tensor, "*shape d"]:
        """See :class:`Norm`."""
        return rms_norm(x, self.eps) * self.w

    def centred(self, x: Float[Tensor, "*shape d"]) -> Float[Tensor, "*shape d"]:
        """See :class:`Norm`."""
        return x

    def affine(self, x: Float[Tensor, "*shape d"]) -> Float[Tensor, "*shape d"]:
        """See :class:`Norm`."""
        return x * self.w


class LayerNorm(Norm):
    """``(x - mean) / scale * w + b`` with ``scale`` the standard deviation of ``x``.

    In half precision the hooked path rounds before the gain, the fused one after it.
    """

    def __init__(self, width: int, eps: float | None):
        super().__init__(width, eps)
        self.b = nn.Parameter(torch.zeros(width))

    def fused(self, x: Float[Tensor, "*shape d"]) -> Float[Tensor, "*shape d"]:
        """See :class:`Norm`."""
        eps = epsilon(self.eps, wide(x).dtype)
        return F.layer_norm(x, x.shape[-1:], self.w, self.b, eps)

    def centred(self, x: Float[Tensor, "*shape d"]) -> Float[Tensor, "*shape d"]:
        """See :class:`Norm`."""
        return x - x.mean(-1, keepdim=True)

    def affine(self, x: Float[Tensor, "*shape d"]) -> Float[Tensor, "*shape d"]:
        """See :class:`Norm`."""
        return x * self.w + self.b


class SharedNorm(nn.Module):
    """Another norm's parameters under hook points of its own; it owns no parameters."""

    def __init__(self, norm: Norm):
        super().__init__()
        self._norm = (norm,)  # in a tuple, so that it is not registered a second time
        self.hook_scale = HookPoint()
        self.hook_normalized = HookPoint()

    def forward(self, x: Float[Tensor, "*shape d"]) -> Float[Tensor, "*shape d"]:
        """The other norm, hooked here."""
        return self._norm[0].through(x, self.hook_scale, self.hook_normalized)

    def unhooked(self, x: Float[Tensor, "*shape d"]) -> Float[Tensor, "*shape d"]:
        """What it returns, to the bit, where its hooks change nothing."""
        return self._norm[0].unhooked(x, self.hook_scale, self.hook_normalized)


def make_norm(cfg: ModelConfig) -> Norm:
    """The norm of the configuration, over ``d_model``."""
    norm = RMSNorm if cfg.normalization_type == "RMS" else LayerNorm
    return norm(cfg.d_model, cfg.eps)


def rotary_tables(
    n_ctx: int, rotary_dim: int, base: float, rounding: RotaryRounding, dtype: torch.dtype
) -> tuple[Float[Tensor, "pos half"], Float[Tensor, "pos half"]]:
    """Cosines and sines of the rotation of each pair, by position.

    With a ``rounding`` to half precision the angles are computed in float32 and the tables rounded
    to that precision before they are used in ``dtype``, as in the released code. ``"float32"``
    rounds the frequencies only, as DenseFormer's checkpoints hold them, and the rest is computed in
    ``dtype``; with ``"float32_tables"`` all is computed in float32, as in transformers;
    ``"none"`` computes in float64.
    """
    exact = torch.float64 if rounding == "none" else torch.float32
    exponents = torch.arange(0, rotary_dim, 2).to(exact) / rotary_dim
    frequencies = 1.0 / base**exponents
    if rounding == "float32":
        exact = dtype
    angles = torch.outer(torch.arange(n_ctx).to(exact), frequencies.to(exact))
    stored = getattr(torch, rounding) if rounding in ("bfloat16", "float16") else exact
    if rounding == "float32_tables":  # of a complex number the last bit may be another
        return angles.cos().to(dtype), angles.sin().to(dtype)
    rotation = torch.polar(torch.ones_like(angles), angles)
    return rotation.real.to(stored).to(dtype), rotation.imag.to(stored).to(dtype)


class Rotary(nn.Module):
    """Rotary position embedding on the first ``rotary_dim`` dimensions of each head.

    Pairs dimension ``i`` with ``i + rotary_dim / 2`` (the GPT-NeoX pairing). The tables follow the
    input's device and precision, at least float32, and are not part of the state dict.
    """

    def __init__(self, cfg: ModelConfig):
        super().__init__()
        self.n_ctx, self.dim = cfg.n_ctx, cfg.rotated
        self.base = cfg.rotary_base
        self.rounding: RotaryRounding = cfg.rotary_rounding
        self._tables: dict[
            tuple[torch.device, torch.dtype],
            tuple[Float[Tensor, "pos half"], Float[Tensor, "pos half"]],
        ] = {}

    def tables(
        self, device: torch.device, dtype: torch.dtype
    ) -> tuple[Float[Tensor, "pos half"], Float[Tensor, "pos half"]]:
        """The tables on a device, computed once for each device and precision."""
        key = (device, dtype)
        if key not in self._tables:
            cos, sin = rotary_tables(self.n_ctx, self.dim, self.base, self.rounding, dtype)
            self._tables[key] = (cos.to(device), sin.to(device))
        return self._tables[key]

    def forward(
        self, x: Float[Tensor, "batch pos head d_head"], start: int = 0
    ) -> Float[Tensor, "batch pos head d_head"]:
        """Rotate queries or keys whose first position is ``start``."""
        turned, rest = wide(x[..., : self.dim]), x[..., self.dim :]
        cos, sin = self.tables(x.device, turned.dtype)
        span = slice(start, start + x.shape[1])
        cos, sin = cos[span, None], sin[span, None]
        a, b = turned.chunk(2, dim=-1)
        rotated = (a * cos - b * sin, b * cos + a * sin)
        return torch.cat((*(half.to(x.dtype) for half in rotated), rest), dim=-1)


class NoPositions(nn.Module):
    """Queries and keys as they are: where they stand is not told, or part of X_0."""

    def forward(
        self,
        x: Float[Tensor, "batch pos head d_head"],
        start: int = 0,  # noqa: ARG002 (what a position encoding is told)
    ) -> Float[Tensor, "batch pos head d_head"]:
        """See the class."""
        return x


def position_encoding(cfg: ModelConfig) -> Rotary | NoPositions:
    """What tells attention the positions of queries and keys, by the configuration."""
    return Rotary(cfg) if cfg.rotated else NoPositions()


def relu2(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The square of ReLU."""
    return F.relu(x).square()


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "relu2": relu2,
}


class MLP(nn.Module):
    """``act(x W_in + b_in) W_out + b_out``, or gated: ``(act(x W_gate) * (x W_in)) W_out``.

    ``hook_pre`` is what the activation function sees; when gated that is ``x W_gate``, and
    ``hook_pre_linear`` is ``x W_in`` (TransformerLens' names). Weights are stored as ``[in out]``.
    """

    def __init__(self, cfg: ModelConfig, d_mlp: int):
        super().__init__()
        self.act = ACTIVATIONS[cfg.act_fn]
        self.W_in = linear_weight(cfg.d_model, d_mlp)
        self.W_gate = linear_weight(cfg.d_model, d_mlp) if cfg.gated_mlp else None
        self.W_out = linear_weight(d_mlp, cfg.d_model)
        self.b_in = nn.Parameter(torch.zeros(d_mlp)) if cfg.mlp_bias else None
        self.b_gate = nn.Parameter(torch.zeros(d_mlp)) if cfg.mlp_bias and cfg.gated_mlp else None
        self.b_out = nn.Parameter(torch.zeros(cfg.d_model)) if cfg.mlp_bias else None
        self.hook_pre = HookPoint()
        self.hook_post = HookPoint()
        if cfg.gated_mlp:
            self.hook_pre_linear = HookPoint()

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """Two (gated: three) projections; see the class."""
        if self.W_gate is None:
            post = self.act(self.hook_pre(F.linear(x, self.W_in.T, self.b_in)))
        else:
            gate = self.act(self.hook_pre(F.linear(x, self.W_gate.T, self.b_gate)))
            post = gate * self.hook_pre_linear(F.linear(x, self.W_in.T, self.b_in))
        return F.linear(self.hook_post(post), self.W_out.T, self.b_out)


def linear_weight(d_in: int, d_out: int) -> nn.Parameter:
    """An ``[in out]`` parameter whose memory is laid out ``[out in]``, as checkpoints have it."""
    return nn.Parameter(torch.empty(d_out, d_in).T)


class Unembed(nn.Module):
    """Logits from the normed final stream: ``x W_U``, with ``W_U`` of shape ``[d_model d_vocab]``.

    With a softcap they are bounded: ``c tanh(x W_U / c)``. The family has no output bias; ``b_U``
    is a vector of zeros for tools that read one.
    """

    b_U: Float[Tensor, " d_vocab"]  # noqa: N815 (the field's name)

    def __init__(self, cfg: ModelConfig):
        super().__init__()
        self.W_U = linear_weight(cfg.d_model, cfg.d_vocab)
        self.register_buffer("b_U", torch.zeros(cfg.d_vocab), persistent=False)
        self.softcap = cfg.task.softcap if isinstance(cfg.task, NextTokenTask) else None
        if self.softcap is not None:
            self.hook_pre_softcap = HookPoint()

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_vocab"]:
        """Logits, in nats up to a constant per position."""
        logits = F.linear(x, self.W_U.T)
        if self.softcap is None:
            return logits
        logits = self.hook_pre_softcap(logits)
        return (self.softcap * torch.tanh(wide(logits) / self.softcap)).to(logits.dtype)


def init_weights(module: nn.Module, cfg: ModelConfig) -> None:
    """Draw the weight matrices of an embedding, attention or MLP; the paper leaves this open."""
    std = cfg.init_std if cfg.init_std is not None else math.sqrt(2 / (5 * cfg.d_model))
    for name, parameter in module.named_parameters():
        if name.rpartition(".")[2].startswith("W_"):
            output = name.endswith(("W_O", "W_out"))
            nn.init.normal_(parameter, std=std / math.sqrt(2 * cfg.n_layers) if output else std)
