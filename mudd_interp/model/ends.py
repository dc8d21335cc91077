"""The two ends of a language model: its token embedding, and the way to the logits."""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, Int64
from torch import Tensor


@runtime_checkable
class Vocabulary(Protocol):
    """What the columns of the unembedding stand for: tokens, or classes."""

    def vocabulary_index(self, tokens: Any) -> Int64[Tensor, "*shape"]:
        """The columns of tokens, from the text of one or from ids.

        Raises:
            ValueError: If there is no such token.
        """
        ...


class Ends:
    """Embedding, final norm and unembedding under TransformerLens' names.

    Args:
        tokens: The vocabulary.
        embed: The token embedding, with ``W_E``.
        ln_final: The final norm.
        unembed: The unembedding, with ``W_U`` and ``b_U``.
    """

    def __init__(self, tokens: Vocabulary, embed: Any, ln_final: Any, unembed: Any):
        self.tokens, self.embed, self.ln_final, self.unembed = tokens, embed, ln_final, unembed

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
        """The unembedding's bias."""
        return self.unembed.b_U

    def gain(self) -> Float[Tensor, " d_model"]:
        """What the final norm multiplies by."""
        raise NotImplementedError

    def bias(self) -> Float[Tensor, " d_model"] | None:
        """What the final norm adds, or ``None`` if nothing."""
        raise NotImplementedError

    def require_linear_head(self) -> None:
        """Refuse a model whose logits are not the normed final stream times ``W_U``."""

    def tokens_to_residual_directions(self, tokens: object) -> Float[Tensor, "*shape d_model"]:
        """The directions of the final stream, before the norm's gain, that raise tokens' logits.

        They are ``w * W_U[:, t]`` with ``w`` the gain of the final norm, so that a component
        divided by the norm's scale gives its exact share of the logit (of that before the softcap,
        where there is one). The norm's bias and the
        unembedding's belong to no component.

        Args:
            tokens: The text of one token, or ids of any shape and form.

        Raises:
            ValueError: If the text is not one token, or an id is outside the vocabulary; or of a
                bridged model, if its logits were not tried.
            NotImplementedError: If a bridged model's logits are not found to be that product.
        """
        self.require_linear_head()
        index = self.tokens.vocabulary_index(tokens)
        return self.W_U.T[index] * self.gain()

    def logit_constant(self, tokens: object) -> Float[Tensor, "*shape"]:
        """The part of tokens' logits that no component wrote: ``b . W_U[:, t] + b_U[t]``.

        ``b`` is the bias of the final norm. Contributions along
        :meth:`tokens_to_residual_directions` and this sum to the logit; errors are the same.
        """
        self.require_linear_head()
        index, bias = self.tokens.vocabulary_index(tokens), self.bias()
        constant = self.b_U[index].to(self.W_U.dtype)
        return constant if bias is None else self.W_U.T[index] @ bias + constant

    def decode_stream(
        self, x: Float[Tensor, "batch pos d_model"]
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Logits of any stream: the final norm, with statistics of its own, and unembedding.

        Raises:
            ValueError: See :meth:`tokens_to_residual_directions`.
            NotImplementedError: See there.
        """
        raise NotImplementedError
