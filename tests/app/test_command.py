"""``mudd-interp app`` starts this checkout's app, for this machine alone unless told otherwise."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mudd_interp.dashboard.options import (
    BY_VARIABLE,
    FREE,
    PINNED,
    SET_AT_START,
    Address,
    address_of,
    declared,
    options_of,
    set_in,
)
from tests.unit.command import run

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "app" / ".streamlit" / "config.toml"


def started(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[str], Any]:
    """What is served, with which arguments, and where."""
    called: list[tuple[Any, ...]] = []
    monkeypatch.setattr(
        "mudd_interp.dashboard.serve", lambda *given, **where: called.append((*given, where))
    )
    assert run("app", *arguments, monkeypatch=monkeypatch) == 0
    return called[0]  # pyright: ignore[reportReturnType]


def test_it_serves_the_app_with_the_bundled_pair_on_this_machine_only(
    monkeypatch: pytest.MonkeyPatch,
):
    script, arguments, where = started(monkeypatch=monkeypatch)
    # Of the checkout, or the wheel's copy where the package is installed.
    checkout = ROOT / "app" / "main.py"
    assert script.read_bytes() == checkout.read_bytes()
    assert arguments == ["--model=mudd-tiny", "--baseline=tfm-tiny"]
    assert where == {"host": None, "port": None, "headless": False, "names": ()}
    assert address_of(None, None, True, (), ()) == Address(host="127.0.0.1", headless=True)


def test_its_options_are_honoured(monkeypatch: pytest.MonkeyPatch):
    options = ["--host", "::1", "--port", "9", "--headless", "--allow-host", "a.example"]
    models = ["--model", "pythia-14m", "--baseline", "none"]
    _, arguments, where = started(*options, *models, monkeypatch=monkeypatch)
    assert arguments == ["--model=pythia-14m", "--baseline=none"]
    assert where == {"host": "::1", "port": 9, "headless": True, "names": ["a.example"]}


def test_the_folder_of_kept_runs_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MUDD_INTERP_CACHE", "elsewhere")
    started("--cache", str(tmp_path), monkeypatch=monkeypatch)
    assert os.environ["MUDD_INTERP_CACHE"] == str(tmp_path)


def test_streamlits_harmless_settings_are_honoured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "config.toml"
    lines = ["[server]", "port = 7", "headless = true", 'address = "0.0.0.0"']
    file.write_text("\n".join([*lines, "[theme]", 'base = "dark"']))
    assert address_of(None, None, False, (), [file]) == Address(port=7, headless=True)
    assert options_of(Address(), [file])["theme.base"] == "dark"
    monkeypatch.setenv("STREAMLIT_SERVER_PORT", "8")
    monkeypatch.setenv("STREAMLIT_SERVER_ADDRESS", "0.0.0.0")
    monkeypatch.setenv("STREAMLIT_SERVER_HEADLESS", "false")
    assert address_of(None, None, False, (), [file]) == Address(port=8, host="0.0.0.0")
    assert address_of("::1", 9, True, (), [file]) == Address(port=9, host="::1", headless=True)
    monkeypatch.setenv("STREAMLIT_SERVER_PORT", "http")
    with pytest.raises(ValueError, match="a port from 0 to 65535, got 'http'"):
        address_of(None, None, False, (), ())


def test_it_is_shared_where_others_may_reach_it():
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        assert not Address(host=host).shared
        assert Address(host=host, names=("dash.example",)).shared
    for host in ("0.0.0.0", "::", "192.0.2.7", "dash.example", "localhost.evil.example"):
        assert Address(host=host).shared


def test_every_option_of_streamlit_is_in_the_table_or_the_users():
    """If this fails with a newer Streamlit, say in the table what its new options are for."""
    others = {*SET_AT_START, *BY_VARIABLE, *FREE}
    named = {name for name in declared() if not name.startswith("theme.")}
    assert named == PINNED.keys() | others
    assert not PINNED.keys() & others


def test_what_is_promised_names_every_option_with_its_value_and_the_reason():
    lines = (ROOT / "SECURITY.md").read_text(encoding="utf-8").splitlines()
    table = [line for line in lines if line.startswith("| `")]
    assert table == [
        f"| `{name}` | `{json.dumps(value)}` | {why} |" for name, (value, why) in PINNED.items()
    ]


def test_without_the_command_the_apps_own_settings_say_the_same():
    """For ``streamlit run``."""
    values = set_in(CONFIG)
    expected = {name: value for name, (value, _) in PINNED.items() if value is not None}
    assert {name: values.get(name) for name in expected} == expected
    assert values["server.address"] == "127.0.0.1"
    assert values["server.allowedHosts"] == options_of(Address())["server.allowedHosts"]
