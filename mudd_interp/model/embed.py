"""From token ids to X_0."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from mudd_interp.config import ModelConfig, TokenInput
from mudd_interp.model.attention import LayerKeyValues
from mudd_interp.model.layers import linear_weight, rms_norm
from mudd_interp.model.points import enter

CHANNELS = 24
"""How many channels smear's gate reads."""


class Embed(nn.Module):
    """Token embedding, ``W_E`` of shape ``[d_vocab d_model]``.

    By the configuration it is normed, has some of the token before added to it (smear), and, with
    learned positions, ``W_pos`` of shape ``[n_ctx d_model]``.
    """

    def __init__(self, cfg: ModelConfig):
        super().__init__()
        self.W_E = nn.Parameter(torch.empty(cfg.d_vocab, cfg.d_model))
        table = torch.empty(cfg.n_ctx, cfg.d_model) if cfg.learned_positions else None
        self.W_pos = None if table is None else nn.Parameter(table)
        front = cfg.front if isinstance(cfg.front, TokenInput) else TokenInput()
        self.normed, self.eps = front.normed, cfg.eps
        self.smear = Smear(cfg.d_model) if front.smear else None
        if front.smear:
            self.hook_pre_smear, self.hook_smear = HookPoint(), HookPoint()

    def forward(
        self, tokens: Int[Tensor, "batch pos"], past: LayerKeyValues | None = None
    ) -> Float[Tensor, "batch pos d_model"]:
        """X_0 of tokens; ``past`` is block 0's, when decoding."""
        x, start = F.embedding(tokens, self.W_E), 0 if past is None else past.length
        if self.normed:
            x = rms_norm(x, self.eps)
        if self.smear is not None:
            x = self._smeared(self.smear, x, past)
        return x if self.W_pos is None else x + self.W_pos[start : start + tokens.shape[1]]

    def _smeared(
        self, smear: "Smear", x: Float[Tensor, "batch pos d_model"], past: LayerKeyValues | None
    ) -> Float[Tensor, "batch pos d_model"]:
        x = enter(self.hook_pre_smear, x)
        gate, before = smear(x), None if past is None else past.embedding
        if past is not None:
            past.embedding = x[:, -1:].clone()
        if before is None:  # nothing is before the first token
            before = torch.zeros_like(x[:, :1])
            gate = torch.cat([torch.zeros_like(gate[:, :1]), gate[:, 1:]], dim=1)
        return x + self.hook_smear(gate) * torch.cat([before, x[:, :-1]], dim=1)


class Smear(nn.Module):
    """The gate of what is added of the token before; fresh, nothing is."""

    def __init__(self, d_model: int):
        super().__init__()
        self.W_gate = linear_weight(min(CHANNELS, d_model), 1)
        self.smear_lambda = nn.Parameter(torch.zeros(1))

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos 1"]:
        """``lambda * sigmoid(x W)``."""
        return self.smear_lambda * torch.sigmoid(x[..., : len(self.W_gate)] @ self.W_gate)
