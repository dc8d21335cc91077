"""The weights of ``HookedMUDDTransformer``, and directions in its final stream."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mudd_interp.axes import Stream, Sublayer
from mudd_interp.model.ends import Ends, Vocabulary
from mudd_interp.model.live_config import ConfigView
from mudd_interp.model.stacked import Weights


class MUDDWeights(Weights):
    """The weights of our blocks, by parameter.

    Args:
        model: The model.
        cfg: Its configuration.
        b_U: The unembedding's bias, which is no parameter; ``None`` where there is none.
        additive: See :class:`Weights`.
    """

    def __init__(
        self,
        model: nn.Module,
        cfg: ConfigView,
        b_U: Float[Tensor, " d_vocab"] | None,
        additive: bool,
    ):
        super().__init__(model.blocks, cfg, additive)
        self.model, self.b_U = model, b_U

    def count(self) -> int:
        """How many numbers the model's parameters have, tied ones counted once."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def tl_parameters(self) -> dict[str, Tensor]:
        """See :meth:`Weights.tl_parameters`."""
        found: dict[str, Tensor] = dict(self.model.named_parameters())
        unembed = {} if self.b_U is None else {"unembed.b_U": self.b_U}
        return found | self.missing_biases(found) | unembed

    def output_bias(self, layer: int, part: Sublayer) -> Float[Tensor, " d_model"]:
        """See :meth:`Weights.output_bias`."""
        block = self.blocks[layer]
        bias = block.attn.b_O if part == "attn" else block.mlp.b_out
        return self._no_bias() if bias is None else bias

    def norm_gain(self, layer: int, stream: Stream) -> Float[Tensor, " d_model"]:
        """See :meth:`Weights.norm_gain`."""
        block = self.blocks[layer]
        return block.ln1.w if block.single_input else getattr(block, f"ln1_{stream}").w

    def accumulated_bias(
        self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True
    ) -> Float[Tensor, " d_model"]:
        """See :meth:`Weights.accumulated_bias`."""
        if not self.additive:
            raise NotImplementedError(
                "accumulated_bias adds up biases, but with dense connections each is weighted by "
                "token: use the row `bias` of cache.get_full_resid_decomposition."
            )
        attention = [f"{i}.attn.b_O" for i in range(layer + mlp_input)]
        mlp = [f"{i}.mlp.b_out" for i in range(layer)] if include_mlp_biases else []
        biases = dict(self.blocks.named_parameters())
        return sum((biases[name] for name in attention + mlp if name in biases), self._no_bias())

    def _no_bias(self) -> Float[Tensor, " d_model"]:
        return torch.zeros_like(self.blocks[0].ln2.w)


class MUDDEnds(Ends):
    """The ends of our models; their unembedding has no bias, ``b_U`` is zeros.

    Args:
        reduced: From what flows to what the final norm is given; other arguments are of
            :class:`Ends`.
    """

    def __init__(
        self,
        tokens: Vocabulary,
        embed: Any,
        ln_final: Any,
        unembed: Any,
        reduced: Callable[[Tensor], Tensor],
    ):
        super().__init__(tokens, embed, ln_final, unembed)
        self.reduced = reduced

    def gain(self) -> Float[Tensor, " d_model"]:
        """What the final norm multiplies by."""
        return self.ln_final.w

    def bias(self) -> Float[Tensor, " d_model"] | None:
        """What the final norm adds, or ``None`` if nothing."""
        return self.ln_final.bias

    def decode_stream(
        self, x: Float[Tensor, "batch pos *stream d_model"]
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """See :meth:`Ends.decode_stream`; all streams of hyper-connections at once, too."""
        return self.unembed(self.ln_final.fused(self.reduced(x)))
