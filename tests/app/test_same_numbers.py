"""One view of each page: the link, the Python lines, the command line and the CSV agree."""

import shlex
import sys
from pathlib import Path

import pytest

import state
from mudd_interp import cli
from mudd_interp.catalog import draw_kind, find, python_code, shell_command
from mudd_interp.figures import csv_bytes
from mudd_interp.request import Request
from mudd_interp.study import Study

pytestmark = pytest.mark.slow

SMALL = {"sequences": 1, "context": 32, "prompt": "for i in range(3):\n    print(i)\n"}
VIEWS = {
    "token_losses": {"mode": "difference"},
    "stream_norms": {"scope": "prompt", "mode": "side_by_side", "of": "baseline"},
    "token_weights": {"position": 4, "statistic": "dynamic", "raw": True},
    "head_activity_by_head": {"sinks": (0, 14), "sink_positions": 3},
    "loss_comparison": {},
    "logit_attribution": {"answer": ")", "position": 5},
    "edge_patch": {"corrupted": "for j in range(3):\n    print(i)\n", "answer": ")"},
    "state_patch": {"corrupted": "for j in range(3):\n    print(i)\n", "against": ")"},
    "head_composition": {"layer": 7, "head": 2},
    "edit_effects": {"edits": "cut v 7<-2; cut head 7.2"},
}


@pytest.mark.parametrize("name", VIEWS)
def test_link_python_command_and_csv_give_the_same_numbers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    view = state.default_view() | SMALL | VIEWS[name]
    restored = state.decode(state.encode(view)).view
    kind, request = find(name), Request.of_values(restored)
    shown = csv_bytes(draw_kind(kind, Study(request)))

    lines = python_code(kind, request).replace("drawn.figure.show()", "")
    found: dict[str, object] = {}
    exec(lines, found)
    assert csv_bytes(found["drawn"]) == shown  # pyright: ignore[reportArgumentType]

    words = shlex.split(shell_command(kind, request))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert (tmp_path / "figures" / f"{name}.csv").read_bytes() == shown
