"""Work in a fresh process, whose memory is its own: ``python -m mudd_interp.bench.child``.

Its argument is JSON, the name of a job below with the job's arguments, and it prints JSON.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor

import mudd_interp as mi
from mudd_interp.analysis import (
    DenseWeightsAnalysis,
    HeadActivityAnalysis,
    LayerSimilarityAnalysis,
    sweep,
)
from mudd_interp.bench.sizes import growing, held_out, mudd_pythia, random_tokens, size_of
from mudd_interp.catalog import choose
from mudd_interp.checkpoints.assemble import assemble
from mudd_interp.checkpoints.configs import read_config
from mudd_interp.checkpoints.released import RELEASED_LAYOUT
from mudd_interp.checkpoints.weight_files import open_weights
from mudd_interp.config import ModelConfig
from mudd_interp.figures import draw_figures, write_figures
from mudd_interp.request import Request
from mudd_interp.study import Study
from mudd_interp.viz import figure_html, head_activity_figure, similarity_figure, weights_figure

MB = 1e6
PAGE = 4096 / MB
"""The size of a page: memory is counted in pages, so no peak is smaller."""

FREED_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
"""For jobs that measure memory: tensors of a megabyte go back to the system when they are freed
(glibc would keep some), so that the level before a measurement is what is in use."""

THREE_FIGURES = ("layer_similarity", "dense_weights", "head_activity")


def in_child(job: str, environment: dict[str, str] | None = None, **arguments: Any) -> Any:
    """The result of a job of this module, run in a process of its own.

    Args:
        job: Its name.
        environment: Variables to add.
        **arguments: The job's arguments.

    Raises:
        ChildProcessError: If it fails, with the last lines that it printed.
    """
    command = [sys.executable, "-m", "mudd_interp.bench.child", json.dumps([job, arguments])]
    run = subprocess.run(
        command,
        env=os.environ | (environment or {}),
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if run.returncode:
        tail = "\n".join(run.stderr.splitlines()[-5:])
        raise ChildProcessError(f"the measurement {job} failed in its process:\n{tail}")
    return json.loads(run.stdout.splitlines()[-1])


class Peak:
    """Memory above the level at which a ``with`` block begins, in MB.

    On the CPU it is the process' resident memory, on an accelerator what torch has allocated.
    Where the system cannot forget an earlier peak (all but Linux), the peak is an upper bound.

    Attributes:
        level: The memory when the block begins.
        kept: The memory above the level when the block ends.
        peak: The highest memory above the level within the block.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self.level = self.kept = self.peak = 0.0

    def __enter__(self) -> "Peak":
        if self._device.type != "cpu":
            torch.accelerator.reset_peak_memory_stats(self._device)
        elif os.access("/proc/self/clear_refs", os.W_OK):
            # The peak is counted from here. Otherwise it would be the parent's, if that was larger:
            # a process begins with the peak of its parent.
            Path("/proc/self/clear_refs").write_text("5")
        self.level, _ = self._now()
        return self

    def __exit__(self, *exception: object) -> None:
        now, peak = self._now()
        self.kept, self.peak = now - self.level, max(peak - self.level, PAGE)

    def _now(self) -> tuple[float, float]:
        if self._device.type != "cpu":
            accelerator = torch.accelerator
            return (
                accelerator.memory_allocated(self._device) / MB,
                accelerator.max_memory_allocated(self._device) / MB,
            )
        status = Path("/proc/self/status")
        if not status.exists():
            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MB
            return most, most
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        now, peak = (1024 * int(fields[name].split()[0]) / MB for name in ("VmRSS", "VmHWM"))
        return now, peak

    def to_dict(self) -> dict[str, float]:
        """JSON-ready."""
        return {"level": self.level, "kept": self.kept, "peak": self.peak}


def bytes_of(tensors: Iterable[Tensor]) -> float:
    """The memory of tensors, in MB; memory that several of them share counts once."""
    views: dict[int, dict[Any, int]] = defaultdict(dict)
    storages: dict[int, int] = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        view = (tensor.storage_offset(), tensor.shape, tensor.stride())
        views[storage.data_ptr()][view] = tensor.nbytes
        storages[storage.data_ptr()] = storage.nbytes()
    return sum(min(storages[at], sum(views[at].values())) for at in storages) / MB


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
    """Memory and time of ``load_model``; the memory includes one short forward pass."""
    torch.mm(torch.ones(2, 2), torch.ones(2, 2))  # torch's own start
    with Peak(torch.device(device)) as peak:
        began = time.perf_counter()
        model = cast(Any, mi.load_model(folder, device=device, dtype=dtype, check=check))
        _finish(device)
        seconds = time.perf_counter() - began
        model(torch.arange(8)[None].to(device))
    return peak.to_dict() | {"seconds": seconds, "weights": bytes_of(model.parameters())}


@torch.no_grad()
def read(folder: str, device: str, dtype: str) -> dict[str, float]:
    """Time to read the weights into a model; names and shapes are checked, numbers are not."""
    began = time.perf_counter()
    cfg = ModelConfig.from_released(read_config(Path(folder)))
    weights = open_weights(Path(folder))
    place = (torch.device(device), getattr(torch, dtype))
    model = assemble(cfg, weights, RELEASED_LAYOUT, *place, check=lambda *_: None)
    _finish(device)
    return {"seconds": time.perf_counter() - began, "weights": bytes_of(model.parameters())}


@torch.no_grad()
def load_plain(folder: str, device: str, dtype: str) -> dict[str, float]:
    """The same weights by safetensors: read, then a clone or cast of every tensor."""
    target = getattr(torch, dtype)
    began = time.perf_counter()
    kept = {
        name: tensor.clone() if tensor.dtype == target else tensor.to(target)
        for file in sorted(Path(folder).glob("*.safetensors"))
        for name, tensor in load_file(file, device=device).items()
    }
    _finish(device)
    return {"seconds": time.perf_counter() - began, "tensors": len(kept)}


@torch.no_grad()
def large(folder: str, device: str, tokens: int) -> dict[str, float]:
    """Memory and time of ``load_model`` in bfloat16 and the three figures of one sequence."""
    torch.mm(torch.ones(2, 2), torch.ones(2, 2))  # torch's own start
    place = torch.device(device)
    with Peak(place) as peak:
        began = time.perf_counter()
        model = cast(Any, mi.load_model(folder, device=device, dtype="bfloat16"))
        loaded = time.perf_counter()
        ids = torch.randint(model.cfg.d_vocab, (1, tokens), generator=torch.Generator())
        analyses = (LayerSimilarityAnalysis(), DenseWeightsAnalysis(), HeadActivityAnalysis(()))
        similarity, weights, activity = sweep(model, [ids.to(place)], analyses)
        for figure in (
            similarity_figure(similarity),
            weights_figure(weights),
            head_activity_figure(activity),
        ):
            figure_html(figure, "large")
        ended = time.perf_counter()
    seconds = {"loading": loaded - began, "seconds": ended - began}
    return peak.to_dict() | seconds | {"weights": bytes_of(model.parameters())}


def _finish(device: str) -> None:
    if torch.device(device).type != "cpu":
        torch.accelerator.synchronize(torch.device(device))


def swept(model: str, device: str, dtype: str, sequences: int) -> dict[str, float]:
    """Memory of a sweep by one of the bundled models, above that of the model."""
    loaded = mi.load_model(model, device=device, dtype=dtype)
    with Peak(torch.device(device)) as peak:
        sweep(loaded, held_out(sequences), THREE_FIGURES)
    return peak.to_dict()


def figures(out: str, device: str, sequences: int | None, started: float) -> dict[str, float]:
    """Seconds of each step of ``mudd-interp figures``; process start included.

    Args:
        out: The folder to make.
        device: Where the models are.
        sequences: Of the bundled text; ``None`` for all.
        started: What ``time.monotonic`` said when the process was started.
    """
    clock = [started, time.monotonic()]
    request = Request(device=device, sequences=sequences)
    study, kinds = Study(request), choose((), request)
    clock.append(time.monotonic())
    study.prepare([need for kind in kinds for need in kind.needs(study)])
    clock.append(time.monotonic())
    drawn = draw_figures(study, kinds)
    clock.append(time.monotonic())
    write_figures(study, drawn, Path(out))
    clock.append(time.monotonic())
    steps = ("import", "load", "sweep", "draw", "write")
    return dict(zip(steps, (b - a for a, b in pairwise(clock)), strict=True))


JOBS: dict[str, Callable[..., dict[str, Any]]] = {
    job.__name__: job for job in (cache, forward, load, read, load_plain, large, swept, figures)
}


if __name__ == "__main__":
    name, arguments = json.loads(sys.argv[1])
    print(json.dumps(JOBS[name](**arguments)))  # noqa: T201 (what the parent reads)
