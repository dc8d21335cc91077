"""What a training run reports while it runs: a bar on a terminal, plain lines elsewhere."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mudd_interp.pace import Pace


class RunProgress:
    """Progress of one run, as a context manager.

    Args:
        name: The run's name.
        steps: The run's total number of steps.
        done: The steps that a resumed run has already taken.
        unit: In which speed is counted: ``tokens`` or ``images``.
    """

    def __init__(self, name: str, steps: int, done: int, unit: str):
        self._name, self._steps, self._unit, self._pace = name, steps, unit, Pace(done)
        self._console = Console()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(),
            console=self._console,
            speed_estimate_period=300,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(name, total=steps, completed=done, status="")

    def __enter__(self) -> "RunProgress":
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the bar as it is."""
        self._bar.stop()

    def update(self, step: int, loss: float, speed: float, validation: float | None) -> None:
        """Show the state after a step; losses in nats, speed in units per second."""
        status = f"loss {loss:.3f} · {speed:,.0f} {self._unit}/s"
        if validation is not None:
            status += f" · validation {validation:.4f}"
        self._bar.update(self._task, completed=step, status=status)
        if not self._console.is_terminal:
            left = self._pace.left(step, self._steps)
            line = f"{self._name} {step}/{self._steps} · {status} · {left} left"
            print(line, flush=True)  # noqa: T201
