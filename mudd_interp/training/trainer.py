"""The training loop: resumable to the bit."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from mudd_interp.training.checkpoint import State, load_state, read_state, write_state
from mudd_interp.training.examples import Batch, Examples
from mudd_interp.training.log import LogRow, add_to_log, trim_log
from mudd_interp.training.progress import RunProgress
from mudd_interp.training.schedule import Decays, Recipe, decays, learning_rate, make_optimizer

LossFunction = Callable[[Shaped[Tensor, "row ..."], Int64[Tensor, "row ..."]], Float[Tensor, ""]]

CHECKPOINT = "checkpoint.pt"
LOG = "log.csv"


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How often a run reports and saves, in steps; this does not change the weights.

    Attributes:
        log: Steps from one line of the log to the next.
        validate: Steps from one validation loss in the log to the next.
        save: Steps from one checkpoint to the next.
    """

    log: int = 10
    validate: int = 250
    save: int = 100


def mean_loss(model: nn.Module, bfloat16: bool = False) -> LossFunction:
    """The mean cross-entropy of a model, in nats, as a function of what it reads and of targets.

    Args:
        model: The model.
        bfloat16: Whether matrix products are rounded to bfloat16 (autocast); weights, norms and the
            loss itself are not.
    """

    def loss(
        given: Shaped[Tensor, "row ..."], targets: Int64[Tensor, "row ..."]
    ) -> Float[Tensor, ""]:
        with torch.autocast(given.device.type, torch.bfloat16, enabled=bfloat16):
            logits = model(given, return_type="logits")
        return F.cross_entropy(logits.flatten(0, -2).float(), targets.flatten())

    return loss


class DivergedError(ValueError):
    """The loss of a run is no longer a finite number."""


class Trainer:
    """One model, one recipe, one folder.

    The batch of a step is a function of the step and the recipe. So a checkpoint needs to hold only
    the model, optimiser, step and random state, and a resumed run equals an unbroken one.

    Args:
        model: Any module with ``model(given, return_type="logits")``, on the device to train on.
        recipe: How to train it.
        examples: What it learns from.
        folder: Where ``checkpoint.pt`` and ``log.csv`` are written, and resumed from.
        schedule: How often to report and save.
        compiled: Whether to run the loss through ``torch.compile``.
        bfloat16: Whether to train with matrix products in bfloat16; the validation loss is in the
            weights' precision.
        decayed: To which parameters weight decay applies.

    Raises:
        ValueError: If ``folder`` holds a run of another recipe or a damaged run.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        examples: Examples,
        folder: Path,
        *,
        schedule: Schedule | None = None,
        compiled: bool = False,
        bfloat16: bool = False,
        decayed: Decays = decays,
    ):
        self.model, self.recipe, self.examples, self.folder = model, recipe, examples, folder
        self.schedule = schedule or Schedule()
        self.optimizer = make_optimizer(model.named_parameters(), recipe, decayed)
        self.device = next(model.parameters()).device
        self.eager_loss = mean_loss(model)
        loss = mean_loss(model, bfloat16)
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
        name, unit = self.folder.name, self.examples.unit
        with RunProgress(name, self.recipe.steps, self.step, unit) as progress:
            clock, counted = time.monotonic(), self.step
            while self.step < end:
                lr = learning_rate(self.recipe, self.step)
                train_loss, grad_norm = self._update(lr)
                if self._due(self.schedule.log) or self._due(self.schedule.validate):
                    elapsed = time.monotonic() - clock
                    speed = (self.step - counted) * self.examples.per_step / elapsed
                    row = self._report(train_loss, lr, grad_norm, speed)
                    progress.update(row.step, row.train_loss, speed, row.validation_loss)
                    clock, counted = time.monotonic(), self.step
                if self._due(self.schedule.save) or self.step == end:
                    self._save()
        self.model.eval()

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.recipe.steps

    def _update(self, lr: float) -> tuple[float, float]:
        """Take one optimiser step: the loss, and the gradient's norm before clipping."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        loss = sum(self._backward(batch) for batch in self.examples.batches(self.step))
        if not math.isfinite(loss):
            raise DivergedError(_diverged(self.folder, self.step, loss, lr))
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.step += 1
        return loss, norm.item()

    def _backward(self, batch: Batch) -> float:
        """Add the gradients of some rows of a step: their share of its mean loss."""
        given, targets = self._here(batch)
        loss = self.loss(given, targets) * (len(given) / self.recipe.batch)
        loss.backward()
        return loss.item()

    def _here(self, batch: Batch) -> Batch:
        given, targets = batch
        return given.to(self.device), targets.to(self.device)

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Mean loss over what is held out for the log, in nats."""
        self.model.eval()
        batches = self.examples.held_out()
        losses = [  # not compiled: compiling would take longer
            self.eager_loss(*self._here(batch)).item() * len(batch[0]) for batch in batches
        ]
        self.model.train()
        return sum(losses) / sum(len(given) for given, _ in batches)

    def _report(self, train_loss: float, lr: float, grad_norm: float, speed: float) -> LogRow:
        validation = self.validation_loss() if self._due(self.schedule.validate) else None
        seen = self.step * self.examples.per_step
        row = LogRow(self.step, seen, train_loss, lr, grad_norm, speed, validation)
        add_to_log(self.folder / LOG, row, self.examples.unit)
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
        trim_log(self.folder / LOG, self.step, self.examples.unit)


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
