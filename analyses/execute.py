"""Runs notebooks: the .py half of each pair, in a fresh kernel, written as .ipynb with its results.

python analyses/execute.py [--out FOLDER] [SCRIPT ...]
"""

import argparse
from pathlib import Path
from typing import Any

import jupytext
from nbclient import NotebookClient

from mudd_interp.files import replacing

HERE = Path(__file__).parent


def executed(script: Path) -> Any:
    """The notebook of a script with its results; the same text gives the same file.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell raises.
    """
    notebook: Any = jupytext.read(script)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02}"
    NotebookClient(
        notebook,
        timeout=None,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": HERE}},
    ).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            # Warnings name the machine that they occurred on.
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
    return notebook


def main() -> None:
    """Execute, and write each notebook once all of it ran."""
    parser = argparse.ArgumentParser(description="Run notebooks and keep their results.")
    parser.add_argument("scripts", nargs="*", type=Path, default=sorted(HERE.glob("0*.py")))
    parser.add_argument("--out", type=Path, default=HERE)
    given = parser.parse_args()
    for script in given.scripts:
        with replacing(given.out / script.with_suffix(".ipynb").name) as path:
            path.write_text(jupytext.writes(executed(script), "ipynb"), encoding="utf-8")


if __name__ == "__main__":
    main()
