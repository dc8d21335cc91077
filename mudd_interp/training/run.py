"""The verb ``train``: rebuild the bundled models from the sources on this machine."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mudd_interp.checkpoints import save_model
from mudd_interp.checkpoints.own import check_model_target
from mudd_interp.checkpoints.tokenizer import load_tokenizer
from mudd_interp.files import exclusive, place_of, try_folder
from mudd_interp.model import HookedMUDDTransformer
from mudd_interp.training.examples import TextExamples
from mudd_interp.training.packing import is_prepared, load_stream, prepare
from mudd_interp.training.presets import PRESETS, Preset, members
from mudd_interp.training.tokenizer import TOKENIZER
from mudd_interp.training.trainer import Trainer

BAD_INPUT = 2
"""Exit code of the command where it refuses its input, with one message."""

_PARENT = "MUDD_INTERP_TRAINED_FOR"  # the process that began this one, in its environment


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How to run, and what to change in the preset.

    Attributes:
        data: Folder of the prepared tokens, made on first use; ``None`` for the folder ``data``
            inside the output.
        steps: Optimiser steps, instead of the preset's; ``None`` keeps those.
        peak_lr: Peak learning rate, instead of the preset's; ``None`` keeps that.
        threads: CPU threads per process; ``None`` leaves the choice to torch.
        compiled: Whether to use ``torch.compile``.
        parallel: Whether the models of a group train at the same time, each in its own process.
    """

    data: Path | None = None
    steps: int | None = None
    peak_lr: float | None = None
    threads: int | None = None
    compiled: bool = False
    parallel: bool = False


def run_preset(
    name: str, out_dir: str | os.PathLike[str], options: RunOptions | None = None
) -> None:
    """Train a preset, or every preset of a group, each in its own folder under ``out_dir``.

    A run that was interrupted resumes from its last checkpoint.

    Args:
        name: The preset or group.
        out_dir: Where ``<preset>/checkpoint.pt``, ``<preset>/log.csv`` and, at the end, the folder
            ``<preset>/model`` for :func:`mudd_interp.load_model` are written.
        options: How to run, and what to change in the preset.

    Raises:
        ValueError: If the name is unknown, ``out_dir`` cannot be written or another process is at
            work there, a source file is not the expected one, or a run cannot start, cannot
            continue or stops being finite; where runs are parallel, the message names the preset.
        ChildProcessError: If a process of a parallel run ended for another reason.
    """
    names = members(name)
    options = options or RunOptions()
    place = place_of(out_dir)
    options = replace(options, data=place_of(options.data or place / "data"))
    _check_folders(out_dir, [place / member for member in names], _data(options))
    prepare(_data(options))
    if options.parallel and len(names) > 1:
        _run_processes(names, place, options)
        return
    for member in names:
        train_one(member, place / member, options)


def _check_folders(out_dir: str | os.PathLike[str], folders: Sequence[Path], data: Path) -> None:
    """Refuse folders that cannot be written, or in which another process trains."""
    try:
        if not is_prepared(data):
            try_folder(data)
        for folder in folders:
            try_folder(folder)
            with exclusive(folder):
                check_model_target(folder / "model", overwrite=True)
    except OSError as error:
        raise ValueError(
            f"cannot write to {out_dir} ({error.strerror}): give another folder."
        ) from error


def train_one(name: str, folder: Path, options: RunOptions) -> None:
    """Train one preset in this process, alone in its folder, and write its weights there."""
    if parent := os.environ.get(_PARENT):
        end_with(int(parent))
    with exclusive(folder):
        _train(name, folder, options)


def _train(name: str, folder: Path, options: RunOptions) -> None:
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    preset = _overridden(PRESETS[name], options)
    torch.manual_seed(preset.recipe.model_seed)
    model = HookedMUDDTransformer(preset.cfg, tokenizer=load_tokenizer(TOKENIZER))
    data = _data(options)
    train, validation = load_stream(data, "train"), load_stream(data, "validation")
    examples = TextExamples(preset.recipe, train, validation, preset.cfg.n_ctx)
    Trainer(model, preset.recipe, examples, folder, compiled=options.compiled).run()
    save_model(model, folder / "model", overwrite=True)


def end_with(parent: int) -> None:
    """End this process cleanly when the one that began it is gone, however that ended."""
    threading.Thread(target=_wait_for_end, args=(parent,), daemon=True).start()


def _wait_for_end(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


def _data(options: RunOptions) -> Path:
    assert options.data is not None
    return options.data


def _overridden(preset: Preset, options: RunOptions) -> Preset:
    recipe = replace(
        preset.recipe,
        steps=preset.recipe.steps if options.steps is None else options.steps,
        peak_lr=preset.recipe.peak_lr if options.peak_lr is None else options.peak_lr,
    )
    return replace(preset, recipe=recipe)


def _run_processes(names: tuple[str, ...], out_dir: Path, options: RunOptions) -> None:
    """Train each in its own process; when one fails, stop the others and say why."""
    processes: dict[str, subprocess.Popen[str]] = {}
    with ThreadPoolExecutor(len(names)) as pool:
        try:
            for name in names:
                command = _command(name, out_dir, options)
                processes[name] = subprocess.Popen(
                    command,
                    stderr=subprocess.PIPE,
                    text=True,
                    errors="replace",
                    env={**os.environ, _PARENT: str(os.getpid())},
                )
            ends = {pool.submit(each.communicate): name for name, each in processes.items()}
            for end in as_completed(ends):
                name, (_, said) = ends[end], end.result()
                _check_end(name, processes[name].returncode, said, out_dir)
        finally:
            for process in processes.values():
                process.terminate()  # to the command, the same as Ctrl-C: it cleans up and ends


def _check_end(name: str, code: int, said: str, out_dir: Path) -> None:
    """Print what a process that succeeded printed; raise what stopped one that failed."""
    if code == 0:
        sys.stderr.write(said)
        return
    goes_on = (
        f"All other training was stopped; the checkpoints in {out_dir} stay, and the same command "
        "resumes from them."
    )
    if code == BAD_INPUT:
        message = said.rpartition("mudd-interp: ")[2].strip().rstrip(".")
        raise ValueError(f"{name}: {message}. {goes_on}")
    how = f"exit code {code}" if code > 0 else f"the signal {signal.Signals(-code).name}"
    raise ChildProcessError(f"training {name} ended with {how}. {goes_on}\n{said}".rstrip())


def _command(name: str, out_dir: Path, options: RunOptions) -> list[str]:
    command = [sys.executable, "-m", "mudd_interp", "train", name, "--out", str(out_dir)]
    command += ["--data", str(options.data), "--threads", str(options.threads or 1)]
    command += ["--compile" if options.compiled else "--no-compile"]
    if options.steps is not None:
        command += ["--steps", str(options.steps)]
    if options.peak_lr is not None:
        command += ["--peak-lr", str(options.peak_lr)]
    return command
