"""What a model expects at each position of one sequence, and what the actual tokens cost it."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64, Int64, Shaped
from torch import Tensor

from mudd_interp.analysis.finite import finite_hooks
from mudd_interp.analysis.inputs import NEXT_TOKEN, check_position, labels_of, one_input
from mudd_interp.analysis.result import OneSequence
from mudd_interp.analysis.vocabulary import token_texts
from mudd_interp.precision import wide
from mudd_interp.protocol import HookedModel, require_traits


@dataclass(frozen=True, eq=False, kw_only=True)
class Predictions(OneSequence):
    """The next-token predictions of one model on one sequence.

    ``loss`` and ``rank`` belong to the token that was predicted; what begins with ``next_`` belongs
    to the position that predicts: ``loss[t + 1]`` judges the prediction ``next_...[t]``.

    Attributes:
        loss: -log p(token t | tokens before t), in nats; NaN at position 0, which nothing predicts.
        rank: One more than the number of tokens that were likelier than token t: 1 is the model's
            first choice. 0 at position 0.
        next_entropy: Entropy of the prediction that each position makes, in nats.
        next_ids: The likeliest next tokens at each position, likeliest first.
        next_tokens: Their texts.
        next_probability: Their probabilities, 0..1.
        next_logit: Their logits.
    """

    absent: ClassVar[tuple[str, ...]] = ("loss",)
    impossible: ClassVar[tuple[str, ...]] = ("next_logit",)

    loss: Float64[np.ndarray, " pos"]
    rank: Int64[np.ndarray, " pos"]
    next_entropy: Float64[np.ndarray, " pos"]
    next_ids: Int64[np.ndarray, "pos k"]
    next_tokens: tuple[tuple[str, ...], ...]
    next_probability: Float64[np.ndarray, "pos k"]
    next_logit: Float64[np.ndarray, "pos k"]

    @property
    def frame(self) -> pd.DataFrame:
        """Columns ``position``, ``token_id``, ``token``, ``loss``, ``rank`` and ``entropy``.

        A row is about its token: what it cost, which choice it was, and how uncertain the
        prediction of it was (nats). Nothing predicts the token at position 0; the mean of the other
        losses is the model's loss on the sequence.
        """
        return pd.DataFrame(
            {
                "position": np.arange(len(self.tokens)),
                "token_id": self.token_ids,
                "token": np.array(self.tokens, dtype=object),
                "loss": self.loss,
                "rank": pd.array(self.rank, dtype="Int64"),
                "entropy": np.append(np.nan, self.next_entropy[:-1]),
            }
        ).assign(rank=lambda frame: frame["rank"].mask(frame["position"] == 0))

    def top_frame(self, position: int) -> pd.DataFrame:
        """The likeliest tokens after ``position``.

        Columns ``rank`` (equal logits share the better one), ``token_id``, ``token``,
        ``probability`` (0..1) and ``logit``, likeliest first. Probabilities sum to one over the
        whole vocabulary only.

        Raises:
            ValueError: If the sequence has no such position.
        """
        check_position(position, len(self.tokens))
        logit = self.next_logit[position]
        return pd.DataFrame(
            {
                "rank": 1 + (logit[:, None] < logit).sum(axis=1),
                "token_id": self.next_ids[position],
                "token": np.array(self.next_tokens[position], dtype=object),
                "probability": self.next_probability[position],
                "logit": logit,
            }
        )


@torch.no_grad()
def predictions(
    model: HookedModel, tokens: Shaped[Tensor, "..."], k: int = 10, data: str = "the prompt"
) -> Predictions:
    """Losses and the likeliest next tokens of a model on one sequence.

    Computed from the logits in float32 or, where the model is wider, in its own precision.

    Args:
        model: Any hooked model, in evaluation mode.
        tokens: int64 token ids ``[pos]`` or ``[1 pos]``.
        k: How many next tokens to keep for each position; at most the vocabulary.
        data: What the sequence is, in words; it goes into the provenance.

    Raises:
        ValueError: If there is not one sequence of valid ids, ``k`` is below one, or the model is
            in training mode or predicts no next token.
    """
    require_traits(model, "predictions", NEXT_TOKEN)
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}.")
    batch = one_input(model, tokens)
    with model.hooks(finite_hooks(model)):
        logits = wide(model(batch, return_type="logits"))
    log_probs = logits.log_softmax(-1)[0]
    top = logits[0].topk(min(k, logits.shape[-1]), dim=-1)
    next_ids = top.indices.cpu()
    return Predictions(
        **labels_of(model, batch, data, {"k": k}),
        loss=np.append(np.nan, as_float64(token_losses(logits, batch)[0])),
        rank=np.append(0, _ranks(logits, batch)),
        next_entropy=as_float64(torch.special.entr(log_probs.exp()).sum(-1)),
        next_ids=next_ids.numpy(),
        next_tokens=tuple(token_texts(model, row) for row in next_ids),
        next_probability=as_float64(log_probs.gather(-1, top.indices).exp()),
        next_logit=as_float64(top.values),
    )


def token_losses(
    logits: Float[Tensor, "batch pos d_vocab"], tokens: Int64[Tensor, "batch pos"]
) -> Float[Tensor, "batch predicted"]:
    """-log p of every token but the first of each sequence, in nats, in at least float32."""
    log_probs = wide(logits[:, :-1]).log_softmax(-1)
    following = tokens[:, 1:, None].to(logits.device)
    return -log_probs.gather(-1, following).squeeze(-1)


def _ranks(
    logits: Float[Tensor, "1 pos d_vocab"], tokens: Int64[Tensor, "1 pos"]
) -> Int64[np.ndarray, " predicted"]:
    following = tokens[0, 1:, None].to(logits.device)
    larger = logits[0, :-1] > logits[0, :-1].gather(-1, following)
    return 1 + larger.sum(-1).cpu().numpy()


def as_float64(values: Float[Tensor, "..."]) -> Float64[np.ndarray, "..."]:
    """Values on the CPU, for a result."""
    return values.double().cpu().numpy()


def loss_difference(result: Predictions, baseline: Predictions) -> pd.DataFrame:
    """The losses of two models on one sequence, token by token.

    Args:
        result: Of the model in question.
        baseline: Of the Transformer beside it.

    Returns:
        Columns ``position``, ``token``, ``loss``, ``baseline_loss`` and ``difference`` (model minus
        baseline: negative where the model is better), in nats; NaN at position 0.

    Raises:
        ValueError: If the two models do not split the text into the same tokens.
    """
    check_same_tokens(result, baseline)
    frame = result.frame[["position", "token", "loss"]]
    return frame.assign(baseline_loss=baseline.loss, difference=result.loss - baseline.loss)


def check_same_tokens(result: OneSequence, baseline: OneSequence) -> None:
    """Refuse two sequences that differ; texts count, or ids where one model has no tokenizer.

    Raises:
        ValueError: With the first position at which they differ.
    """
    if _reads_text(result) and _reads_text(baseline):
        mine, theirs = result.tokens, baseline.tokens
    else:
        mine, theirs = (tuple(map(str, each.token_ids)) for each in (result, baseline))
    if mine == theirs:
        return
    shared = min(len(mine), len(theirs))
    at = next((t for t in range(shared) if mine[t] != theirs[t]), shared)
    names = [each.provenance.model for each in (result, baseline)]
    found = [repr(each[at]) if at < len(each) else "no token" for each in (mine, theirs)]
    raise ValueError(
        "expected two models that split the text into the same tokens, but "
        f"{names[0]} has {len(mine)} tokens and {names[1]} {len(theirs)}, and position {at} is "
        f"{found[0]} for the one, {found[1]} for the other: compare them on a text that both split "
        "alike, or models with one tokenizer."
    )


def _reads_text(result: OneSequence) -> bool:
    """Whether the model had a tokenizer: without one, its texts are the ids."""
    return result.tokens != tuple(map(str, result.token_ids))
