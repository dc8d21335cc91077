"""The verb ``train`` for experiments: every run of a plan, each in a folder of its own."""

import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from mudd_interp.analysis import head_scores
from mudd_interp.axes import unknown_name
from mudd_interp.checkpoints import save_model
from mudd_interp.checkpoints.tokenizer import load_tokenizer
from mudd_interp.experiments.plan import PLANS, AnyRun, Run, Scale, Stage
from mudd_interp.experiments.rungs import N_CTX, config, fresh_model
from mudd_interp.files import exclusive, place_of, read_json, try_folder, write_text
from mudd_interp.model import HookedMUDDTransformer
from mudd_interp.schema import validated
from mudd_interp.training.evaluate import by_file, pack_losses
from mudd_interp.training.examples import TextExamples
from mudd_interp.training.packing import load_stream, prepare
from mudd_interp.training.run import end_with
from mudd_interp.training.tokenizer import TOKENIZER
from mudd_interp.training.trainer import CHECKPOINT, DivergedError, Schedule, Trainer
from mudd_interp.training.validation import load_pack

RESULT = "result.json"
"""The file that a complete run leaves."""

MODEL = "model"
SCORED = ("previous_token", "induction")

Record = TypeVar("Record")


@dataclass(frozen=True, kw_only=True)
class How:
    """Where and how runs are computed; none of it is part of the plan.

    Attributes:
        data: Folder of the prepared tokens.
        device: ``cpu``, ``cuda``...
        bfloat16: Whether matrix products are in bfloat16; weights stay in float32.
        compiled: Whether to use ``torch.compile``.
        threads: CPU threads of a run; ``None`` leaves the choice to torch.
    """

    data: Path
    device: str = "cpu"
    bfloat16: bool = False
    compiled: bool = False
    threads: int | None = None


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What is kept of a run, beside its log and its weights.

    Attributes:
        name: The run's.
        loss: Held-out loss in nats per token; ``None`` if training diverged.
        files: The held-out files, by package and path.
        file_tokens: Predicted tokens of each file.
        file_totals: Summed loss of each file, in nats.
        positions: Mean loss by position, in nats; the first is of the second token.
        scores: The largest score of any head, 0..1, by the name of the score.
        parameters: All parameters of the model.
        device: On which it was trained.
        bfloat16: Whether matrix products were in bfloat16.
        torch: Version of torch.
    """

    name: str
    loss: float | None
    files: tuple[str, ...]
    file_tokens: tuple[int, ...]
    file_totals: tuple[float, ...]
    positions: tuple[float, ...]
    scores: dict[str, float]
    parameters: int
    device: str
    bfloat16: bool
    torch: str


def run_plan(
    name: str,
    out_dir: str | os.PathLike[str],
    how: How | None = None,
    scale: Scale | None = None,
    jobs: int = 1,
) -> list[Run]:
    """Train all runs of a plan that are not there yet; interrupted ones go on.

    Args:
        name: The plan, one of ``PLANS``.
        out_dir: Where each run gets a folder with ``log.csv``, ``model`` and, when it is complete,
            ``result.json``. Plans share runs, and so may share the folder.
        how: Where and how; the tokens are prepared in the folder ``data`` of ``out_dir`` by
            default.
        scale: What to change of the plan.
        jobs: Runs at once, each in a process of its own if there are several.

    Returns:
        The runs in their order.

    Raises:
        ValueError: If there is no such plan or device, a folder cannot be written or another
            process is at work there, or a run cannot start or continue.
    """
    if name not in PLANS:
        raise ValueError(unknown_name("experiment", name, PLANS))
    place = place_of(out_dir)
    how = how or How(data=place / "data")
    check_place(place, how)
    prepare(how.data)
    stages = PLANS[name](scale or Scale(), partial(held_out_loss, place=place))
    return run_stages(stages, partial(train_run, place=place, how=how), jobs)


def run_stages(
    stages: Iterable[Stage[AnyRun]], train: Callable[[AnyRun], None], jobs: int
) -> list[AnyRun]:
    """Train the runs of each stage, some at once; all of them in their order."""
    done = list[AnyRun]()
    with _pool(jobs) if jobs > 1 else nullcontext() as pool:
        for stage in stages:
            list(map(train, stage.runs) if pool is None else pool.map(train, stage.runs))
            done += [run for run in stage.runs if run not in done]
    return done


def check_place(place: Path, how: How) -> None:
    """Refuse a folder that cannot be written, and a device that is not there.

    Raises:
        ValueError: With what to do.
    """
    check_device(how.device)
    try:
        try_folder(place)
    except OSError as error:
        raise ValueError(
            f"cannot write to {place} ({error.strerror}): give another folder."
        ) from error


def check_device(name: str) -> None:
    """Refuse a device that is not there.

    Raises:
        ValueError: With what to do.
    """
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"cannot use the device {name!r} ({reason}): name another.") from error


def _pool(jobs: int) -> ProcessPoolExecutor:
    """Processes that end with this one; fresh ones, as a forked one cannot use CUDA."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(jobs, context, initializer=end_with, initargs=(os.getpid(),))


def train_run(run: Run, place: Path, how: How) -> None:
    """Train one run and measure it, unless that was done."""

    def train(folder: Path) -> tuple[nn.Module | None, RunResult]:
        model = _trained(run, folder, how)
        fresh = model or fresh_model(config(run.size, run.rung), run.seed)
        return model, _measured(run, fresh, how, diverged=model is None)

    complete(place / run.name, train)


def complete(folder: Path, train: Callable[[Path], tuple[nn.Module | None, Any]]) -> None:
    """Do a run, unless that was done: leave its model, if there is one, and its result."""
    if is_complete(folder):
        return
    with exclusive(folder):
        model, found = train(folder)
        if model is not None:
            save_model(model, folder / MODEL, overwrite=True)
        write_text(folder / RESULT, json.dumps(asdict(found)) + "\n")
        (folder / CHECKPOINT).unlink(missing_ok=True)


def _trained(run: Run, folder: Path, how: How) -> HookedMUDDTransformer | None:
    """The model at the end of its run, on the CPU; ``None`` if it diverged."""
    if how.threads is not None:
        torch.set_num_threads(how.threads)
    torch.compiler.reset()  # or the models of earlier runs count against the limit of recompiling
    cfg = config(run.size, run.rung)
    model = fresh_model(cfg, run.seed, load_tokenizer(TOKENIZER)).to(how.device)
    train, validation = load_stream(how.data, "train"), load_stream(how.data, "validation")
    trainer = Trainer(
        model,
        run.recipe,
        TextExamples(run.recipe, train, validation, N_CTX),
        folder,
        schedule=Schedule(validate=max(1, run.steps // 7)),
        compiled=how.compiled,
        bfloat16=how.bfloat16,
    )
    try:
        trainer.run()
    except DivergedError:
        return None
    return model.to("cpu")


def _measured(run: Run, model: HookedMUDDTransformer, how: How, diverged: bool) -> RunResult:
    """What a model does on the bundled held-out text, on the CPU and in float32 everywhere."""
    same: dict[str, Any] = {
        "name": run.name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "device": how.device,
        "bfloat16": how.bfloat16,
        "torch": torch.__version__,
    }
    if diverged:
        nothing: dict[str, Any] = dict.fromkeys(
            ("files", "file_tokens", "file_totals", "positions"), ()
        )
        return RunResult(**same, **nothing, loss=None, scores={})
    pack = load_pack()
    losses = pack_losses(model.logits, pack)
    files = by_file(losses, pack)
    scores: Any = head_scores(model).frame
    return RunResult(
        **same,
        loss=files.mean,
        files=files.files,
        file_tokens=tuple(files.tokens.tolist()),
        file_totals=tuple(files.totals.tolist()),
        positions=tuple(losses.mean(0).tolist()),
        scores={name: float(scores[name].max()) for name in SCORED},
    )


def is_complete(folder: Path) -> bool:
    """Whether a run has been trained to its end and measured."""
    return (folder / RESULT).is_file()


def read_result(folder: Path) -> RunResult:
    """What a complete run left.

    Raises:
        ValueError: If it is not there, or not as it was written.
    """
    return read_record(folder, RunResult)


def read_record(folder: Path, kind: type[Record]) -> Record:
    """What a complete run of any experiment left, as that experiment writes it.

    Raises:
        ValueError: If it is not there, or not as it was written.
    """
    path = folder / RESULT
    return validated(kind, read_json(path), str(path))


def held_out_loss(run: Run, place: Path) -> float:
    """The loss of a complete run, in nats per token; infinite if it diverged."""
    return or_infinite(read_result(place / run.name).loss)


def or_infinite(loss: float | None) -> float:
    """A loss; infinite where there is none, because training diverged."""
    return float("inf") if loss is None else loss


def complete_runs(place: Path) -> Sequence[Path]:
    """The folders of complete runs, by name."""
    return sorted(path.parent for path in place.glob(f"*/{RESULT}"))
