"""The weights of all blocks in one tensor each, and the circuits that are made of them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens import FactoredMatrix
from transformer_lens.utilities.matrix import composition_scores

from mudd_interp import axes
from mudd_interp.axes import Stream, Sublayer
from mudd_interp.model.live_config import ConfigView

BIASES: dict[str, tuple[Sublayer, str, tuple[Any, ...]]] = {
    "b_Q": ("attn", "W_Q", (slice(None), 0)),
    "b_K": ("attn", "W_K", (slice(None), 0)),
    "b_V": ("attn", "W_V", (slice(None), 0)),
    "b_O": ("attn", "W_O", (0, 0)),
    "b_in": ("mlp", "W_in", (0,)),
    "b_out": ("mlp", "W_out", (0,)),
}
"""Where each bias is, and an entry of the weight beside it that has its shape."""


class Weights:
    """The weights of a model's blocks under TransformerLens' names, as they are, no norm folded in.

    Args:
        blocks: The blocks, with ``attn`` and ``mlp``.
        cfg: The configuration of their model.
        additive: Whether each block reads the plain sum of all that was written before it.
    """

    def __init__(self, blocks: Any, cfg: ConfigView, additive: bool = True):
        self.blocks, self.cfg, self.additive = blocks, cfg, additive

    def stacked(self, part: Sublayer, name: str) -> Float[Tensor, "layer ..."]:
        """A copy of one weight of every block.

        Raises:
            ValueError: If blocks differ in its shape, or one has not got it.
        """
        return _together(self._each(part, name), part, name)

    def biases(self, name: str) -> Float[Tensor, "layer ..."]:
        """A copy of one bias of every block; zeros where there are none."""
        part, weight, entry = BIASES[name]
        found = self._each(part, name)
        if all(bias is None for bias in found):
            beside = [w for w in self._each(part, weight) if w is not None]
            found = [torch.zeros_like(w[entry]) for w in beside]
        return _together(found, part, name)

    def gates(self) -> Float[Tensor, "layer d_model d_mlp"] | None:
        """The FFN's gate weights, ``None`` without gates."""
        if any(weight is None for weight in self._each("mlp", "W_gate")):
            return None
        return self.stacked("mlp", "W_gate")

    def query_key(self) -> FactoredMatrix:
        """``W_Q W_K^T`` of every head, ``[layer head d_model d_model]``, in factors."""
        keys = self._for_each_head(self.stacked("attn", "W_K"))
        return FactoredMatrix(self.stacked("attn", "W_Q"), keys.transpose(-2, -1))

    def output_value(self) -> FactoredMatrix:
        """``W_V W_O`` of every head, ``[layer head d_model d_model]``, in factors."""
        values = self._for_each_head(self.stacked("attn", "W_V"))
        return FactoredMatrix(values, self.stacked("attn", "W_O"))

    def head_labels(self) -> list[str]:
        """``"L0H0"``, ``"L0H1"``, ... of every head."""
        heads = range(self.cfg.n_heads)
        return [f"L{layer}H{head}" for layer in range(self.cfg.n_layers) for head in heads]

    def all_composition_scores(self, mode: Literal["Q", "K", "V"]) -> Any:
        """Composition of each head with each head of a later block, by their weights alone.

        ``||W_OV W|| / (||W_OV|| ||W||)`` with ``W`` the later head's ``QK``, its transpose, or its
        ``OV`` (Elhage et al., 2021): 0 to 1, and 0 where the second is not later.

        Args:
            mode: What the later head makes of it: ``"Q"``, ``"K"`` or ``"V"``.

        Returns:
            TransformerLens' ``CompositionScores``, ``[layer head layer head]``.

        Raises:
            NotImplementedError: With dense connections.
            ValueError: If there is no such mode.
        """
        from transformer_lens.model_bridge.composition_scores import CompositionScores  # seconds

        if mode not in ("Q", "K", "V"):
            raise ValueError(f"mode must be one of 'Q', 'K' and 'V', got {mode!r}.")
        if not self.additive:
            raise NotImplementedError(
                "all_composition_scores takes each head's output to reach all later heads as it "
                "is; with dense connections it is multiplied by a weight of its own for each "
                "stream, block and token: mudd_interp.analysis.composition has them in it."
            )
        values = self.output_value()
        reader = values if mode == "V" else self.query_key()
        reader = reader.T if mode == "K" else reader
        scores = composition_scores(values, reader, broadcast_dims=True)
        layers = torch.arange(self.cfg.n_layers, device=scores.device)
        earlier = layers[:, None, None, None] < layers[:, None]
        kept = torch.where(earlier, scores, torch.zeros_like(scores))
        return CompositionScores(kept, layers.tolist(), self.head_labels())

    def count(self) -> int:
        """How many numbers the model's parameters have, tied ones counted once."""
        raise NotImplementedError

    def tl_parameters(self) -> dict[str, Tensor]:
        """The parameters under TransformerLens' names; zeros for biases that there are not.

        Those of dense connections are in it too.
        """
        raise NotImplementedError

    def get_params(self) -> dict[str, Tensor]:
        """The same: another name that TransformerLens has for it."""
        return self.tl_parameters()

    def tl_named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """The same, one by one."""
        return iter(self.tl_parameters().items())

    def output_bias(self, layer: int, part: Sublayer) -> Float[Tensor, " d_model"]:
        """The output bias of a block's attention or FFN; zeros where it has none."""
        raise NotImplementedError

    def norm_gain(self, layer: int, stream: Stream) -> Float[Tensor, " d_model"]:
        """The gain of the norm that a block puts a stream (q, k or v) through."""
        raise NotImplementedError

    def accumulated_bias(
        self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True
    ) -> Float[Tensor, " d_model"]:
        """The sum of the output biases that reach a block (or its FFN); plain models only.

        Raises:
            NotImplementedError: With dense connections, where biases are weighted by token.
        """
        raise NotImplementedError

    def missing_biases(self, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Zeros for the biases that are not among parameters, under TransformerLens' names."""
        return {
            full: torch.zeros_like(beside[entry])
            for name, (part, weight, entry) in BIASES.items()
            for layer, beside in enumerate(self._each(part, weight))
            if (full := axes.block(layer, f"{part}.{name}")) not in found and beside is not None
        }

    def _each(self, part: Sublayer, name: str) -> list[Tensor | None]:
        """One weight of every block."""
        return [getattr(getattr(block, part), name, None) for block in self.blocks]

    def _for_each_head(
        self, weights: Float[Tensor, "layer kv_head d_model d_head"]
    ) -> Float[Tensor, "layer head d_model d_head"]:
        return weights.repeat_interleave(self.cfg.n_heads // weights.shape[1], dim=1)


def _together(
    weights: Sequence[Tensor | None], part: Sublayer, name: str
) -> Float[Tensor, "layer ..."]:
    found = [weight for weight in weights if weight is not None]
    shapes = {tuple(weight.shape): None for weight in found}
    if len(shapes) != 1 or len(found) != len(weights):
        raise ValueError(
            f"{name} cannot be one tensor, since blocks differ: {len(found)} of {len(weights)} "
            f"have it, in {len(shapes)} shapes ({', '.join(str(list(s)) for s in [*shapes][:3])}, "
            f"...). Take them one by one, [block.{part}.{name} for block in model.blocks]."
        )
    return torch.stack(found)
