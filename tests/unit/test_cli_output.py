"""What the command says gets through any encoding and any pipe, and where it writes is resolved."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mudd_interp.files import exclusive
from tests.unit.command import run

MUDD_INTERP = [sys.executable, "-m", "mudd_interp"]
ONE = ["figures", "--only", "token_losses", "--prompt", "x = 1", "--baseline", "none"]


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], "Commands"),
        (["figures", "--help"], "--overwrite"),
        (["figures", "--list"], "layer_similarity"),
        (["inspect", "tfm-tiny"], "dense weights"),
        (["inspect", "tfm-tiny", "--json"], '"tied"'),
    ],
)
def test_output_that_is_not_utf8(
    arguments: list[str], words: str, errors: str, monkeypatch: pytest.MonkeyPatch
):
    """The second is what Python takes in the C locale."""
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding="ascii", errors=errors, write_through=True)
    with monkeypatch.context() as context:
        context.setattr(sys, "stdout", stream)
        assert run(*arguments, monkeypatch=context) == 0
    assert words in written.getvalue().decode("ascii")


@pytest.mark.slow
def test_figures_and_errors_where_nothing_is_utf8(tmp_path: Path):
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    out = os.fsencode(tmp_path) + "/café".encode()
    for arguments, code in ((ONE, 0), ([*ONE, "--layer", "x"], 2), ([*ONE, "--of", "é"], 2)):
        command = [*MUDD_INTERP, *arguments, "--out", out, "--overwrite"]
        found = subprocess.run(command, env=ascii_only, capture_output=True, check=False)
        assert found.returncode == code, found.stderr
        assert b"Traceback" not in found.stderr
        assert b"codec" not in found.stderr
    assert (Path(os.fsdecode(out)) / "token_losses.csv").is_file()


@pytest.mark.slow
def test_nobody_reads_to_the_end():
    """As in ``mudd-interp figures --list | head -1``, with a pipe that is closed from the start."""
    reads, writes = os.pipe()
    os.close(reads)
    for arguments in (["figures", "--list"], ["--help"]):
        command = [*MUDD_INTERP, *arguments]
        found = subprocess.run(command, stdout=writes, stderr=subprocess.PIPE, check=False)
        assert (found.returncode, found.stderr) == (1, b"")
    os.close(writes)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_output_that_cannot_be_written_is_one_message():
    with Path("/dev/full").open("wb") as full:
        found = subprocess.run(
            [*MUDD_INTERP, "figures", "--list"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert found.returncode == 2
    assert b"No space left" in found.stderr
    assert b"Traceback" not in found.stderr


def test_figures_into_the_working_folder_and_through_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "link").symlink_to("new")
    monkeypatch.chdir(folder)
    for out, place in ((".", folder), ("../link", tmp_path / "new"), ("../folder/", folder)):
        assert run(*ONE, "--out", out, "--overwrite", monkeypatch=monkeypatch) == 0
        names = {path.name for path in place.iterdir()}
        assert names == {"manifest.json", "token_losses.csv", "token_losses.html"}
    assert (tmp_path / "link").is_symlink()
    assert sorted(Path().iterdir())[0].exists()  # one still stands in the folder itself


def test_a_second_command_on_one_folder_is_refused_before_it_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("mudd_interp.study.Study", None)  # whoever computes needs one
    with exclusive(tmp_path / "out"):
        assert run(*ONE, "--out", tmp_path / "out", monkeypatch=monkeypatch) == 2
    message = capsys.readouterr().err
    assert f"another process is at work on {tmp_path / 'out'}" in message
    assert list(tmp_path.iterdir()) == []
