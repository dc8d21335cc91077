"""A recipe (the paper's section 3, by default): optimiser, schedule, and what decays."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn

Decays = Callable[[str, nn.Parameter], bool]
"""Whether weight decay applies to a parameter, by its name."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained. Two runs with equal recipes and data see the same rows in order.

    Attributes:
        steps: Optimiser steps. Over text they make one pass at most, so no row is seen twice.
        batch: Rows per step.
        micro_batch: Rows per backward pass; the gradients of a step add up. A size that fits the
            processor's cache is faster, and changes the weights by rounding only.
        peak_lr: Learning rate at the end of the warm-up.
        warmup: Share of the steps in which the rate rises linearly from 0.
        final_lr: The last rate, as a share of the peak.
        betas: AdamW's betas.
        weight_decay: AdamW's, times the learning rate; for matrices only: see :func:`decays`.
        clip: Largest L2 norm of all gradients together.
        model_seed: The seed of the initialisation.
        data_seed: The seed of the order of rows.
    """

    steps: int
    batch: int = 16
    micro_batch: int = 4
    peak_lr: float = 2e-3
    warmup: float = 0.01
    final_lr: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    clip: float = 1.0
    model_seed: int = 0
    data_seed: int = 0


def learning_rate(recipe: Recipe, step: int) -> float:
    """The rate of a step (0-based): linear warm-up, then a cosine down to ``final_lr``."""
    warmup = max(1, round(recipe.warmup * recipe.steps))
    if step < warmup:
        return recipe.peak_lr * (step + 1) / warmup
    progress = (step + 1 - warmup) / max(1, recipe.steps - warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return recipe.peak_lr * (recipe.final_lr + (1 - recipe.final_lr) * cosine)


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies: it does to projections ``W_*``, but not to token embeddings.

    Biases, gains and the static dense weights ``a`` do not decay either: pulling ``a`` to zero
    would pull every stream away from the plain residual that it starts as.
    """
    leaf = name.rpartition(".")[2]
    return parameter.ndim >= 2 and leaf.startswith("W_") and leaf not in ("W_E", "W_pos")


def kernel_decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies as in big_vision: to every ``kernel``.

    The map of patches is one, so ``W_E`` of a vision model decays too.
    """
    return parameter.ndim >= 2 and name.rpartition(".")[2].startswith("W_")


def make_optimizer(
    named_parameters: Iterable[tuple[str, nn.Parameter]], recipe: Recipe, which: Decays = decays
) -> torch.optim.AdamW:
    """AdamW with two groups: the parameters that decay, and the others."""
    named = list(named_parameters)
    groups = [
        {"params": [p for n, p in named if which(n, p)], "weight_decay": recipe.weight_decay},
        {"params": [p for n, p in named if not which(n, p)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.peak_lr, betas=recipe.betas, fused=True)
