"""Start the dashboard, and end it: no thread is left in the middle of a computation."""

import os
import socket
import sys
import threading
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import typer

from mudd_interp.dashboard.options import (
    LARGEST_MESSAGE,
    WILDCARDS,
    Address,
    address_of,
    not_taken,
    options_of,
)

# What is slow to import (Streamlit, and the server under it) is imported where it is used.

FIRST_PORT, PORTS = 8501, 100
"""The first port, and how many are tried from there if none was chosen."""

MOST_CONNECTIONS = 512

GRACE = 3
"""Seconds for connections to end."""

PATIENCE = 10.0
"""Seconds for computations to end; they do so between two steps."""

_OPEN = (
    "anybody who reaches this address may use the dashboard, there is no password. They compute "
    "on this machine with the models that it was started with, those of the hub, and texts that "
    "they upload; no other file is read for them."
)


def serve(
    script: Path,
    arguments: Sequence[str],
    *,
    host: str | None = None,
    port: int | None = None,
    headless: bool = False,
    names: Sequence[str] = (),
) -> None:
    """Serve a Streamlit script until the process is told to stop.

    Args:
        script: The script.
        arguments: What it finds in ``sys.argv``.
        host: The address to listen on; ``None`` for this machine alone.
        port: ``None`` for 8501, or the next one that is free.
        headless: Whether to open no browser.
        names: Names besides this machine's own that the server answers to, for instance a proxy's.

    Raises:
        ValueError: If the host or the port cannot be had.
    """
    import streamlit as st
    import uvicorn
    from starlette.middleware import Middleware
    from streamlit.config import get_config_files

    from mudd_interp.dashboard.guard import Guard

    files = [Path(file) for file in get_config_files("config.toml")]
    address = address_of(host, port, headless, names, files)
    listener = _bind(address)
    address = replace(address, port=listener.getsockname()[1])
    sys.path.insert(0, str(script.parent))
    sys.argv = [str(script), *arguments]
    base = os.environ.get("STREAMLIT_SERVER_BASE_URL_PATH", "").strip("/")
    app = st.App(
        script,
        middleware=[Middleware(Guard, hosts=address.hosts, base=base)],
        lifespan=lambda _: _running(address, base),
    )
    _set_options(address, files)
    config = uvicorn.Config(
        app,
        lifespan="on",
        ssl_certfile=st.get_option("server.sslCertFile"),
        ssl_keyfile=st.get_option("server.sslKeyFile"),
        ws="websockets-sansio",
        ws_max_size=LARGEST_MESSAGE * 2**20,
        ws_per_message_deflate=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=GRACE,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
    )
    server = uvicorn.Server(config)
    with suppress(KeyboardInterrupt):  # through which the server passes on the signal that ended it
        server.run(sockets=[listener])
    if not server.started:
        raise ChildProcessError("the dashboard could not start: the reason is above.")
    _end(0.0 if server.force_exit else PATIENCE)


def _set_options(address: Address, files: Sequence[Path]) -> None:
    """Fix Streamlit's options, and say which of the user's settings are not taken."""
    from streamlit.config import get_config_options

    for sentence in not_taken(files):
        typer.echo(f"mudd-interp: {sentence}", err=True)
    get_config_options(force_reparse=True, options_from_flags=options_of(address, files))


@asynccontextmanager
async def _running(address: Address, base: str) -> AsyncGenerator[None]:
    """What is done before and after the server runs."""
    import streamlit as st
    from streamlit import runtime
    from streamlit.cli_util import open_browser

    scheme = "https" if st.get_option("server.sslCertFile") else "http"
    shown = "localhost" if address.host in WILDCARDS else address.host
    shown = f"[{shown}]" if ":" in shown else shown
    url = f"{scheme}://{shown}:{address.port}" + (f"/{base}" if base else "")
    typer.echo(f"mudd-interp: the dashboard is at {url} (Ctrl-C ends it).", err=True)
    if address.shared:
        typer.echo(f"mudd-interp: {_OPEN}", err=True)
    if not address.headless:
        open_browser(url)
    yield
    # All sessions are told to stop before the loop that they run on does.
    instance = runtime.get_instance()
    instance.stop()
    await instance.stopped


def _end(patience: float) -> None:
    """Wait for the threads of pages; what does not stop is left, and ends with the process."""
    until = time.monotonic() + patience
    with suppress(KeyboardInterrupt):
        for thread in _pages():
            thread.join(max(0.0, until - time.monotonic()))
    if _pages():
        # An ordinary exit would abort while they still run. Files are written
        # whole or not at all, whenever a process ends.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _pages() -> list[threading.Thread]:
    """The threads in which pages are computed."""
    return [each for each in threading.enumerate() if each.name.startswith("ScriptRunner.")]


def _bind(address: Address) -> socket.socket:
    """A listening socket, on the port that was chosen or on the first one that is free.

    Raises:
        ValueError: If there is none.
    """
    host, chosen = address.host, address.port is not None
    ports = [address.port] if chosen else range(FIRST_PORT, FIRST_PORT + PORTS)
    for port in ports:
        try:
            return _listen(host, port)
        except socket.gaierror as error:
            raise ValueError(f"--host {host}: there is no such address ({error}).") from error
        except OSError as error:
            if chosen or not _is_taken(error):
                raise ValueError(
                    f"the dashboard cannot listen on {host}, port {port} ({error.strerror}): "
                    "give another --port or --host."
                ) from error
    raise ValueError(f"ports {ports[0]} to {ports[-1]} are all taken: give a --port.")


def _listen(host: str, port: int | None) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, address = found[0][0], found[0][4]
    both = host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server(address[:2], family=family, dualstack_ipv6=both)


def _is_taken(error: OSError) -> bool:
    return isinstance(error, PermissionError) or "in use" in (error.strerror or "")
