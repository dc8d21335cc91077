"""The weights of all blocks in one tensor each, and the circuits that are made of them."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens import FactoredMatrix
from transformer_lens.utilities.matrix import composition_scores

from mudd_interp import axes

Part = Literal["attn", "mlp"]

BIASES: dict[str, tuple[Part, str, tuple[Any, ...]]] = {
    "b_Q": ("attn", "W_Q", (slice(None), 0)),
    "b_K": ("attn", "W_K", (slice(None), 0)),
    "b_V": ("attn", "W_V", (slice(None), 0)),
    "b_O": ("attn", "W_O", (0, 0)),
    "b_in": ("mlp", "W_in", (0,)),
    "b_out": ("mlp", "W_out", (0,)),
}
"""Where each bias is, and an entry of the weight beside it that has its shape."""


class StackedWeights:
    """TransformerLens' weights with a layer axis: copies, as they are, no norm folded in."""

    @property
    def W_Q(self) -> Float[Tensor, "layer head d_model d_head"]:  # noqa: N802 (the field's name)
        """The query weights of every block."""
        return self._stack("attn", "W_Q")

    @property
    def W_K(self) -> Float[Tensor, "layer kv_head d_model d_head"]:  # noqa: N802 (the field's name)
        """The key weights of every block, one for each head of keys and values."""
        return self._stack("attn", "W_K")

    @property
    def W_V(self) -> Float[Tensor, "layer kv_head d_model d_head"]:  # noqa: N802 (the field's name)
        """The value weights of every block, one for each head of keys and values."""
        return self._stack("attn", "W_V")

    @property
    def W_O(self) -> Float[Tensor, "layer head d_head d_model"]:  # noqa: N802 (the field's name)
        """The output weights of every block."""
        return self._stack("attn", "W_O")

    @property
    def W_in(self) -> Float[Tensor, "layer d_model d_mlp"]:  # noqa: N802 (the field's name)
        """The FFN's input weights of every block.

        Raises:
            ValueError: If blocks have FFNs of different widths.
        """
        return self._stack("mlp", "W_in")

    @property
    def W_gate(self) -> Float[Tensor, "layer d_model d_mlp"] | None:  # noqa: N802 (the field's name)
        """The FFN's gate weights, ``None`` without gates; errors are those of ``W_in``."""
        return self._stack("mlp", "W_gate") if self._has_gates() else None

    @property
    def W_out(self) -> Float[Tensor, "layer d_mlp d_model"]:  # noqa: N802 (the field's name)
        """The FFN's output weights of every block; errors are those of ``W_in``."""
        return self._stack("mlp", "W_out")

    @property
    def b_Q(self) -> Float[Tensor, "layer head d_head"]:  # noqa: N802 (the field's name)
        """The query biases of every block; zeros where there are none."""
        return self._biases("b_Q")

    @property
    def b_K(self) -> Float[Tensor, "layer kv_head d_head"]:  # noqa: N802 (the field's name)
        """The key biases of every block; zeros where there are none."""
        return self._biases("b_K")

    @property
    def b_V(self) -> Float[Tensor, "layer kv_head d_head"]:  # noqa: N802 (the field's name)
        """The value biases of every block; zeros where there are none."""
        return self._biases("b_V")

    @property
    def b_O(self) -> Float[Tensor, "layer d_model"]:  # noqa: N802 (the field's name)
        """The attention's output biases of every block; zeros where there are none."""
        return self._biases("b_O")

    @property
    def b_in(self) -> Float[Tensor, "layer d_mlp"]:
        """The FFN's input biases; zeros where there are none. Errors are those of ``W_in``."""
        return self._biases("b_in")

    @property
    def b_out(self) -> Float[Tensor, "layer d_model"]:
        """The FFN's output biases of every block; zeros where there are none."""
        return self._biases("b_out")

    @property
    def QK(self: Any) -> FactoredMatrix:  # noqa: N802 (the field's name)
        """``W_Q W_K^T`` of every head, ``[layer head d_model d_model]``, in factors."""
        return FactoredMatrix(self.W_Q, self._for_each_head(self.W_K).transpose(-2, -1))

    @property
    def OV(self: Any) -> FactoredMatrix:  # noqa: N802 (the field's name)
        """``W_V W_O`` of every head, ``[layer head d_model d_model]``, in factors."""
        return FactoredMatrix(self._for_each_head(self.W_V), self.W_O)

    @property
    def all_head_labels(self: Any) -> list[str]:
        """``"L0H0"``, ``"L0H1"``, ... of every head."""
        heads = range(self.cfg.n_heads)
        return [f"L{layer}H{head}" for layer in range(self.cfg.n_layers) for head in heads]

    @property
    def attn_head_labels(self) -> list[str]:
        """The same: every block has attention."""
        return self.all_head_labels

    def all_composition_scores(self: Any, mode: Literal["Q", "K", "V"]) -> Any:
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
        if not self.wiring.additive:
            raise NotImplementedError(
                "all_composition_scores takes each head's output to reach all later heads as it "
                "is; with dense connections it is multiplied by a weight of its own for each "
                "stream, block and token: mudd_interp.analysis.composition has them in it."
            )
        reader = {"Q": self.QK, "K": self.QK.T, "V": self.OV}[mode]
        scores = composition_scores(self.OV, reader, broadcast_dims=True)
        layers = torch.arange(self.cfg.n_layers, device=scores.device)
        earlier = layers[:, None, None, None] < layers[:, None]
        kept = torch.where(earlier, scores, torch.zeros_like(scores))
        return CompositionScores(kept, layers.tolist(), self.all_head_labels)

    @property
    def n_params_total(self: Any) -> int:
        """How many numbers the parameters have, tied ones counted once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def tl_parameters(self: Any) -> dict[str, Tensor]:
        """The parameters under TransformerLens' names; zeros for biases that there are not.

        Those of dense connections are in it too.
        """
        found: dict[str, Tensor] = dict(self.named_parameters())
        for name, (part, weight, entry) in BIASES.items():
            for layer, beside in enumerate(self._weights(part, weight)):
                full = axes.block(layer, f"{part}.{name}")
                if full not in found:
                    found[full] = torch.zeros_like(beside[entry])
        return found | {"unembed.b_U": self.b_U}

    def get_params(self) -> dict[str, Tensor]:
        """The same: another name that TransformerLens has for it."""
        return self.tl_parameters()

    def tl_named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """The same, one by one."""
        return iter(self.tl_parameters().items())

    def _weights(self: Any, part: Part, name: str) -> list[Tensor | None]:
        """One weight of every block."""
        return [getattr(getattr(block, part), name, None) for block in self.blocks]

    def _has_gates(self) -> bool:
        return all(weight is not None for weight in self._weights("mlp", "W_gate"))

    def _stack(self, part: Part, name: str) -> Float[Tensor, "layer ..."]:
        return _together(self._weights(part, name), part, name)

    def _biases(self, name: str) -> Float[Tensor, "layer ..."]:
        part, weight, entry = BIASES[name]
        found = self._weights(part, name)
        if all(bias is None for bias in found):
            beside = [w for w in self._weights(part, weight) if w is not None]
            found = [torch.zeros_like(w[entry]) for w in beside]
        return _together(found, part, name)

    def _for_each_head(
        self: Any, weights: Float[Tensor, "layer kv_head d_model d_head"]
    ) -> Float[Tensor, "layer head d_model d_head"]:
        return weights.repeat_interleave(self.cfg.n_heads // weights.shape[1], dim=1)


def _together(
    weights: Sequence[Tensor | None], part: Part, name: str
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
