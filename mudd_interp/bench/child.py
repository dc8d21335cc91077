"""Work in a fresh process, whose peak of memory is its own. ``python -m mudd_interp.bench.child``.

The argument is JSON: the name of a job below and its arguments; so is what it prints.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import psutil
import torch
from safetensors.torch import load_file
from torch import Tensor

import mudd_interp as mi
from mudd_interp.analysis import sweep
from mudd_interp.bench.sizes import growing, held_out, mudd_pythia, random_tokens, size_of
from mudd_interp.catalog import choose
from mudd_interp.figures import draw_figures, write_figures
from mudd_interp.request import Request
from mudd_interp.study import Study

MB = 1e6
PAGE = 4096 / MB
"""No peak is less: memory is counted in pages."""

FREED_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
"""Large tensors go back to the system when they are freed (glibc keeps some otherwise), so that
the level before a measurement is what is in use."""

THREE_FIGURES = ("layer_similarity", "dense_weights", "head_activity")


def in_child(job: str, **arguments: Any) -> dict[str, Any]:
    """What a job of this module returns, run in a process of its own.

    Raises:
        ChildProcessError: If it fails, with the last lines that it printed.
    """
    command = [sys.executable, "-m", "mudd_interp.bench.child", json.dumps([job, arguments])]
    run = subprocess.run(
        command, env=os.environ | FREED_AT_ONCE, capture_output=True, text=True, check=False
    )
    if run.returncode:
        tail = "\n".join(run.stderr.splitlines()[-5:])
        raise ChildProcessError(f"the measurement {job} failed in its process:\n{tail}")
    return json.loads(run.stdout.splitlines()[-1])


class Peak:
    """Memory above the level at which a ``with`` block begins, in MB: at its end and at its peak.

    On the CPU resident memory of the process (whose peak so far must be lower than the block's: a
    fresh process), on an accelerator what torch has allocated there.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self.kept = self.peak = self.seconds = 0.0

    def __enter__(self) -> "Peak":
        if self._device.type != "cpu":
            torch.accelerator.reset_peak_memory_stats(self._device)
        self._level, _ = self._now()
        self._began = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        self.seconds = time.perf_counter() - self._began
        kept, peak = self._now()
        self.kept, self.peak = kept - self._level, max(peak - self._level, PAGE)

    def _now(self) -> tuple[float, float]:
        if self._device.type != "cpu":
            accelerator = torch.accelerator
            return (
                accelerator.memory_allocated(self._device) / MB,
                accelerator.max_memory_allocated(self._device) / MB,
            )
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        return psutil.Process().memory_info().rss / MB, peak / MB

    def to_dict(self) -> dict[str, float]:
        """JSON-ready."""
        return {"kept": self.kept, "peak": self.peak, "seconds": self.seconds}


def bytes_of(tensors: Iterable[Tensor]) -> float:
    """The memory of tensors, in MB; what several of them share counts once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values()) / MB


@torch.no_grad()
def cache(size: str, device: str, dtype: str) -> dict[str, float]:
    """Memory of ``run_with_cache`` of everything, above that of the model."""
    given, place = size_of(size), torch.device(device)
    model = mudd_pythia(given, place, getattr(torch, dtype))
    tokens = random_tokens(given, given.tokens, place)
    model(tokens[:, :2])
    with Peak(place) as peak:
        logits, kept = model.run_with_cache(tokens)
    distinct = bytes_of([logits, *kept.values()])
    return peak.to_dict() | {"distinct": distinct, "tensors": len(kept)}


@torch.no_grad()
def forward(
    size: str, model: str, layers: int, tokens: int, device: str, dtype: str
) -> dict[str, float]:
    """Memory of a forward pass, above that of the model."""
    given, place = replace(size_of(size), n_layers=layers), torch.device(device)
    made = growing(model, given, place, getattr(torch, dtype))
    made(random_tokens(given, 2, place))
    ids = random_tokens(given, tokens, place)
    with Peak(place) as peak:
        made(ids)
    return peak.to_dict()


@torch.no_grad()
def load(folder: str, device: str, dtype: str, check: bool) -> dict[str, float]:
    """Memory and time of ``load_model`` and one short forward pass."""
    torch.mm(torch.ones(2, 2), torch.ones(2, 2))  # torch's own start
    with Peak(torch.device(device)) as peak:
        began = time.perf_counter()
        model = cast(Any, mi.load_model(folder, device=device, dtype=dtype, check=check))
        seconds = time.perf_counter() - began
        model(torch.arange(8)[None].to(device))
    weights = bytes_of(model.parameters())
    return {"peak": peak.peak, "seconds": seconds, "weights": weights}


@torch.no_grad()
def load_plain(folder: str, device: str, dtype: str) -> dict[str, float]:
    """The same weights by safetensors: read, then a clone or cast of every tensor."""
    target = getattr(torch, dtype)
    with Peak(torch.device(device)) as peak:
        kept = {
            name: tensor.clone() if tensor.dtype == target else tensor.to(target)
            for file in sorted(Path(folder).glob("*.safetensors"))
            for name, tensor in load_file(file, device=device).items()
        }
    return peak.to_dict() | {"tensors": len(kept)}


def swept(model: str, device: str, sequences: int) -> dict[str, float]:
    """Memory of a sweep of the bundled pair's one, loading included."""
    with Peak(torch.device(device)) as peak:
        loaded = mi.load_model(model, device=device)
        sweep(loaded, held_out(sequences), THREE_FIGURES)
    return peak.to_dict()


def figures(out: str, sequences: int | None) -> dict[str, float]:
    """Seconds of each step of ``mudd-interp figures`` with its defaults; process start included."""
    clock = [psutil.Process().create_time(), time.time()]
    request = Request(sequences=sequences)
    study, kinds = Study(request), choose((), request)
    clock.append(time.time())
    study.prepare([analysis for kind in kinds for analysis in kind.needs(request)])
    clock.append(time.time())
    drawn = draw_figures(study, kinds)
    clock.append(time.time())
    write_figures(study, drawn, Path(out))
    clock.append(time.time())
    steps = ("import", "load", "sweep", "draw", "write")
    return dict(zip(steps, (b - a for a, b in pairwise(clock)), strict=True))


JOBS: dict[str, Callable[..., dict[str, Any]]] = {
    job.__name__: job for job in (cache, forward, load, load_plain, swept, figures)
}


if __name__ == "__main__":
    name, arguments = json.loads(sys.argv[1])
    print(json.dumps(JOBS[name](**arguments)))  # noqa: T201 (what the parent reads)
