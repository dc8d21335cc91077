"""Times and memory: interleaved repeats, ratios within one run, and peaks of a fresh process."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: ours against a peer.

    Attributes:
        what: Which of our functions was measured.
        against: What it is compared with.
        unit: The unit of ``ours`` and ``peer``: ``"s"``, ``"MB"`` or ``"tokens/s"``.
        ours: Our median.
        peer: The peer's median.
        ratio: Median of the ratios of neighbouring measurements, ours to the peer's.
        low: The smallest of these ratios.
        high: The largest.
        reach: The ratio to reach; ``None`` where the ratio is only stated.
        at_least: Whether larger ratios are better.
        paper: The ratio that the paper reports, on its own hardware; ``None`` where it has none.
    """

    what: str
    against: str
    unit: str
    ours: float
    peer: float
    ratio: float
    low: float
    high: float
    reach: float | None = None
    at_least: bool = False
    paper: float | None = None

    @property
    def reached(self) -> bool | None:
        """Whether that ratio is reached; ``None`` where there is none to reach."""
        if self.reach is None:
            return None
        return self.ratio >= self.reach if self.at_least else self.ratio <= self.reach

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with ``reached``."""
        return asdict(self) | {"reached": self.reached}


def compared(
    what: str,
    ours: list[float],
    against: str,
    peer: list[float],
    reach: float | None = None,
    *,
    unit: str = "s",
    at_least: bool = False,
    paper: float | None = None,
) -> Row:
    """A row from measurements that were made in turn."""
    ratios = [a / b for a, b in zip(ours, peer, strict=True)]
    return Row(
        what=what,
        against=against,
        unit=unit,
        ours=statistics.median(ours),
        peer=statistics.median(peer),
        ratio=statistics.median(ratios),
        low=min(ratios),
        high=max(ratios),
        reach=reach,
        at_least=at_least,
        paper=paper,
    )


def interleaved(
    repeats: int, device: torch.device, functions: Mapping[str, Callable[[], object]]
) -> dict[str, list[float]]:
    """Seconds of each function, ``repeats`` times, in turn; each has run once before.

    In turn, so that a machine that slows down slows all of them; every other round goes backwards,
    so that no function always follows the same other one. What a function returns is freed while
    the clock is stopped.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    order = list(functions.items())
    for repeat in range(repeats):
        for name, function in order if repeat % 2 else reversed(order):
            gc.collect()
            _wait(device)
            began = time.perf_counter()
            kept = function()
            _wait(device)
            seconds[name].append(time.perf_counter() - began)
            del kept
    return seconds


def _wait(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
