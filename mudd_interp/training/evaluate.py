"""Held-out losses per file, and how certain a difference between two models is."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from mudd_interp.training.validation import ValidationPack

LogitFunction = Callable[[Int64[Tensor, "batch pos"]], Float[Tensor, "batch pos d_vocab"]]


@dataclass(frozen=True)
class FileLosses:
    """The loss of one model on each held-out file.

    Attributes:
        files: Package and path, ``torch: torch/nn/functional.py``, sorted.
        totals: Summed loss of the file's predicted tokens, in nats.
        tokens: How many tokens of the file were predicted.
    """

    files: tuple[str, ...]
    totals: Float64[np.ndarray, " file"]
    tokens: Int64[np.ndarray, " file"]

    @property
    def mean(self) -> float:
        """Mean loss over all predicted tokens, in nats per token."""
        return float(self.totals.sum() / self.tokens.sum())


@dataclass(frozen=True)
class LossDifference:
    """Model minus baseline, in nats per token; negative means that the model is better.

    Attributes:
        difference: The difference of the mean losses over all predicted tokens.
        low: Lower end of the bootstrap interval.
        high: Upper end of the bootstrap interval.
        confidence: The interval's confidence level, 0 to 1.
        n_files: How many files were resampled.
    """

    difference: float
    low: float
    high: float
    confidence: float
    n_files: int


def file_losses(logits: LogitFunction, pack: ValidationPack, batch: int = 16) -> FileLosses:
    """Measure a model on held-out sequences, file by file.

    The model sees each sequence by itself, so its first token is not predicted.

    Args:
        logits: The model in evaluation mode: token ids to logits.
        pack: The sequences and their files.
        batch: Sequences per forward pass.
    """
    return by_file(pack_losses(logits, pack, batch), pack)


@torch.no_grad()
def pack_losses(
    logits: LogitFunction, pack: ValidationPack, batch: int = 16
) -> Float64[np.ndarray, "sequence predicted"]:
    """The loss of every predicted token of a pack, in nats; arguments as for :func:`file_losses`.

    The first column is of the second token, which is predicted from one.
    """
    losses = [_token_losses(logits, tokens) for tokens in pack.tokens.split(batch)]
    return torch.cat(losses).numpy()


def by_file(losses: Float64[np.ndarray, "sequence predicted"], pack: ValidationPack) -> FileLosses:
    """The losses of a pack's tokens, added up over each of its files."""
    names = [f"{origin.package}: {origin.path}" for origin in pack.origins]
    files, index = np.unique(names, return_inverse=True)
    totals = np.bincount(index, weights=losses.sum(1))
    tokens = np.bincount(index) * losses.shape[1]
    return FileLosses(tuple(map(str, files)), totals, tokens)


def _token_losses(
    logits: LogitFunction, tokens: Int64[Tensor, "batch pos"]
) -> Float64[Tensor, "batch predicted"]:
    predicted = logits(tokens)[:, :-1].flatten(0, 1).float()
    targets = tokens[:, 1:].flatten().to(predicted.device)
    losses = F.cross_entropy(predicted, targets, reduction="none")
    return losses.view(len(tokens), -1).double().cpu()


def paired_bootstrap(
    model: FileLosses,
    baseline: FileLosses,
    *,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> LossDifference:
    """Resample files, the same ones for both models, to see how the difference varies.

    The interval (percentiles) covers the choice of held-out files; it says nothing about other
    training seeds.

    Raises:
        ValueError: If the two models were measured on different files or tokens.
    """
    if model.files != baseline.files or not np.array_equal(model.tokens, baseline.tokens):
        raise ValueError(
            f"expected both models on the same files, got {len(model.files)} and "
            f"{len(baseline.files)} files or other token counts: use one pack for both."
        )
    n_files = len(model.files)
    totals = model.totals - baseline.totals
    drawn = np.random.default_rng(seed).integers(0, n_files, (resamples, n_files))
    differences = totals[drawn].sum(1) / model.tokens[drawn].sum(1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(differences, [tail, 1 - tail])
    return LossDifference(model.mean - baseline.mean, float(low), float(high), confidence, n_files)
