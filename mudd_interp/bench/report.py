"""The benches by name, and what they found, as a table and as JSON."""

import os
import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

import mudd_interp
from mudd_interp.axes import unknown_name
from mudd_interp.bench.benches import cache, compiled, decode, forward, large, load, sweeps, train
from mudd_interp.bench.growth import exponents, growth
from mudd_interp.bench.measure import Row
from mudd_interp.bench.options import Options
from mudd_interp.bench.paper import left_out, paper
from mudd_interp.bench.sizes import SIZES, size_of
from mudd_interp.bench.startup import figures, startup
from mudd_interp.bench.wirings import wirings
from mudd_interp.files import write_bytes
from mudd_interp.viz import (
    IMAGE_FORMATS,
    ImageFormat,
    figure_html,
    figure_images,
    find_browser,
    growth_figure,
)

BENCHES: dict[str, Callable[[Options], list[Row]]] = {
    "forward": forward,
    "decode": decode,
    "cache": cache,
    "sweep": sweeps,
    "load": load,
    "train": train,
    "startup": startup,
    "figures": figures,
    "compile": compiled,
    "large": large,
    "paper": paper,
    "wirings": wirings,
}
"""The benches that compare with a peer."""

GROWTH = "growth"

NAMED = ("compile", "large", "paper", "wirings", GROWTH)
"""The benches that run only when they are named."""


def measure(
    names: Sequence[str] = (),
    size: str = "small",
    device: str = "cpu",
    dtype: str = "float32",
    repeats: int = 5,
    report: Callable[[str], object] = str,
    keep: Callable[[dict[str, Any]], object] = len,
) -> dict[str, Any]:
    """Run benches.

    Args:
        names: Which benches; empty for all but those in ``NAMED``.
        size: ``small`` (12 x 768), ``410m`` (24 x 1024), or ``toy``, which is only for trying out.
        device: Where the models are.
        dtype: Their precision.
        repeats: How often each function runs.
        report: Called with the name of each bench before it begins.
        keep: Called after each bench with all that was found so far.

    Returns:
        JSON-ready: ``machine``, ``options``, ``rows`` by bench, ``growth`` with ``points`` and
        ``exponents``, and of ``paper`` the models that are ``left_out``, with the reason.

    Raises:
        ValueError: If a bench, the size, the precision or the device does not exist.
        ChildProcessError: If a measurement in a process of its own fails.
    """
    for name in names:
        if name not in (*BENCHES, GROWTH):
            raise ValueError(unknown_name("bench", name, (*BENCHES, GROWTH)))
    given: dict[str, Any] = {"size": size, "device": device, "dtype": dtype, "repeats": repeats}
    options = _options(**given)
    found: dict[str, Any] = {"machine": _machine(options), "options": given, "rows": {}}
    for name in names or [name for name in BENCHES if name not in NAMED]:
        report(name)
        if name == GROWTH:
            points = growth(options)
            found[GROWTH] = {
                "points": points.to_dict("records"),
                "exponents": exponents(points).to_dict("records"),
            }
        else:
            if name == "paper":
                found["left_out"] = left_out(options)
            found["rows"][name] = [row.to_dict() for row in BENCHES[name](options)]
        keep(found)
    return found


def _options(size: str, device: str, dtype: str, repeats: int) -> Options:
    precision = getattr(torch, dtype, None)
    if precision not in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        raise ValueError(f"dtype must be float32, bfloat16, float16 or float64, got {dtype!r}.")
    if repeats < 1:
        raise ValueError(f"repeats must be 1 or more, got {repeats}.")
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"the device {device!r} cannot be used here ({str(error).splitlines()[0]})."
        ) from error
    return Options(
        size=size_of(size),
        size_name=size,
        device=torch.device(device),
        dtype=precision,
        repeats=repeats,
    )


def _machine(options: Options) -> dict[str, Any]:
    is_cuda = options.device.type == "cuda"
    return {
        "processor": _processor(),
        "accelerator": torch.cuda.get_device_name(options.device) if is_cuda else None,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        "mudd-interp": mudd_interp.__version__,
        **{name: version(name) for name in ("torch", "transformers", "transformer-lens")},
    }


def _processor() -> str:
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def print_report(found: dict[str, Any], console: Console | None = None) -> None:
    """Print the table, for a person to read."""
    console = console or Console()
    machine, options = found["machine"], found["options"]
    console.print(
        f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}. Where "
        f"no other model is named: {options['size']} ({_shape(options['size'])}), batch 1, "
        f"{options['dtype']} on {options['device']}."
    )
    table = Table("what, against what", "ours", "theirs", "ratio (range)", "reach")
    in_paper = "paper" in found["rows"]
    if in_paper:
        table.add_column("paper")
    for rows in found["rows"].values():
        for row in rows:
            table.add_row(*_cells(row), *([_paper(row)] if in_paper else []))
        table.add_section()
    if found["rows"]:
        console.print(table)
    for name, reason in found.get("left_out", {}).items():
        console.print(f"left out of the paper's sizes: {name} ({reason})", highlight=False)
    if GROWTH in found:
        console.print(_growth_table(found[GROWTH]))


def _shape(name: str) -> str:
    return f"{SIZES[name].n_layers} x {SIZES[name].d_model}"


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    sign = "≥" if row["at_least"] else "≤"
    found = {None: "", True: "reached", False: "not reached"}[row["reached"]]
    reach = "" if row["reach"] is None else f"{sign} {row['reach']:.2f} {found}"
    ours, peer = (_number(row[name], row["unit"]) for name in ("ours", "peer"))
    ratio = f"{row['ratio']:.3f} ({row['low']:.2f} to {row['high']:.2f})"
    return (f"{row['what']}\n  {row['against']}", ours, peer, ratio, reach)


def _paper(row: dict[str, Any]) -> str:
    return "" if row["paper"] is None else f"{row['paper']:.3f}"


def _number(value: float, unit: str) -> str:
    if unit == "s" and value < 0.1:
        return f"{1e3 * value:.2f} ms"
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def _growth_table(found: dict[str, Any]) -> Table:
    table = Table("grows with", "model", "cost", "exponent")
    for row in found["exponents"]:
        table.add_row(row["axis"], row["model"], row["cost"], f"{row['exponent']:.2f}")
    return table


def check_figure(path: str | os.PathLike[str]) -> ImageFormat | None:
    """The format of a picture by its file's name; ``None`` for a page.

    Raises:
        ValueError: If the name does not end with a known format, or no picture can be drawn here.
    """
    suffix = Path(path).suffix.removeprefix(".").lower()
    if suffix == "html":
        return None
    for image_format in IMAGE_FORMATS:
        if suffix == image_format:
            find_browser()
            return image_format
    known = ", ".join(f".{name}" for name in ("html", *IMAGE_FORMATS))
    raise ValueError(f"a figure's file must end with one of {known}, got {Path(path).name!r}.")


def write_growth(found: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write the figure of the bench ``growth``, as a page or a picture.

    Raises:
        ValueError: See :func:`check_figure`.
        OSError: If it cannot be written.
    """
    image_format = check_figure(path)
    measured = found[GROWTH]
    points, slopes = pd.DataFrame(measured["points"]), pd.DataFrame(measured["exponents"])
    options, machine = found["options"], found["machine"]
    source = (
        f"{options['size']} ({_shape(options['size'])}), batch 1, {options['dtype']} on "
        f"{options['device']}, {machine['threads']} threads, random weights"
    )
    figure = growth_figure(points, slopes, source)
    if image_format is None:
        data = figure_html(figure, "growth").encode()
    else:
        (data,) = figure_images([(figure, image_format)])
    write_bytes(path, data)
