"""What TransformerLens' tools read of a baseline besides its activations."""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mudd_interp.axes import Stream
from mudd_interp.model.stacked import StackedWeights


class BaselineWeights(StackedWeights):
    """The weights of a bridge under TransformerLens' names, and directions in the final stream."""

    bridge: Any
    _linear_head: bool | None

    @property
    def blocks(self) -> Any:
        """The bridge's blocks, with TransformerLens' weights (``blocks[0].attn.W_Q``)."""
        return self.bridge.blocks

    @property
    def embed(self) -> Any:
        """The bridge's token embedding."""
        return self.bridge.embed

    @property
    def ln_final(self) -> Any:
        """The bridge's final norm."""
        return self.bridge.ln_final

    @property
    def unembed(self) -> Any:
        """The bridge's unembedding."""
        return self.bridge.unembed

    @property
    def W_E(self) -> Float[Tensor, "d_vocab d_model"]:  # noqa: N802 (the field's name)
        """The token embedding; X_0 may have more in it, see the class."""
        return self.bridge.embed.W_E

    @property
    def W_U(self) -> Float[Tensor, "d_model d_vocab"]:  # noqa: N802 (the field's name)
        """The unembedding."""
        return self.bridge.unembed.W_U

    @property
    def b_U(self) -> Float[Tensor, " d_vocab"]:  # noqa: N802 (the field's name)
        """The unembedding's bias."""
        return self.bridge.unembed.b_U

    def final_gain(self) -> Float[Tensor, " d_model"]:
        """What the final norm multiplies by: its weight, plus one where the code adds one."""
        return self._gain(self.ln_final)

    def _gain(self, norm: Any) -> Float[Tensor, " d_model"]:
        weight = getattr(getattr(norm, "original_component", None), "weight", None)
        if weight is None or norm is None:
            return torch.ones_like(self.W_U[:, 0])
        return 1.0 + weight if norm.uses_weight_offset else weight

    def final_bias(self) -> Float[Tensor, " d_model"]:
        """What the final norm adds; zeros for a norm without a bias."""
        bias = getattr(self.ln_final.original_component, "bias", None)
        return torch.zeros_like(self.W_U[:, 0]) if bias is None else bias

    def tokens_to_residual_directions(self: Any, tokens: Any) -> Float[Tensor, "*shape d_model"]:
        """The directions of the final stream, before the norm's gain, that raise tokens' logits.

        They are ``w * W_U[:, t]`` with ``w`` the gain of the final norm, which the bridge's own
        method leaves out. The norm's bias and the unembedding's belong to no component.

        Raises:
            NotImplementedError: If the logits are not found to be that product.
            ValueError: If that was not tried.
        """
        self._require_linear_head()
        index = self.vocabulary_index(tokens)
        return self.W_U.T[index] * self.final_gain()

    def logit_constant(self: Any, tokens: Any) -> Float[Tensor, "*shape"]:
        """The part of tokens' logits that no component wrote: ``b . W_U[:, t] + b_U[t]``.

        ``b`` is the bias of the final norm. Errors are those of
        :meth:`tokens_to_residual_directions`.
        """
        self._require_linear_head()
        index = self.vocabulary_index(tokens)
        return self.W_U.T[index] @ self.final_bias() + self.b_U[index]

    def output_bias(self, layer: int, part: Literal["attn", "mlp"]) -> Float[Tensor, " d_model"]:
        """The output bias of a block's attention or FFN; zeros where it has none."""
        before = self.accumulated_bias(layer, include_mlp_biases=part == "mlp")
        if part == "attn":
            return self.accumulated_bias(layer, True, include_mlp_biases=False) - before
        after = self.accumulated_bias(layer + 1, include_mlp_biases=True)
        return after - before - self.output_bias(layer, "attn")

    def norm_gain(self, layer: int, stream: Stream) -> Float[Tensor, " d_model"]:  # noqa: ARG002 (the protocol's)
        """The gain of the norm before a block's attention, the same for all streams."""
        return self._gain(getattr(self.blocks[layer], "ln1", None))

    def decode_stream(
        self: Any, x: Float[Tensor, "batch pos d_model"]
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Logits of any stream: the final norm, with statistics of its own, and unembedding.

        Errors are those of :meth:`tokens_to_residual_directions`.
        """
        self._require_linear_head()
        return self.ln_final.original_component(x) @ self.W_U + self.b_U

    def _require_linear_head(self: Any) -> None:
        if self._linear_head is None:
            raise ValueError(
                "whether the logits are the normed final stream times W_U was not tried, since the "
                "model was loaded with check=False: load it without."
            )
        if not self._linear_head:
            raise NotImplementedError(
                f"the logits of {self.cfg.architecture} are not the normed final stream times W_U, "
                "as far as its hooks show (are they capped or rescaled?): no direction gives an "
                "exact share of them."
            )

    def accumulated_bias(
        self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True
    ) -> Float[Tensor, " d_model"]:
        """The sum of the output biases that reach a block (or its FFN)."""
        return self.bridge.accumulated_bias(layer, mlp_input, include_mlp_biases).to(self.W_U.dtype)

    @property
    def n_params_total(self) -> int:
        """How many parameters the Hugging Face model has, without the bridge's views of them."""
        return self.bridge.n_params_total

    def tl_parameters(self) -> dict[str, Tensor]:
        """The parameters under TransformerLens' names; zeros for biases that there are not."""
        return self.bridge.tl_parameters()
