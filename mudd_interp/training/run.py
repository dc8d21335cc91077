"""The verb `train`: rebuild the bundled models from the sources on this machine."""

import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from mudd_interp.checkpoints import save_model
from mudd_interp.checkpoints.tokenizer import load_tokenizer
from mudd_interp.model import HookedMUDDTransformer
from mudd_interp.training.packing import load_stream, prepare
from mudd_interp.training.presets import PRESETS, Preset, members
from mudd_interp.training.tokenizer import TOKENIZER
from mudd_interp.training.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How to run, and what to change of the preset.

    Attributes:
        data: folder of the prepared tokens; made on first use. None: `data` inside the output.
        steps: optimiser steps instead of the preset's.
        peak_lr: peak learning rate instead of the preset's.
        threads: CPU threads per process; None leaves the choice to torch.
        compiled: whether to use `torch.compile`.
        parallel: whether the models of a group train at the same time, a process each.
    """

    data: Path | None = None
    steps: int | None = None
    peak_lr: float | None = None
    threads: int | None = None
    compiled: bool = False
    parallel: bool = False


def run_preset(name: str, out_dir: Path, options: RunOptions | None = None) -> None:
    """Train a preset, or every preset of a group, each in a folder of its own under `out_dir`.

    A run that was interrupted goes on from its last checkpoint.

    Args:
        name: of a preset or group.
        out_dir: where `<preset>/checkpoint.pt`, `log.csv` and, in the end, the folder `model` for
            `load_model` are written.
        options: see `RunOptions`.

    Raises:
        ValueError: the name is unknown, a source file is not the one expected, or training failed.
    """
    names = members(name)
    options = options or RunOptions()
    options = replace(options, data=options.data or out_dir / "data")
    prepare(_data(options))
    if options.parallel and len(names) > 1:
        _run_processes(names, out_dir, options)
        return
    for member in names:
        train_one(member, out_dir / member, options)


def train_one(name: str, folder: Path, options: RunOptions) -> None:
    """Train one preset in this process and write its weights to `folder`."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    preset = _overridden(PRESETS[name], options)
    torch.manual_seed(preset.recipe.model_seed)
    model = HookedMUDDTransformer(preset.cfg, tokenizer=load_tokenizer(TOKENIZER))
    data = _data(options)
    trainer = Trainer(
        model,
        preset.recipe,
        load_stream(data, "train"),
        load_stream(data, "validation"),
        folder,
        n_ctx=preset.cfg.n_ctx,
        compiled=options.compiled,
    )
    trainer.run()
    save_model(model, folder / "model", overwrite=True)


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
    """Start a process for each name, wait for all, and say which failed."""
    with ExitStack() as stack:
        commands = [_command(name, out_dir, options) for name in names]
        started = [stack.enter_context(subprocess.Popen(command)) for command in commands]
        codes = [process.wait() for process in started]
    failed = [name for name, code in zip(names, codes, strict=True) if code]
    if failed:
        raise ValueError(
            f"training of {', '.join(failed)} ended early, see the message above; the same "
            f"command goes on from the last checkpoint in {out_dir}"
        )


def _command(name: str, out_dir: Path, options: RunOptions) -> list[str]:
    command = [sys.executable, "-m", "mudd_interp.training.run", name, "--out", str(out_dir)]
    command += ["--data", str(options.data), "--threads", str(options.threads or 1)]
    command += ["--compile" if options.compiled else "--no-compile"]
    if options.steps is not None:
        command += ["--steps", str(options.steps)]
    if options.peak_lr is not None:
        command += ["--peak-lr", str(options.peak_lr)]
    return command


def _main(
    name: str,
    out: Annotated[Path, typer.Option(help="Folder of the runs.")],
    data: Annotated[Path | None, typer.Option(help="Folder of the prepared tokens.")] = None,
    steps: Annotated[int | None, typer.Option(min=1)] = None,
    peak_lr: Annotated[float | None, typer.Option(min=0.0)] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Per process.")] = None,
    compile: Annotated[bool, typer.Option(help="Use torch.compile.")] = False,
    parallel: Annotated[bool, typer.Option(help="A group's models at once.")] = False,
) -> None:
    """Train a preset (mudd-tiny, tfm-tiny, toy) or the group tiny-pair."""
    options = RunOptions(
        data=data,
        steps=steps,
        peak_lr=peak_lr,
        threads=threads,
        compiled=compile,
        parallel=parallel,
    )
    run_preset(name, out, options)


if __name__ == "__main__":
    typer.run(_main)
