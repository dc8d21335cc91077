"""Shared by all tests: the app's modules by their plain names, and which process runs a test."""

import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

from tests import checked

jaxtyping.jaxtyped = checked.jaxtyped

# As Streamlit runs them: the app's modules import their siblings by plain names.
sys.path.insert(0, str(Path(__file__).parents[1] / "app"))

# The same examples in every run, and no failure because the machine is slow.
settings.load_profile("ci")

# Several test processes on few cores.
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)


def group_of(nodeid: str) -> str:
    """What one process runs: a file; or all browser tests, which share a server."""
    file = nodeid.split("::")[0]
    return "tests/browser" if file.startswith("tests/browser/") else file


class Groups(LoadFileScheduling):
    """Each group whole to one process, in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups:
    """With ``-n``, fixtures of a file are then made once."""
    return Groups(config, log)


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that no process is left with one at the end."""
    from tests.parity.family import VARIANTS  # not before the checks above are in place

    for item in items:
        parameters = getattr(item, "callspec", None)
        if parameters and VARIANTS & {v for v in parameters.params.values() if isinstance(v, str)}:
            item.add_marker(pytest.mark.slow)
    slow = {group_of(item.nodeid) for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: group_of(item.nodeid) not in slow)


@pytest.fixture(autouse=True, scope="session")
def bundled_models_are_left_as_they_were() -> Generator[None]:
    """A model that a test alters would be another one in the tests after it."""
    yield
    from tests.bundled import require_unaltered  # not before the checks above are in place

    require_unaltered()
