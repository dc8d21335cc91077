"""Multi-head attention with separate inputs for queries, keys and values."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from mudd_interp.config import ModelConfig
from mudd_interp.model.layers import RMSNorm, linear_weight, position_encoding
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
        embedding: Of block 0, the newest token's embedding by itself, where smear needs it.
    """

    keys: Float[Tensor, "batch pos kv_head d_head"]
    values: Float[Tensor, "batch pos kv_head d_head"]
    length: int = 0
    embedding: Float[Tensor, "batch 1 d_model"] | None = None

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
    With a value embedding, values (``hook_v``) have it in them.
    The fused kernel is used unless a hook asks for scores or pattern; ``hook_result`` (the output
    of each head, before their sum) is computed only when it is hooked. With ``use_fused`` off all
    of them are computed always.
    """

    use_fused: bool = True

    def __init__(self, cfg: ModelConfig, layer: int):
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
        self.rotary_first = cfg.rotary_before_qk_norm
        self.value_embed = ValueEmbed(cfg) if has_value_embedding(cfg, layer) else None
        if self.value_embed is not None:
            self.hook_value_embed, self.hook_value_gate = HookPoint(), HookPoint()
        self.mask, self.positions = make_mask(cfg, layer), position_encoding(cfg)
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
        tokens: Int[Tensor, "batch pos"] | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """Attend with normed inputs.

        Args:
            query_input: What queries are projected from.
            key_input: The same of keys.
            value_input: The same of values.
            past: The positions before these, when decoding.
            tokens: The ids at these positions, which value embeddings are of.
        """
        start = 0 if past is None else past.length
        q = self.hook_q(project(query_input, self.W_Q, self.b_Q))
        k = self.hook_k(project(key_input, self.W_K, self.b_K))
        v = project(value_input, self.W_V, self.b_V)
        if self.value_embed is not None:
            v = v + self._embedded(self.value_embed, value_input, tokens)
        v = self.hook_v(v)
        q, k = self._placed(q, k, start)
        if past is not None:
            k, v = past.append(k, v)
        return self._output(self.hook_z(self._mix_values(q, k, v)))

    def _placed(
        self,
        q: Float[Tensor, "batch pos head d_head"],
        k: Float[Tensor, "batch pos kv_head d_head"],
        start: int,
    ) -> tuple[Float[Tensor, "batch pos head d_head"], Float[Tensor, "batch pos kv_head d_head"]]:
        """Queries and keys, rotated and normed in the order of the configuration."""
        if self.use_qk_norm and not self.rotary_first:
            q, k = self.hook_q_normed(self.q_norm(q)), self.hook_k_normed(self.k_norm(k))
        q = self.hook_rot_q(self.positions(q, start))
        k = self.hook_rot_k(self.positions(k, start))
        if self.use_qk_norm and self.rotary_first:
            q, k = self.hook_q_normed(self.q_norm(q)), self.hook_k_normed(self.k_norm(k))
        return q, k

    def _embedded(
        self,
        embed: "ValueEmbed",
        x: Float[Tensor, "batch pos d_model"],
        tokens: Int[Tensor, "batch pos"] | None,
    ) -> Float[Tensor, "batch pos kv_head d_head"]:
        """What the value embedding adds."""
        if tokens is None:
            raise ValueError(
                "value embeddings are of tokens, and a pass that begins with streams has none: run "
                "the model on token ids, from the first block on."
            )
        gate = self.hook_value_gate(embed.gate(x))
        return self.hook_value_embed(gate[..., None] * embed(tokens))

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


class ValueEmbed(nn.Module):
    """A vector of each token for the values, ``W_E`` of shape ``[d_vocab kv_head d_head]``."""

    channels = 12
    """How many channels the gate reads."""

    def __init__(self, cfg: ModelConfig):
        super().__init__()
        self.W_E = nn.Parameter(torch.empty(cfg.d_vocab, cfg.kv_heads, cfg.head_width))
        self.W_gate = linear_weight(min(self.channels, cfg.d_model), cfg.kv_heads)

    def gate(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos kv_head"]:
        """``3 sigmoid(x W)``, of what values are projected from."""
        return 3 * torch.sigmoid(x[..., : len(self.W_gate)] @ self.W_gate)

    def forward(
        self, tokens: Int[Tensor, "batch pos"]
    ) -> Float[Tensor, "batch pos kv_head d_head"]:
        """The vectors, before the gate."""
        return F.embedding(tokens, self.W_E.flatten(1)).unflatten(-1, self.W_E.shape[1:])


def has_value_embedding(cfg: ModelConfig, layer: int) -> bool:
    """Whether a block has a value embedding: every other one, the last among them."""
    return cfg.value_embeddings and (cfg.n_layers - 1 - layer) % 2 == 0


def project(
    x: Float[Tensor, "batch pos d_model"],
    weight: Float[Tensor, "head d_model d_head"],
    bias: Float[Tensor, "head d_head"] | None,
) -> Float[Tensor, "batch pos head d_head"]:
    """Project to heads: ``x W + b``."""
    flat = weight.transpose(1, 2).flatten(0, 1)  # (head d_head) d_model, as it lies in memory
    out = F.linear(x, flat, None if bias is None else bias.flatten())
    return out.unflatten(-1, weight.shape[::2])
