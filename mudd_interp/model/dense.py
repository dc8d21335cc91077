"""The depth aggregation: the weights that a block's output asks for, and the mix they make.

Everything that sets this family apart from a plain Transformer is in this module (paper,
sections 2.2 to 2.4).
"""

import math
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from mudd_interp.axes import Stream, n_sources
from mudd_interp.config import ModelConfig
from mudd_interp.model.layers import RMSNorm, linear_weight, rms_norm
from mudd_interp.model.points import enter, has_hooks


def mix(
    weights: Float[Tensor, "batch pos stream source"],
    sources: Float[Tensor, "batch pos source d_model"],
) -> Float[Tensor, "batch pos stream d_model"]:
    """The aggregates X̄^c = sum_j A^c_j X_j of every stream, in one matrix product per token."""
    return weights @ sources


class SourceStack:
    """The outputs X_0, X_1, ... of a forward pass, stacked for the mix.

    Without gradients they fill one preallocated buffer in place, so nothing is copied twice; with
    gradients each mix stacks them anew, since backward needs them as they were.
    """

    def __init__(self, capacity: int):
        self._capacity = capacity
        self._outputs: list[Float[Tensor, "batch pos d_model"]] = []
        self._buffer: Float[Tensor, "batch pos capacity d_model"] | None = None

    def append(self, x: Float[Tensor, "batch pos d_model"]) -> None:
        """Add the next source."""
        if torch.is_grad_enabled():
            self._outputs.append(x)
            return
        if self._buffer is None:
            batch, pos, d_model = x.shape
            self._buffer = x.new_empty(batch, pos, self._capacity, d_model)
        self._buffer[:, :, len(self._outputs)] = x
        self._outputs.append(self._buffer[:, :, len(self._outputs)])

    def stacked(self) -> Float[Tensor, "batch pos source d_model"]:
        """Every source so far."""
        if self._buffer is not None:
            return self._buffer[:, :, : len(self._outputs)]
        return torch.stack(self._outputs, dim=2)


class PreNorm(RMSNorm):
    """The norm of one source, shared by all destinations (PrePostDANorm)."""

    def __init__(self, width: int, eps: float):
        super().__init__(width, eps)
        self.hook_out = HookPoint()

    def forward(self, x: Float[Tensor, "*shape d"]) -> Float[Tensor, "*shape d"]:
        """The normed source, gain included: what the dense weights multiply."""
        return self.hook_out(super().forward(x))


class DepthAggregation(nn.Module):
    """Aggregation ``i``: DA after block ``i``, the paper's Eq. for A_i and its multiway form.

    ``A = GELU(RMSNorm(X) W_1) W_2 + a`` for dynamic connections, ``A = a`` for static ones: signed
    and unbounded, they sum to nothing in particular. ``a`` has shape ``[stream source]``, ``W_2``
    ``[hidden (stream source)]``. Streams on the plain residual have no weights and no hook.
    """

    def __init__(self, cfg: ModelConfig, index: int):
        super().__init__()
        self.streams: tuple[Stream, ...] = cfg.ways(index)
        self.n_sources, self.eps = n_sources(index), cfg.eps
        self.a = nn.Parameter(torch.zeros(len(self.streams), self.n_sources))
        self.dynamic = cfg.dense == "dynamic"
        if self.dynamic:
            hidden = cfg.dense_hidden(index)
            self.W_1 = linear_weight(cfg.d_model, hidden)
            self.W_2 = linear_weight(hidden, len(self.streams) * self.n_sources)
        if cfg.pre_post_norm == "residual" and self.dynamic:
            self.weight_norm = RMSNorm(cfg.d_model, cfg.eps)
        normed = {"none": (), "all": self.streams, "residual": ("r",)}[cfg.pre_post_norm]
        self.post_norms = nn.ModuleDict(
            {s: RMSNorm(cfg.d_model, cfg.eps, gain=1e-3) for s in self.streams if s in normed}
        )
        self.add_newest = cfg.pre_post_norm != "none"
        for stream in self.streams:
            self.add_module(f"hook_weights_{stream}", HookPoint())

    def init_weights(self) -> None:
        """The paper's initialisation: W_1 ~ N(0, 1/D), W_2 = 0, a one-hot on the newest output.

        With PrePostDANorm a = 0. Either way a fresh model *is* the plain Transformer.
        """
        with torch.no_grad():
            self.a.zero_()
            if not self.add_newest:
                self.a[:, -1] = 1.0
            if self.dynamic:
                self.W_1.normal_(std=1 / math.sqrt(self.W_1.shape[0]))
                self.W_2.zero_()

    def weights(
        self, x: Float[Tensor, "batch pos d_model"]
    ) -> Float[Tensor, "batch pos stream source"]:
        """The weights of every source for every stream at every token, static part included."""
        shape = (len(self.streams), self.n_sources)
        if self.dynamic:
            normed = self.weight_norm(x) if hasattr(self, "weight_norm") else rms_norm(x, self.eps)
            dynamic = F.linear(F.gelu(F.linear(normed, self.W_1.T)), self.W_2.T)
            weights = dynamic.unflatten(-1, shape) + self.a
        else:
            weights = self.a.expand(*x.shape[:2], *shape)
        hooks = [cast(nn.Module, self._modules[f"hook_weights_{s}"]) for s in self.streams]
        if not has_hooks(*hooks):
            return weights
        if not self.dynamic:
            weights = weights.clone()  # what a hook or a cache keeps must not be the parameter
        return torch.stack([enter(hook, weights[:, :, c]) for c, hook in enumerate(hooks)], 2)

    def forward(
        self,
        weight_input: Float[Tensor, "batch pos d_model"],
        sources: Float[Tensor, "batch pos source d_model"],
        newest: Float[Tensor, "batch pos d_model"],
    ) -> dict[Stream, Float[Tensor, "batch pos d_model"]]:
        """The aggregate of each stream that has weights.

        Args:
            weight_input: What the weight MLP reads: the newest output X_{i+1}.
            sources: X_0..X_{i+1}, normed with PrePostDANorm.
            newest: X_{i+1}, added to every stream with PrePostDANorm.
        """
        mixed = mix(self.weights(weight_input), sources).unbind(2)
        streams = dict(zip(self.streams, mixed, strict=True))
        for stream in self.streams:
            if stream in self.post_norms:
                streams[stream] = self.post_norms[stream](streams[stream])
        return {s: x + newest for s, x in streams.items()} if self.add_newest else streams


def one_hot_newest(sources: int, like: Tensor) -> Float[Tensor, " source"]:
    """The weights of a plain residual: one on the newest source, zero elsewhere."""
    weights = torch.zeros(sources, dtype=like.dtype, device=like.device)
    weights[-1] = 1.0
    return weights
