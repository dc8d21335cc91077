"""The texts of token ids, and whether two models mean the same by them."""

from jaxtyping import Int64
from torch import Tensor

from mudd_interp.encoding import decode
from mudd_interp.protocol import HookedModel


def token_texts(model: HookedModel, ids: Int64[Tensor, " pos"]) -> tuple[str, ...]:
    """The text of each token, or its id where the model has no tokenizer."""
    return model.front.labels(ids)


def joined_text(model: HookedModel, ids: Int64[Tensor, " pos"]) -> str:
    """The text of tokens together, or their ids where the model has no tokenizer.

    A character whose bytes are spread over several tokens is whole here, unlike in
    :func:`token_texts`.
    """
    if model.tokenizer is None:
        return " ".join(token_texts(model, ids))
    return decode(model.tokenizer, ids.tolist())


def check_same_vocabulary(model: HookedModel, baseline: HookedModel) -> None:
    """Refuse two models for which one id can be two different tokens.

    Where both have a tokenizer, the smaller vocabulary must be part of the larger one, id by id
    (embeddings may be padded, and special tokens added, without harm). Where one has none, the
    sizes of the vocabularies must be equal.

    Raises:
        ValueError: With a token that differs.
    """
    names = f"{model.info.name} and {baseline.info.name}"
    advice = "compare models that were trained with one tokenizer."
    if model.tokenizer is None or baseline.tokenizer is None:
        sizes = model.cfg.d_vocab, baseline.cfg.d_vocab
        if sizes[0] != sizes[1]:
            raise ValueError(f"{names} have vocabularies of {sizes[0]} and {sizes[1]}: {advice}")
        return
    vocabularies = model.tokenizer.get_vocab(), baseline.tokenizer.get_vocab()
    smaller, larger = sorted(vocabularies, key=len)
    for token, index in sorted(smaller.items(), key=lambda item: item[1]):
        if larger.get(token) != index:
            ids = " and ".join(str(vocabulary.get(token)) for vocabulary in vocabularies)
            raise ValueError(
                f"{names} have different vocabularies, so one id is not one token for both: "
                f"{token!r} has id {ids}. Compare losses per token only between models that were "
                "trained with one tokenizer."
            )
