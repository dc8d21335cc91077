"""The training loop: resumable to the bit, one pass over the rows."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt16
from torch import Tensor, nn

from mudd_interp.training.checkpoint import State, load_state, read_state, write_state
from mudd_interp.training.log import LogRow, add_to_log, trim_log
from mudd_interp.training.packing import rows
from mudd_interp.training.progress import RunProgress
from mudd_interp.training.schedule import Recipe, learning_rate, make_optimizer

LossFunction = Callable[[Int64[Tensor, "batch pos"], Int64[Tensor, "batch pos"]], Float[Tensor, ""]]

CHECKPOINT = "checkpoint.pt"
LOG = "log.csv"


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How often a run reports and saves, in steps; this does not change the weights.

    Attributes:
        log: Steps from one line of the log to the next.
        validate: Steps from one validation loss in the log to the next.
        save: Steps from one checkpoint to the next.
        validation_rows: Size of the validation subset: the first rows of the held-out stream.
    """

    log: int = 10
    validate: int = 250
    save: int = 100
    validation_rows: int = 128


def token_loss(model: nn.Module, bfloat16: bool = False) -> LossFunction:
    """The mean next-token loss of a model, in nats, as a function of inputs and targets.

    Args:
        model: The model.
        bfloat16: Whether matrix products are rounded to bfloat16 (autocast); weights, norms and the
            loss itself are not.
    """

    def loss(
        tokens: Int64[Tensor, "batch pos"], targets: Int64[Tensor, "batch pos"]
    ) -> Float[Tensor, ""]:
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=bfloat16):
            logits = model(tokens, return_type="logits")
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    return loss


class DivergedError(ValueError):
    """The loss of a run is no longer a finite number."""


class Trainer:
    """One model, one recipe, one folder.

    The batch of a step is a function of the step and the recipe. So a checkpoint needs to hold only
    the model, optimiser, step and random state, and a resumed run equals an unbroken one.

    Args:
        model: Any module with ``model(tokens, return_type="logits")``, on the device to train on.
        recipe: How to train it.
        train: The training stream.
        validation: The held-out stream.
        folder: Where ``checkpoint.pt`` and ``log.csv`` are written, and resumed from.
        n_ctx: Tokens per row.
        schedule: How often to report and save.
        compiled: Whether to run the loss through ``torch.compile``.
        bfloat16: Whether to train with matrix products in bfloat16; the validation loss is in the
            weights' precision.

    Raises:
        ValueError: If there are too few rows for one pass, or ``folder`` holds a run of another
            recipe or a damaged run.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        train: UInt16[np.ndarray, " train_token"],
        validation: UInt16[np.ndarray, " validation_token"],
        folder: Path,
        *,
        n_ctx: int,
        schedule: Schedule | None = None,
        compiled: bool = False,
        bfloat16: bool = False,
    ):
        self.model, self.recipe, self.folder, self.n_ctx = model, recipe, folder, n_ctx
        self.schedule = schedule or Schedule()
        self.rows = rows(train, n_ctx)
        self.validation = rows(validation, n_ctx)[: self.schedule.validation_rows]
        self.order = _order(len(self.rows), recipe)
        self.optimizer = make_optimizer(model.named_parameters(), recipe)
        self.device = next(model.parameters()).device
        self.eager_loss = token_loss(model)
        loss = token_loss(model, bfloat16)
        self.loss: LossFunction = torch.compile(loss) if compiled else loss
        self.step = 0
        self._resume()

    def run(self, until: int | None = None) -> None:
        """Train up to the recipe's last step, or to step ``until``, and save.

        Raises:
            DivergedError: If the loss is not a finite number.
            ValueError: If a checkpoint cannot be written.
        """
        self.model.train()
        end = min(until or self.recipe.steps, self.recipe.steps)
        with RunProgress(self.folder.name, self.recipe.steps, self.step) as progress:
            clock, counted = time.monotonic(), self.step
            while self.step < end:
                lr = learning_rate(self.recipe, self.step)
                train_loss, grad_norm = self._update(lr)
                if self._due(self.schedule.log) or self._due(self.schedule.validate):
                    elapsed = time.monotonic() - clock
                    speed = (self.step - counted) * self._tokens_per_step / elapsed
                    row = self._report(train_loss, lr, grad_norm, speed)
                    progress.update(row.step, row.train_loss, speed, row.validation_loss)
                    clock, counted = time.monotonic(), self.step
                if self._due(self.schedule.save) or self.step == end:
                    self._save()
        self.model.eval()

    @property
    def _tokens_per_step(self) -> int:
        return self.recipe.batch * self.n_ctx

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.recipe.steps

    def _update(self, lr: float) -> tuple[float, float]:
        """Take one optimiser step: the loss, and the gradient's norm before clipping."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        loss = sum(self._backward(chunk) for chunk in self._micro_batches(self.step))
        if not math.isfinite(loss):
            raise DivergedError(_diverged(self.folder, self.step, loss, lr))
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.step += 1
        return loss, norm.item()

    def _backward(self, chunk: UInt16[np.ndarray, "batch pos_plus_1"]) -> float:
        """Add the gradients of some rows of a step: their share of its mean loss."""
        given = inputs_and_targets(chunk, self.device)
        loss = self.loss(*given) * (len(chunk) / self.recipe.batch)
        loss.backward()
        return loss.item()

    def _micro_batches(self, step: int) -> list[UInt16[np.ndarray, "batch pos_plus_1"]]:
        chosen = self.order[step * self.recipe.batch : (step + 1) * self.recipe.batch]
        return _chunks(self.rows[chosen], self.recipe.micro_batch)

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Mean loss over the fixed validation subset, in nats per token."""
        self.model.eval()
        losses = [  # not compiled: compiling would take longer
            self.eager_loss(*inputs_and_targets(chunk, self.device)).item() * len(chunk)
            for chunk in _chunks(self.validation, self.recipe.batch)
        ]
        self.model.train()
        return sum(losses) / len(self.validation)

    def _report(self, train_loss: float, lr: float, grad_norm: float, speed: float) -> LogRow:
        validation = self.validation_loss() if self._due(self.schedule.validate) else None
        tokens = self.step * self._tokens_per_step
        row = LogRow(self.step, tokens, train_loss, lr, grad_norm, speed, validation)
        add_to_log(self.folder / LOG, row)
        return row

    def _save(self) -> None:
        state = State(
            model=dict(self.model.state_dict()),
            optimizer=self.optimizer.state_dict(),
            step=self.step,
            rng=torch.get_rng_state(),
            recipe=_comparable(self.recipe),
        )
        write_state(state, self.folder / CHECKPOINT)

    def _resume(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / CHECKPOINT
        if path.exists():
            state = read_state(path)
            _require_same_recipe(path, state.recipe, _comparable(self.recipe))
            load_state(state, path, self.model, self.optimizer)
            self.step = state.step
        trim_log(self.folder / LOG, self.step)


def inputs_and_targets(
    chunk: UInt16[np.ndarray, "batch pos_plus_1"], device: torch.device | None = None
) -> tuple[Int64[Tensor, "batch pos"], Int64[Tensor, "batch pos"]]:
    """Rows, split into what the model reads and what it must predict."""
    ids = torch.from_numpy(chunk.astype(np.int64)).to(device)
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def _order(n_rows: int, recipe: Recipe) -> Int64[np.ndarray, " row"]:
    needed = recipe.steps * recipe.batch
    if needed > n_rows:
        raise ValueError(
            f"expected at least {needed} training rows for {recipe.steps} steps of "
            f"{recipe.batch}, got {n_rows}: train fewer steps or prepare more text."
        )
    return np.random.default_rng(recipe.data_seed).permutation(n_rows)


def _chunks(
    all_rows: UInt16[np.ndarray, "row pos"], size: int
) -> list[UInt16[np.ndarray, "batch pos"]]:
    return [all_rows[start : start + size] for start in range(0, len(all_rows), size)]


def _comparable(recipe: Recipe) -> dict[str, Any]:
    return {**asdict(recipe), "betas": list(recipe.betas)}


def _require_same_recipe(path: Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    differing = sorted(key for key in saved | wanted if saved.get(key) != wanted.get(key))
    if differing:
        key = differing[0]
        raise ValueError(
            f"{path} was trained with {key}={saved.get(key)}, this run wants {wanted.get(key)}: "
            "choose another output folder, or remove this one to start again."
        )


def _diverged(folder: Path, step: int, loss: float, lr: float) -> str:
    return (
        f"{folder.name}: expected a finite loss, got {loss} at step {step} (learning rate "
        f"{lr:.2e}); the last checkpoint in {folder} is from before that: lower the peak rate and "
        "start in a new folder."
    )
