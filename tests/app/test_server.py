"""Who may talk to the server, what foreign settings do to it, and how it ends."""

import signal
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from streamlit.config_option import ConfigOption
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from mudd_interp.dashboard.options import PINNED
from tests.app.pages import PATIENCE, handshake, page, status
from tests.browser.server import Server, serve
from tests.unit.command import run

pytestmark = pytest.mark.slow

EVIL = "evil.example"


def toml(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + "}"
    return str(value).lower() if isinstance(value, bool | int | float) else f'"{value}"'


def opposite(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 7
    if isinstance(value, list):
        return [EVIL]
    return {"X": "email"} if isinstance(value, dict) else EVIL


HOSTILE: dict[str, Any] = {
    **{name: opposite(value) for name, (value, _) in PINNED.items() if value is not None},
    "server.address": "0.0.0.0",
    "server.port": 1,
    "server.allowedHosts": ["*"],
    "server.cookieSecret": "known",
    "server.baseUrlPath": "elsewhere",
    "server.sslCertFile": "/evil.pem",
    "server.sslKeyFile": "/evil.key",
    "browser.serverPort": 1,
    "client.showErrorLinks": True,
    "theme.base": f"http://{EVIL}/theme.toml",
    "theme.font": f"Evil:http://{EVIL}/font.css",
    "theme.primaryColor": "#123456",
}


def settings(folder: Path, values: Mapping[str, Any]) -> None:
    """Write the settings of a folder."""
    (folder / ".streamlit").mkdir(parents=True)
    tables: dict[str, list[str]] = {}
    for name, value in values.items():
        section, _, option = name.rpartition(".")
        tables.setdefault(section, []).append(f"{option} = {toml(value)}")
    lines = [line for name, rows in tables.items() for line in (f"[{name}]", *rows)]
    (folder / ".streamlit" / "config.toml").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    """The dashboard, started in a folder whose settings mean harm, as do those of the user."""
    folder = tmp_path_factory.mktemp("hostile")
    for name in ("here", "home"):
        settings(folder / name, HOSTILE)
    (folder / "here" / ".streamlit" / "secrets.toml").write_text("[auth]\nclient_id = 'x'\n")
    variables = {
        f"STREAMLIT_{_screaming(name)}": str(value)
        for name, value in HOSTILE.items()
        if name in PINNED or name in ("server.allowedHosts", "server.cookieSecret")
    }
    variables["HOME"] = str(folder / "home")
    with serve(folder, variables=variables, cwd=folder / "here") as server:
        yield server


def _screaming(name: str) -> str:
    return ConfigOption(name).env_var.removeprefix("STREAMLIT_")


def test_every_option_has_its_value_whatever_files_and_variables_say(hostile: Server):
    options = hostile.state()["options"]
    assert {name: options[name] for name in PINNED} == {
        name: value for name, (value, _) in PINNED.items()
    }
    assert options["server.address"] == "127.0.0.1"
    assert options["server.port"] == options["browser.serverPort"] == hostile.port
    assert options["server.allowedHosts"] == ["127.0.0.1", "::1", "localhost"]
    assert options["server.cookieSecret"] != "known"
    assert [options[f"server.{name}"] for name in ("baseUrlPath", "sslCertFile")] == ["", None]
    assert [options["theme.base"], options["theme.font"]] == [None, None]
    assert options["theme.primaryColor"] == "#123456"  # harmless settings are the user's choice


def test_what_is_not_taken_is_said_with_the_reason(hostile: Server):
    said = hostile.log.read_text()
    for where in ("here", "home"):
        assert f"server.enableCORS of {hostile.log.parent / where}" in said
    assert "STREAMLIT_SERVER_ENABLE_CORS is not taken, it stays True: otherwise any page" in said
    assert "theme.font of" in said
    assert "server.address of" in said


def names(port: int) -> list[str]:
    return [f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}", "localhost", "LOCALHOST:9"]


def test_its_own_names_are_answered(hostile: Server):
    for host in names(hostile.port):
        assert status(hostile.port, Host=host) == 200
        assert handshake(hostile.port, Host=host, Origin=f"http://{host}") == 101
    assert handshake(hostile.port, Host=f"localhost:{hostile.port}") == 101


@pytest.mark.parametrize(
    "host",
    [
        EVIL,
        "evil.example:{port}",
        "localhost.evil.example:{port}",
        "127.0.0.1.evil.example",
        "127.0.0.2:{port}",
        "6.6.6.6:{port}",
        "[::2]:{port}",
        "localhost:{port}@evil.example",
        "evil.example/localhost",
        "localhost:1:2",
        "0.0.0.0:{port}",
        "localhost,evil.example",
        "",
    ],
)
def test_a_name_that_somebody_else_may_own_is_refused_everywhere(hostile: Server, host: str):
    port = hostile.port
    host = host.format(port=port)
    for path in ("/", "/similarity", "/_stcore/health", "/_stcore/host-config", "/media/x"):
        assert status(port, path, Host=host) in (400, 421)
    assert status(port, "/_stcore/upload_file/a/b", "PUT", Host=host) in (400, 421)
    assert handshake(port, Host=host, Origin=f"http://{host}") in (400, 403)
    assert handshake(port, Host=host) in (400, 403)


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "http://evil.example:{port}",
        "http://localhost",
        "http://localhost:1",
        "http://127.0.0.1:{port}",
        "http://localhost:{port}.evil.example",
        "http://evil.example@localhost:1",
        "file://",
        "null",
        "http://[",
        "",
    ],
)
def test_a_page_that_is_not_its_own_is_refused_everywhere(hostile: Server, origin: str):
    port = hostile.port
    headers = {"Host": f"localhost:{port}", "Origin": origin.format(port=port)}
    for path in ("/", "/_stcore/health", "/_stcore/host-config"):
        assert status(port, path, **headers) == 403
    assert status(port, "/_stcore/upload_file/a/b", "PUT", **headers) == 403
    assert handshake(port, **headers) == 403


def test_a_page_of_another_site_may_lead_here_and_nothing_else(hostile: Server):
    port, site = hostile.port, {"Host": f"localhost:{hostile.port}", "Sec_Fetch_Site": "cross-site"}
    assert status(port, "/", **site, Sec_Fetch_Mode="navigate") == 200
    for mode in ("no-cors", "cors", "websocket"):
        assert status(port, "/", **site, Sec_Fetch_Mode=mode) == 403


def test_interfaces_that_are_not_used_are_not_there(hostile: Server):
    for path in (
        "/_stcore/metrics",
        "/_stcore//metrics",
        "/_stcore/metrics/",
        "/_stcore/%6detrics",
        "/_stcore/agent/openapi.json",
        "/_stcore/agent/interact",
        "/_stcore/script-health-check",
        "/component/x/index.html",
        "/auth/login",
        "/oauth2callback",
    ):
        assert status(hostile.port, path, Host="localhost") == 404, path


def test_no_page_has_it_in_a_frame_and_it_loads_nothing_from_elsewhere(hostile: Server):
    headers = httpx.get(hostile.url).headers
    policy = headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert "default-src 'self'" in policy
    assert "https:" not in policy
    assert headers["x-frame-options"] == "DENY"
    assert httpx.get(f"{hostile.url}/_stcore/host-config").json()["allowedOrigins"] == []


def test_nobody_outside_is_asked_for_anything(hostile: Server):
    for host in (EVIL, "localhost"):
        handshake(hostile.port, Host=host, Origin=f"http://{EVIL}")
    with page(hostile.port) as opened:
        opened.open()
        opened.until("script_finished")
    assert hostile.state()["reached"] == []


def put(server: Server, client: httpx.Client, session: str, file: str, size: int) -> int:
    token = client.cookies.get("_streamlit_xsrf") or ""
    return client.put(
        f"{server.url}/_stcore/upload_file/{session}/{file}",
        files={"file": ("n.txt", b"x" * size)},
        headers={"X-Xsrftoken": token},
        timeout=PATIENCE,
    ).status_code


def test_uploads_are_bounded_and_freed_when_their_page_is_closed(hostile: Server):
    with httpx.Client() as client:
        client.get(f"{hostile.url}/_stcore/health")
        with page(hostile.port) as opened:
            opened.open("about")
            opened.until("script_finished")
            before = psutil.Process(hostile.process.pid).memory_info().rss
            assert put(hostile, client, opened.session, "large", 190_000_000) == 413
            assert psutil.Process(hostile.process.pid).memory_info().rss < before + 50e6
            assert put(hostile, client, opened.session, "0", 5 * 2**20 + 1) == 413
            size = 5 * 2**20 - 999
            answers = [put(hostile, client, opened.session, str(i), size) for i in range(6)]
            assert answers == [204] * 3 + [429] * 3
            assert put(hostile, client, opened.session, "0", 7) == 204  # in the place of the first
            assert sorted(hostile.state()["uploads"]) == [7, size, size]
            client.cookies.clear()
            assert put(hostile, client, opened.session, "1", 7) == 403
            assert put(hostile, client, "no-such-session", "1", 7) in (400, 403)
    assert wait_for(lambda: hostile.state()["uploads"] == [])


def test_a_message_that_is_too_large_ends_the_connection_before_it_is_read(hostile: Server):
    with page(hostile.port) as opened, pytest.raises(ConnectionClosed) as closed:
        opened.send(b"x" * (4 * 2**20 + 1))
    # The connection may be gone before the client has read why.
    assert closed.value.rcvd is None or closed.value.rcvd.code == CloseCode.MESSAGE_TOO_BIG


def test_pages_that_are_open_are_counted(hostile: Server):
    with ExitStack() as stack:
        for _ in range(64):
            stack.enter_context(page(hostile.port))
        assert handshake(hostile.port, Host="localhost") == 403
    assert wait_for(lambda: handshake(hostile.port, Host="localhost") == 101)


def wait_for(condition: Any) -> bool:
    until = time.monotonic() + PATIENCE
    while not (done := condition()) and time.monotonic() < until:
        time.sleep(0.2)
    return done


LONG = {"n": "128", "bs": "1"}
"""A sweep of a minute or so on a slow machine."""


def test_what_a_page_computes_ends_when_it_is_closed(hostile: Server):
    for _ in range(2):  # had the first one finished, nothing would be left for the second
        with page(hostile.port) as opened:
            opened.open("heads", **LONG)
            opened.until_text("tokens/s")
            assert hostile.state()["computing"] == 1
        assert wait_for(lambda: hostile.state()["computing"] == 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("when", ["idle", "beginning", "computing"])
def test_a_signal_ends_it_in_order(tmp_path: Path, number: signal.Signals, when: str):
    with serve(tmp_path) as server:
        if when == "idle":
            server.process.send_signal(number)
        else:
            with page(server.port) as opened:
                opened.open("heads", **LONG)
                if when == "beginning":  # torch and the models are being loaded
                    opened.until("new_session")
                else:
                    opened.until_text("tokens/s")
                server.process.send_signal(number)
                # It closes the page; here a browser would do its part.
                threading.Timer(0.1, opened.close).start()
                assert server.process.wait(PATIENCE) == 0
        assert server.process.wait(PATIENCE) == 0
    said = server.log.read_text()
    assert "terminate called" not in said
    assert "Traceback" not in said


def test_with_another_host_it_says_what_that_opens_and_asks_nobody_outside(tmp_path: Path):
    with serve(tmp_path, ["--host", "0.0.0.0", "--allow-host", "dash.example"]) as server:
        said = server.log.read_text()
        assert "anybody who reaches this address may use the dashboard" in said
        assert handshake(server.port, Host="dash.example", Origin="https://dash.example") == 101
        assert handshake(server.port, Host=EVIL, Origin=f"http://{EVIL}") == 403
        assert handshake(server.port, Host="6.6.6.6", Origin="http://6.6.6.6") == 403
        foreign = {"Host": "dash.example", "Origin": f"http://{EVIL}"}
        assert handshake(server.port, **foreign) == 403
        with page(server.port) as opened:
            opened.open(t="/etc/hostname")
            opened.until_text("Others reach this dashboard.")
        state = server.state()
        assert state["reached"] == []
        assert state["options"]["server.address"] == "0.0.0.0"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "192.0.2.7"], "cannot listen on 192.0.2.7, port 8501"),
        (["--host", "http://x"], "expected a name or an address"),
        (["--allow-host", "*"], "expected a name or an address"),
        (["--allow-host", "a.example:80"], "expected a name or an address"),
    ],
)
def test_a_place_that_is_none_is_one_message(
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    assert run("app", "--headless", *options, monkeypatch=monkeypatch) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
