"""Multi-head attention with separate inputs for queries, keys and values."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from mudd_interp.config import ModelConfig
from mudd_interp.model.layers import RMSNorm, position_encoding
from mudd_interp.model.masks import make_mask
from mudd_interp.model.points import has_hooks
from mudd_interp.precision import wide


@dataclass
class LayerKeyValues:
    """Keys (after rotary) and values of one block, preallocated for decoding without gradients.

    Attributes:
        keys: ``[batch pos kv_head d_head]``, filled up to ``length``.
        values: The same for values.
        length: Number of positions filled.
    """

    keys: Float[Tensor, "batch pos kv_head d_head"]
    values: Float[Tensor, "batch pos kv_head d_head"]
    length: int = 0

    def append(
        self,
        keys: Float[Tensor, "batch new kv_head d_head"],
        values: Float[Tensor, "batch new kv_head d_head"],
    ) -> tuple[
        Float[Tensor, "batch seen kv_head d_head"], Float[Tensor, "batch seen kv_head d_head"]
    ]:
        """Store new positions and return all positions so far."""
        end = self.length + keys.shape[1]
        if keys.shape[0] != self.keys.shape[0] or end > self.keys.shape[1]:
            raise ValueError(
                f"the cache of keys and values is for {self.keys.shape[0]} sequences of "
                f"{self.keys.shape[1]} tokens, and {keys.shape[0]} of {end} came: make a larger "
                "one with new_kv_cache."
            )
        self.keys[:, self.length : end] = keys
        self.values[:, self.length : end] = values
        self.length = end
        return self.keys[:, :end], self.values[:, :end]


def head_weight(n_heads: int, d_head: int, d_model: int) -> nn.Parameter:
    """A ``[head d_model d_head]`` parameter, laid out in memory as ``[(head d_head) d_model]``."""
    return nn.Parameter(torch.empty(n_heads, d_head, d_model).transpose(1, 2))


def bias(wanted: bool, *shape: int) -> nn.Parameter | None:
    """A parameter of zeros, or ``None`` in a model without biases."""
    return nn.Parameter(torch.zeros(shape)) if wanted else None


class Attention(nn.Module):
    """Multi-head attention, MHA(X^Q, X^K, X^V) of the paper's section 2.4.

    What a position sees is its ``mask``'s to say, and where queries and keys are, ``positions``'.
    The fused kernel is used unless a hook asks for scores or pattern; ``hook_result`` (the output
    of each head, before their sum) is computed only when it is hooked. With ``use_fused`` off all
    of them are computed always.
    """

    use_fused: bool = True

    def __init__(self, cfg: ModelConfig):
        super().__init__()
        self.n_heads, self.kv_heads, self.d_head = cfg.n_heads, cfg.kv_heads, cfg.head_width
        self.W_Q = head_weight(cfg.n_heads, cfg.head_width, cfg.d_model)
        self.W_K = head_weight(cfg.kv_heads, cfg.head_width, cfg.d_model)
        self.W_V = head_weight(cfg.kv_heads, cfg.head_width, cfg.d_model)
        self.W_O = nn.Parameter(
            torch.empty(cfg.d_model, cfg.n_heads, cfg.head_width).permute(1, 2, 0)
        )
        self.b_Q = bias(cfg.attn_bias, cfg.n_heads, cfg.head_width)
        self.b_K = bias(cfg.attn_bias, cfg.kv_heads, cfg.head_width)
        self.b_V = bias(cfg.attn_bias, cfg.kv_heads, cfg.head_width)
        self.b_O = bias(cfg.attn_bias, cfg.d_model)
        if cfg.use_qk_norm:
            self.q_norm = RMSNorm(cfg.head_width, cfg.eps)
            self.k_norm = RMSNorm(cfg.head_width, cfg.eps)
            self.hook_q_normed, self.hook_k_normed = HookPoint(), HookPoint()
        self.use_qk_norm = cfg.use_qk_norm
        self.mask, self.positions = make_mask(cfg), position_encoding(cfg)
        self.hook_q, self.hook_k, self.hook_v = HookPoint(), HookPoint(), HookPoint()
        self.hook_rot_q, self.hook_rot_k = HookPoint(), HookPoint()
        self.hook_attn_scores, self.hook_pattern = HookPoint(), HookPoint()
        self.hook_z, self.hook_result = HookPoint(), HookPoint()

    def forward(
        self,
        query_input: Float[Tensor, "batch pos d_model"],
        key_input: Float[Tensor, "batch pos d_model"],
        value_input: Float[Tensor, "batch pos d_model"],
        past: LayerKeyValues | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """Attend with normed inputs; ``past`` holds the positions before these, when decoding."""
        start = 0 if past is None else past.length
        q = self.hook_q(project(query_input, self.W_Q, self.b_Q))
        k = self.hook_k(project(key_input, self.W_K, self.b_K))
        v = self.hook_v(project(value_input, self.W_V, self.b_V))
        if self.use_qk_norm:
            q, k = self.hook_q_normed(self.q_norm(q)), self.hook_k_normed(self.k_norm(k))
        q = self.hook_rot_q(self.positions(q, start))
        k = self.hook_rot_k(self.positions(k, start))
        if past is not None:
            k, v = past.append(k, v)
        return self._output(self.hook_z(self._mix_values(q, k, v)))

    def _mix_values(
        self,
        q: Float[Tensor, "batch query head d_head"],
        k: Float[Tensor, "batch key kv_head d_head"],
        v: Float[Tensor, "batch key kv_head d_head"],
    ) -> Float[Tensor, "batch query head d_head"]:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        if self.use_fused and not has_hooks(self.hook_attn_scores, self.hook_pattern):
            mixed = F.scaled_dot_product_attention(
                q,
                k,
                v,
                enable_gqa=self.kv_heads != self.n_heads,
                **self.mask.fused(q.shape[2], k.shape[2], q.device),
            )
            return mixed.transpose(1, 2)
        if self.kv_heads != self.n_heads:
            k, v = (x.repeat_interleave(self.n_heads // self.kv_heads, dim=1) for x in (k, v))
        # Each pass over the scores costs as much as their product: queries are scaled instead.
        scores = (q / math.sqrt(self.d_head)) @ k.transpose(2, 3)
        scores = self.hook_attn_scores(self.mask.on(scores))
        pattern = self.hook_pattern(wide(scores).softmax(-1).to(v.dtype))
        return (pattern @ v).transpose(1, 2)

    def _output(
        self, z: Float[Tensor, "batch pos head d_head"]
    ) -> Float[Tensor, "batch pos d_model"]:
        if self.use_fused and not has_hooks(self.hook_result):
            return F.linear(z.flatten(2), self.W_O.permute(2, 0, 1).flatten(1), self.b_O)
        result = torch.einsum("bphe,hed->bphd", z, self.W_O)
        out = self.hook_result(result).sum(2)
        return out if self.b_O is None else out + self.b_O


def project(
    x: Float[Tensor, "batch pos d_model"],
    weight: Float[Tensor, "head d_model d_head"],
    bias: Float[Tensor, "head d_head"] | None,
) -> Float[Tensor, "batch pos head d_head"]:
    """Project to heads: ``x W + b``."""
    flat = weight.transpose(1, 2).flatten(0, 1)  # (head d_head) d_model, as it lies in memory
    out = F.linear(x, flat, None if bias is None else bias.flatten())
    return out.unflatten(-1, weight.shape[::2])
