"""The notebooks run; both halves of a pair say the same, and what is committed was executed."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jupytext
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "analyses").glob("0*.ipynb"))


def test_there_are_six():
    assert [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_its_script_executed_with_pictures(path: Path):
    notebook: Any = jupytext.read(path)
    script: Any = jupytext.read(path.with_suffix(".py"))
    cells = [(cell.cell_type, cell.source) for cell in notebook.cells]
    assert cells == [(cell.cell_type, cell.source) for cell in script.cells]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    # Warnings name the machine that they occurred on.
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path):
    program = path.parent / "execute.py"
    command = [sys.executable, program, "--out", tmp_path, path.with_suffix(".py")]
    # One thread, like the tests beside it: two processes that each take every core slow each other.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    executed: Any = jupytext.read(tmp_path / path.name)
    assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code")
