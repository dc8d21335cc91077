"""What a user waits for besides the numbers: the import, the help, the default figures."""

import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from mudd_interp.bench.child import in_child
from mudd_interp.bench.measure import Row, compared, interleaved
from mudd_interp.bench.options import Options

IMPORT_SECONDS, HELP_SECONDS = 0.15, 0.5


def startup(options: Options) -> list[Row]:
    """Importing the package, and asking the command for help."""
    python = [sys.executable, "-c"]
    calls = {
        "empty": partial(_run, [*python, "pass"]),
        "import": partial(_run, [*python, "import mudd_interp"]),
        "help": partial(_run, [sys.executable, "-m", "mudd_interp", "--help"]),
    }
    seconds = interleaved(options.repeats, options.device, calls)
    above = [a - b for a, b in zip(seconds["import"], seconds["empty"], strict=True)]
    return [
        _within("import mudd_interp, above an empty interpreter", above, IMPORT_SECONDS),
        _within("mudd-interp --help", seconds["help"], HELP_SECONDS),
    ]


def _within(what: str, seconds: list[float], limit: float) -> Row:
    return compared(what, seconds, "what it may take", [limit] * len(seconds), 1.0)


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


def figures(options: Options) -> list[Row]:
    """The steps of ``mudd-interp figures`` with its defaults, each beside the whole, warm."""
    given: dict[str, Any] = {"device": str(options.device), "sequences": options.size.figures}
    runs: list[dict[str, float]] = []
    for _ in range(1 + min(3, options.repeats)):
        with tempfile.TemporaryDirectory() as folder:
            out, started = str(Path(folder) / "figures"), time.monotonic()
            runs.append(in_child("figures", out=out, started=started, **given))
    warm = runs[1:]
    whole = [sum(run.values()) for run in warm]
    where = f"figures, bundled pair on {options.device}"
    return [
        compared(f"{where}: {step}", [run[step] for run in warm], "the whole", whole)
        for step in warm[0]
    ]
