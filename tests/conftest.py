"""Shared by all tests: the app's modules by their plain names, and how tests go to processes."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from xdist.scheduler import LoadFileScheduling

# As Streamlit runs them: the app's modules import their siblings so.
sys.path.insert(0, str(Path(__file__).parents[1] / "app"))

# Several test processes on few cores.
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)


def group_of(nodeid: str) -> str:
    """What one process runs: a file, and all of the browser, which share a server."""
    file = nodeid.split("::")[0]
    return "tests/browser" if file.startswith("tests/browser/") else file


class Groups(LoadFileScheduling):
    """Each group whole to one process, in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups:
    """With ``-n``, fixtures of a file are then made once."""
    return Groups(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that no process is left with one when all else is done."""
    slow = {group_of(item.nodeid) for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: group_of(item.nodeid) not in slow)
