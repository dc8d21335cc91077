"""The log of a training run: a line of CSV for each report, under one header."""

import os
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from mudd_interp.files import csv_rows, write_bytes


@dataclass(frozen=True)
class LogRow:
    """One line of the log.

    Attributes:
        step: Optimiser steps so far.
        seen: Tokens predicted, or images classified, so far.
        train_loss: The loss of the step's batch, in nats per token or image.
        lr: Learning rate of the step.
        grad_norm: L2 norm of the gradient before clipping.
        per_second: Tokens or images per second, since the previous line.
        validation_loss: In the same unit; ``None`` where it was not computed.
    """

    step: int
    seen: int
    train_loss: float
    lr: float
    grad_norm: float
    per_second: float
    validation_loss: float | None


def header(unit: str) -> bytes:
    """The first line of a log whose unit is ``tokens`` or ``images``."""
    named = {"seen": unit, "per_second": f"{unit}_per_second"}
    return csv_rows([[named.get(field.name, field.name) for field in fields(LogRow)]])


def add_to_log(path: Path, row: LogRow, unit: str) -> None:
    """Add a line, below the header.

    Raises:
        ValueError: If it cannot be written; the log is as it was.
    """
    size = path.stat().st_size if path.exists() else 0
    lines = (b"" if size else header(unit)) + csv_rows([astuple(row)])
    try:
        with path.open("ab") as file:
            file.write(lines)
    except OSError as error:
        if path.exists():
            os.truncate(path, size)  # without the half of a line that was written
        raise ValueError(
            f"cannot write {path} ({error.strerror}): make room, and the same command resumes from "
            "the last checkpoint."
        ) from error


def trim_log(path: Path, step: int, unit: str) -> None:
    """Drop the lines after the checkpoint, whose steps are run again, and a half-written line.

    Raises:
        ValueError: If the file is not a log in this unit.
    """
    if not path.exists():
        return
    first, *lines = path.read_bytes().splitlines(keepends=True) or [b""]
    if not first.endswith(b"\n"):  # a kill or a full disk left only this
        path.unlink()
        return
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    steps = [line.split(b",")[0] for line in lines]
    if _bare(first) != _bare(header(unit)) or not all(map(bytes.isdigit, steps)):
        raise ValueError(
            f"{path} is not the log of a run: choose another output folder, or remove the file."
        )
    kept = [line for line, at in zip(lines, steps, strict=True) if int(at) <= step]
    write_bytes(path, b"".join([first, *kept]))


def _bare(line: bytes) -> bytes:
    """A header without quotes, which some writers of CSV set and others do not."""
    return line.replace(b'"', b"").strip()
