"""A bridged model's weights under TransformerLens' names, and directions in its final stream."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mudd_interp.axes import Stream, Sublayer
from mudd_interp.model.bridge.config import BridgeConfig
from mudd_interp.model.ends import Ends
from mudd_interp.model.stacked import Weights
from mudd_interp.model.tokens import Tokens


class BridgeWeights(Weights):
    """The weights of a bridge's blocks.

    Args:
        bridge: The TransformerBridge.
        cfg: The model's configuration.
    """

    def __init__(self, bridge: Any, cfg: BridgeConfig):
        super().__init__(bridge.blocks, cfg)
        self.bridge = bridge

    def count(self) -> int:
        """How many parameters the Hugging Face model has, without the bridge's views of them."""
        return self.bridge.n_params_total

    def tl_parameters(self) -> dict[str, Tensor]:
        """The parameters under TransformerLens' names; zeros for biases that there are not."""
        return self.bridge.tl_parameters()

    def output_bias(self, layer: int, part: Sublayer) -> Float[Tensor, " d_model"]:
        """The output bias of a block's attention or FFN; zeros where it has none."""
        before = self.accumulated_bias(layer, include_mlp_biases=part == "mlp")
        if part == "attn":
            return self.accumulated_bias(layer, True, include_mlp_biases=False) - before
        after = self.accumulated_bias(layer + 1, include_mlp_biases=True)
        return after - before - self.output_bias(layer, "attn")

    def norm_gain(self, layer: int, stream: Stream) -> Float[Tensor, " d_model"]:  # noqa: ARG002 (all streams have one norm)
        """The gain of the norm before a block's attention, the same for all streams."""
        return norm_gain(getattr(self.blocks[layer], "ln1", None), self.bridge.unembed.W_U)

    def accumulated_bias(
        self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True
    ) -> Float[Tensor, " d_model"]:
        """The sum of the output biases that reach a block (or its FFN)."""
        total = self.bridge.accumulated_bias(layer, mlp_input, include_mlp_biases)
        return total.to(self.bridge.unembed.W_U.dtype)


class BridgeEnds(Ends):
    """The ends of a bridge.

    Args:
        tokens: The vocabulary.
        bridge: The TransformerBridge.
        linear_head: Whether the logits are the normed final stream times ``W_U``; ``None`` if that
            was not tried.
    """

    def __init__(self, tokens: Tokens, bridge: Any, linear_head: bool | None):
        super().__init__(tokens, bridge.embed, bridge.ln_final, bridge.unembed)
        self.architecture, self.linear_head = bridge.cfg.architecture, linear_head

    def gain(self) -> Float[Tensor, " d_model"]:
        """What the final norm multiplies by: its weight, plus one where the code adds one."""
        return norm_gain(self.ln_final, self.W_U)

    def bias(self) -> Float[Tensor, " d_model"] | None:
        """What the final norm adds, or ``None`` if nothing."""
        return getattr(self.ln_final.original_component, "bias", None)

    def decode_stream(
        self, x: Float[Tensor, "batch pos d_model"]
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Logits of any stream: the final norm, with statistics of its own, and unembedding.

        Errors are those of :meth:`tokens_to_residual_directions`.
        """
        self.require_linear_head()
        return self.ln_final.original_component(x) @ self.W_U + self.b_U

    def require_linear_head(self) -> None:
        """Refuse a model whose logits are not the normed final stream times ``W_U``.

        Raises:
            NotImplementedError: If they are not found to be that product.
            ValueError: If that was not tried.
        """
        if self.linear_head is None:
            raise ValueError(
                "whether the logits are the normed final stream times W_U was not tried, since the "
                "model was loaded with check=False: load it without."
            )
        if not self.linear_head:
            raise NotImplementedError(
                f"the logits of {self.architecture} are not the normed final stream times W_U, "
                "as far as its hooks show (are they capped or rescaled?): no direction gives an "
                "exact share of them."
            )


def norm_gain(norm: Any, W_U: Float[Tensor, "d_model d_vocab"]) -> Float[Tensor, " d_model"]:
    """What a norm of a bridge multiplies by; ones where there is none, or it has no weight."""
    weight = getattr(getattr(norm, "original_component", None), "weight", None)
    if weight is None or norm is None:
        return torch.ones_like(W_U[:, 0])
    return 1.0 + weight if norm.uses_weight_offset else weight
