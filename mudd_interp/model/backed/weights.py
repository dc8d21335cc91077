"""A backed model's weights under TransformerLens' names, as far as it has them; its two ends."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NoReturn

import torch
from jaxtyping import Float
from torch import Tensor

from mudd_interp.axes import Stream, Sublayer
from mudd_interp.model.backed.kinds import Kind
from mudd_interp.model.ends import Ends
from mudd_interp.model.live_config import ConfigView
from mudd_interp.model.stacked import BIASES, Weights
from mudd_interp.model.tokens import Tokens
from mudd_interp.sublayers import NO_FINAL


class NoWeightError(AttributeError, ValueError):
    """An architecture has no such weight."""


class Attention:
    """The attention of a block: of the weights that TransformerLens names it has ``W_O`` only."""

    def __init__(self, module: Any, kind: Kind):
        self._module, self._kind = module, kind

    def __getattr__(self, name: str) -> NoReturn:
        """Refuse.

        Raises:
            NoWeightError: With where its weights are.
        """
        if name.startswith("_"):
            raise AttributeError(name)
        raise NoWeightError(
            f"the attention of {self._kind.class_name} has no `{name}` of each head: norms or low "
            "ranks stand between the matrices, which are in "
            "model.module.model.layers[layer].self_attn."
        )

    @property
    def W_O(self) -> Float[Tensor, "head d_head d_model"]:  # noqa: N802 (the field's name)
        """The output weights of each head."""
        if self._kind.heads.W_O is None:
            return self.__getattr__("W_O")
        return self._kind.heads.W_O(self._module)


class FFN:
    """The FFN of a block, which has no weights under TransformerLens' names."""

    def __getattr__(self, name: str) -> NoReturn:
        """Refuse.

        Raises:
            NoWeightError: With where its weights are.
        """
        if name.startswith("_"):
            raise AttributeError(name)
        raise NoWeightError(
            f"an FFN here has no `{name}`: see model.module.model.layers[layer].mlp."
        )


class BlockView:
    """One block under TransformerLens' names."""

    hook_out_is_single_residual_stream = False

    def __init__(self, layer: Any, kind: Kind):
        self.attn, self.mlp, self.layer = Attention(layer.self_attn, kind), FFN(), layer


class BackedWeights(Weights):
    """The weights of a backed model's blocks.

    Args:
        module: The Hugging Face model.
        blocks: Views of its blocks.
        cfg: Its configuration.
    """

    def __init__(self, module: Any, blocks: list[BlockView], cfg: ConfigView):
        super().__init__(blocks, cfg, additive=False)
        self.module = module

    def count(self) -> int:
        """See :class:`Weights`."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    def stacked(self, part: Sublayer, name: str) -> Float[Tensor, "layer ..."]:
        """See :class:`Weights`."""
        try:
            return torch.stack([getattr(getattr(block, part), name) for block in self.blocks])
        except NoWeightError as error:  # in a property of a module it would pass for a missing name
            raise ValueError(str(error)) from error

    def biases(self, name: str) -> Float[Tensor, "layer ..."]:
        """See :class:`Weights`: there are none."""
        return self.stacked(BIASES[name][0], name)

    def gates(self) -> Float[Tensor, "layer d_model d_mlp"]:
        """See :class:`Weights`: there are none."""
        return self.stacked("mlp", "W_gate")

    def tl_parameters(self) -> dict[str, Tensor]:
        """The parameters; transformers' names, since most have none of TransformerLens'."""
        return dict(self.module.named_parameters())

    def output_bias(self, layer: int, part: Sublayer) -> Float[Tensor, " d_model"]:  # noqa: ARG002 (all are alike)
        """See :class:`Weights`: there are none."""
        return torch.zeros_like(self.module.model.norm.weight)

    def norm_gain(self, layer: int, stream: Stream) -> Float[Tensor, " d_model"]:  # noqa: ARG002 (all streams have one norm)
        """See :class:`Weights`."""
        return self.blocks[layer].layer.input_layernorm.weight

    def accumulated_bias(
        self,
        layer: int,
        mlp_input: bool = False,  # noqa: ARG002 (there is none)
        include_mlp_biases: bool = True,  # noqa: ARG002 (there is none)
    ) -> Float[Tensor, " d_model"]:
        """See :class:`Weights`: there are none."""
        return self.output_bias(layer, "attn")


class Embedding:
    """The token embedding, its scale in it."""

    def __init__(self, module: Any):
        self._module = module

    @property
    def W_E(self) -> Float[Tensor, "d_vocab d_model"]:  # noqa: N802 (the field's name)
        """A row for each token."""
        scale = getattr(self._module, "embed_scale", 1.0)
        return self._module.weight * scale


class Unembedding:
    """The unembedding, which has no bias.

    Args:
        module: The matrix.
        cap: What logits are bounded by, or ``None``.
    """

    def __init__(self, module: Any, cap: float | None):
        self._module, self._cap = module, cap

    def __call__(
        self, final: Float[Tensor, "batch pos d_model"]
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Logits of the normed final stream."""
        logits = self._module.forward(final.to(self._module.weight.dtype))
        return logits if self._cap is None else self._cap * torch.tanh(logits / self._cap)

    @property
    def W_U(self) -> Float[Tensor, "d_model d_vocab"]:  # noqa: N802 (the field's name)
        """A column for each token."""
        return self._module.weight.T

    @property
    def b_U(self) -> Float[Tensor, " d_vocab"]:  # noqa: N802 (the field's name)
        """Zeros."""
        return torch.zeros_like(self._module.weight[:, 0])


class BackedEnds(Ends):
    """The ends of a backed model.

    Args:
        tokens: The vocabulary.
        module: The Hugging Face model.
        kind: Its architecture.
        exact: The context in which the model's code is run.
    """

    def __init__(
        self,
        tokens: Tokens,
        module: Any,
        kind: Kind,
        exact: Callable[[], AbstractContextManager[object]],
    ):
        cap = getattr(module.config, "final_logit_softcapping", None)
        embed, unembed = Embedding(module.model.embed_tokens), Unembedding(module.lm_head, cap)
        super().__init__(tokens, embed, module.model.norm, unembed)
        self.module, self.kind, self.exact = module, kind, exact

    def gain(self) -> Float[Tensor, " d_model"]:
        """What the final norm multiplies by."""
        return self.ln_final.weight

    def bias(self) -> None:
        """The final norm adds nothing."""
        return

    def require_linear_head(self) -> None:
        """Refuse a model whose head is no read of what its sublayers wrote.

        Raises:
            NotImplementedError: With the reason.
        """
        if not self.kind.head_reads:
            raise NotImplementedError(
                f"{NO_FINAL}, and logits may be capped: no direction gives an exact share of a "
                f"logit of {self.kind.class_name}."
            )

    def decode_stream(
        self, x: Float[Tensor, "batch pos *stream d_model"]
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """See :class:`Ends`; all streams at once, too, which the head's gate then weighs."""
        self.require_linear_head()
        model = self.module.model
        with self.exact():
            final = model.hc_head.forward(x) if x.ndim == 4 else x
            return self.unembed(model.norm.forward(final))
