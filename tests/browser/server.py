"""The app in a process of its own, which can be asked what state it is in.

``python -m tests.browser.server REPORT [OPTION]...`` serves the app and writes, at each
SIGUSR1, what :func:`report` returns to the file REPORT.
"""

import gc
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mudd_interp.files import write_text

ROOT = Path(__file__).parents[2]
START_LIMIT = 120  # seconds


@dataclass(frozen=True)
class Server:
    """A running app.

    Attributes:
        url: Its address.
        process: Its process.
        report: The file into which it writes.
        log: The file of its output.
    """

    url: str
    process: "subprocess.Popen[bytes]"
    report: Path
    log: Path

    @property
    def port(self) -> int:
        """Its port on 127.0.0.1."""
        return int(self.url.rsplit(":", 1)[1])

    def models(self) -> dict[str, Any]:
        """What the models of the process are now: name, sha256 of the weights, hooks left."""
        return self.state()["models"]

    def state(self) -> dict[str, Any]:
        """What :func:`report` says about the process now."""
        self.report.unlink(missing_ok=True)
        self.process.send_signal(signal.SIGUSR1)
        for _ in range(10 * START_LIMIT):
            if self.report.exists():
                return json.loads(self.report.read_text())
            time.sleep(0.1)
        raise AssertionError("the app did not report on itself")


@contextmanager
def serve(
    folder: Path,
    options: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
) -> Generator[Server]:
    """Serve the app on a port of the system's choice, with its log in a folder.

    Args:
        folder: For the log, the report and the cache.
        options: Of ``mudd-interp app``.
        variables: Of its environment.
        cwd: Its working folder.
    """
    report, log = folder / "models.json", folder / "log.txt"
    command = [sys.executable, "-m", "tests.browser.server", str(report), *options]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    environment |= {"STREAMLIT_SERVER_PORT": "0"}  # any that is free
    environment |= {"MUDD_INTERP_CACHE": str(folder / "cache"), **(variables or {})}
    if "PYTEST_XDIST_WORKER" in os.environ:
        environment["OMP_NUM_THREADS"] = "1"  # there is a server for each worker
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=cwd, stdout=out, stderr=out, env=environment)
        try:
            yield Server(_address(process, log), process, report, log)
        finally:
            process.terminate()
            process.wait(START_LIMIT)


def _address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """The address of the app, once it answers there."""
    until = time.monotonic() + START_LIMIT
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()
        if said := re.search(r"the dashboard is at \S+:(\d+) ", log.read_text()):
            url = f"http://127.0.0.1:{said[1]}"
            urllib.request.urlopen(f"{url}/_stcore/health", timeout=START_LIMIT)
            return url
        time.sleep(0.1)
    raise AssertionError(f"the app did not start: {log.read_text()}")


def models() -> dict[str, Any]:
    """Every model that this process holds: sha256 over its parameters, and its hooks."""
    from mudd_interp.model import HookedMUDDTransformer

    found: dict[str, Any] = {}
    for each in gc.get_objects():
        if type(each) is HookedMUDDTransformer:
            digest = hashlib.sha256()
            for name, parameter in each.named_parameters():
                digest.update(name.encode() + parameter.detach().cpu().numpy().tobytes())
            hooks = sum(len(p.fwd_hooks) + len(p.bwd_hooks) for p in each.hook_dict.values())
            found[each.info.name] = {"digest": digest.hexdigest(), "hooks": hooks}
    return found


REACHED = list[str]()
"""Where this process tried to connect to, other than to itself."""


def _audit(event: str, values: tuple[Any, ...]) -> None:
    place = {"socket.connect": 1, "socket.getaddrinfo": 0}.get(event)
    if place is None:
        return
    host = values[place][0] if event == "socket.connect" else values[place]
    if str(host) not in ("127.0.0.1", "::1", "localhost", "0.0.0.0"):
        REACHED.append(str(host))


def report() -> dict[str, Any]:
    """What the process holds and does.

    The models, Streamlit's options, whom it tried to reach, the sizes of uploads in memory, and
    how many pages are being computed.
    """
    from streamlit import runtime
    from streamlit.config import get_config_options

    options = {name: option.value for name, option in get_config_options().items()}
    manager: Any = runtime.get_instance().uploaded_file_mgr
    uploads = [len(file.data) for files in manager.file_storage.values() for file in files.values()]
    return {
        "models": models(),
        "options": options,
        "reached": REACHED,
        "uploads": uploads,
        "computing": sum(each.name.startswith("ScriptRunner.") for each in threading.enumerate()),
    }


def main() -> None:
    """Serve until the process is ended."""
    file, options = Path(sys.argv[1]), sys.argv[2:]
    sys.addaudithook(_audit)

    def write() -> None:
        write_text(file, json.dumps(report(), default=repr))

    signal.signal(signal.SIGUSR1, lambda *_: threading.Thread(target=write).start())
    sys.argv = ["mudd-interp", "app", "--headless", *options]
    from mudd_interp.cli import main as run

    run()


if __name__ == "__main__":
    main()
