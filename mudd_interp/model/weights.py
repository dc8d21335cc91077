"""The weights under TransformerLens' names, and directions in the final stream."""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mudd_interp.axes import Stream
from mudd_interp.config import ModelConfig
from mudd_interp.model.layers import Embed, Norm, Unembed
from mudd_interp.model.stacked import StackedWeights


class WeightMethods(StackedWeights):
    """What TransformerLens' tools read of a model besides its activations."""

    config: ModelConfig
    embed: Embed
    unembed: Unembed
    blocks: nn.ModuleList
    ln_final: Norm

    @property
    def W_E(self) -> Float[Tensor, "d_vocab d_model"]:  # noqa: N802 (the field's name)
        """The token embedding."""
        return self.embed.W_E

    @property
    def W_U(self) -> Float[Tensor, "d_model d_vocab"]:  # noqa: N802 (the field's name)
        """The unembedding."""
        return self.unembed.W_U

    @property
    def b_U(self) -> Float[Tensor, " d_vocab"]:  # noqa: N802 (the field's name)
        """The unembedding's bias: zeros, the family has none."""
        return self.unembed.b_U

    def tokens_to_residual_directions(self: Any, tokens: Any) -> Float[Tensor, "*shape d_model"]:
        """The directions of the final stream, before the norm's gain, that raise tokens' logits.

        They are ``w * W_U[:, t]`` with ``w`` the gain of the final norm, so that a component
        divided by the norm's scale gives its exact share of the logit. The norm's bias and the
        unembedding's belong to no component.

        Args:
            tokens: The text of one token, or ids of any shape and form.

        Raises:
            ValueError: If the text is not one token, or an id is outside the vocabulary.
        """
        index = self.vocabulary_index(tokens)
        return self.W_U.T[index] * self.ln_final.w

    def logit_constant(self: Any, tokens: Any) -> Float[Tensor, "*shape"]:
        """The part of tokens' logits that no component wrote: ``b . W_U[:, t] + b_U[t]``.

        ``b`` is the bias of the final norm. Contributions along
        :meth:`tokens_to_residual_directions` and this sum to the logit.
        """
        index = self.vocabulary_index(tokens)
        bias = getattr(self.ln_final, "b", None)
        constant = self.b_U[index].to(self.W_U.dtype)
        return constant if bias is None else self.W_U.T[index] @ bias + constant

    def output_bias(self, layer: int, part: Literal["attn", "mlp"]) -> Float[Tensor, " d_model"]:
        """The output bias of a block's attention or FFN; zeros where it has none."""
        block: Any = self.blocks[layer]
        bias = block.attn.b_O if part == "attn" else block.mlp.b_out
        return torch.zeros_like(self.ln_final.w) if bias is None else bias

    def norm_gain(self, layer: int, stream: Stream) -> Float[Tensor, " d_model"]:
        """The gain of the norm that a block puts a stream (q, k or v) through."""
        block: Any = self.blocks[layer]
        return block.ln1.w if block.single_input else getattr(block, f"ln1_{stream}").w

    def decode_stream(
        self, x: Float[Tensor, "batch pos d_model"]
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Logits of any stream: the final norm, with statistics of its own, and unembedding."""
        return self.unembed(self.ln_final.fused(x))

    def accumulated_bias(
        self: Any, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True
    ) -> Float[Tensor, " d_model"]:
        """The sum of the output biases that reach a block (or its MLP); plain models only.

        Raises:
            NotImplementedError: With dense connections, where biases are weighted by token.
        """
        if not self.wiring.additive:
            raise NotImplementedError(
                "accumulated_bias adds up biases, but with dense connections each is weighted by "
                "token: use the row `bias` of cache.get_full_resid_decomposition."
            )
        attention = [f"{i}.attn.b_O" for i in range(layer + mlp_input)]
        mlp = [f"{i}.mlp.b_out" for i in range(layer)] if include_mlp_biases else []
        biases = dict(self.blocks.named_parameters())
        total = torch.zeros_like(self.ln_final.w)
        return sum((biases[name] for name in attention + mlp if name in biases), total)
