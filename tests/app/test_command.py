"""``mudd-interp app`` starts the app of this checkout, for this machine alone unless told else."""

import os
import sys
from pathlib import Path

import pytest

from mudd_interp import cli


def started(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Streamlit is called with."""
    called: list[list[str]] = []
    monkeypatch.setattr("streamlit.web.cli.main", lambda: called.append(list(sys.argv)))
    monkeypatch.setattr(sys, "argv", ["mudd-interp", "app", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    return called[0]


def test_it_listens_on_this_machine_only_and_reports_nothing(monkeypatch: pytest.MonkeyPatch):
    argv = started(monkeypatch=monkeypatch)
    assert argv[:2] == ["streamlit", "run"]
    # Of the checkout, or the wheel's copy where the package is installed.
    checkout = Path(__file__).parents[2] / "app" / "main.py"
    assert Path(argv[2]).read_bytes() == checkout.read_bytes()
    assert {"--server.address=127.0.0.1", "--browser.gatherUsageStats=false"} <= set(argv)


def test_its_options_and_streamlits_variables_are_honoured(monkeypatch: pytest.MonkeyPatch):
    options = [
        "--host",
        "::1",
        "--port",
        "9",
        "--headless",
        "--model",
        "pythia-14m",
        "--baseline",
        "none",
    ]
    argv = started(*options, monkeypatch=monkeypatch)
    assert {"--server.address=::1", "--server.port=9", "--server.headless=true"} <= set(argv)
    assert argv[argv.index("--") + 1 :] == ["--model=pythia-14m", "--baseline=none"]
    monkeypatch.setenv("STREAMLIT_SERVER_ADDRESS", "0.0.0.0")
    assert "--server.address=0.0.0.0" in started(monkeypatch=monkeypatch)


def test_the_folder_of_kept_runs_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MUDD_INTERP_CACHE", "elsewhere")
    started("--cache", str(tmp_path), monkeypatch=monkeypatch)
    assert os.environ["MUDD_INTERP_CACHE"] == str(tmp_path)
