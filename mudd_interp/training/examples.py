"""What a run learns from: a batch for each step, and what it is measured on meanwhile."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64, Shaped, UInt16
from torch import Tensor

from mudd_interp.training.packing import rows
from mudd_interp.training.schedule import Recipe

Batch = tuple[Shaped[Tensor, "_ ..."], Int64[Tensor, "_ ..."]]  # pieces differ in length
"""What the model reads, and the class that it must give at each place of its logits."""


@runtime_checkable
class Examples(Protocol):
    """Batches that are functions of the step, so that a run which resumes sees the same ones."""

    @property
    def unit(self) -> str:
        """What is counted in the log: ``tokens`` or ``images``."""
        ...

    @property
    def per_step(self) -> int:
        """How many of them a step learns from."""
        ...

    def batches(self, step: int) -> Sequence[Batch]:
        """A step's rows, in pieces for one backward pass each."""
        ...

    def held_out(self) -> Sequence[Batch]:
        """What the validation loss of the log is measured on."""
        ...


class TextExamples:
    """Rows of a stream of tokens, each at most once, in an order that the recipe's seed decides.

    Args:
        recipe: How many rows a step takes, and the order's seed.
        train: The training stream.
        validation: The held-out stream.
        n_ctx: Tokens per row.
        validation_rows: How many of the held-out stream's first rows are used.

    Raises:
        ValueError: If there are too few rows for one pass.
    """

    unit = "tokens"

    def __init__(
        self,
        recipe: Recipe,
        train: UInt16[np.ndarray, " train_token"],
        validation: UInt16[np.ndarray, " validation_token"],
        n_ctx: int,
        validation_rows: int = 128,
    ):
        self.recipe, self.n_ctx = recipe, n_ctx
        self.rows = rows(train, n_ctx)
        self.validation = rows(validation, n_ctx)[:validation_rows]
        self.order = _order(len(self.rows), recipe)

    @property
    def per_step(self) -> int:
        """Tokens that a step predicts."""
        return self.recipe.batch * self.n_ctx

    def batches(self, step: int) -> list[Batch]:
        """See :class:`Examples`."""
        chosen = self.order[step * self.recipe.batch : (step + 1) * self.recipe.batch]
        return _pieces(self.rows[chosen], self.recipe.micro_batch)

    def held_out(self) -> list[Batch]:
        """See :class:`Examples`."""
        return _pieces(self.validation, self.recipe.batch)


def _order(n_rows: int, recipe: Recipe) -> Int64[np.ndarray, " row"]:
    needed = recipe.steps * recipe.batch
    if needed > n_rows:
        raise ValueError(
            f"expected at least {needed} training rows for {recipe.steps} steps of "
            f"{recipe.batch}, got {n_rows}: train fewer steps or prepare more text."
        )
    return np.random.default_rng(recipe.data_seed).permutation(n_rows)


def _pieces(chosen: UInt16[np.ndarray, "row pos_plus_1"], size: int) -> list[Batch]:
    """Rows, split into what the model reads and what it must predict."""
    pieces = torch.from_numpy(chosen.astype(np.int64)).split(size)
    return [(ids[:, :-1].contiguous(), ids[:, 1:].contiguous()) for ids in pieces]
