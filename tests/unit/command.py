"""The command line, run in the test's own process, and a disk that is full."""

import resource
import sys
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from mudd_interp import cli


def run(*arguments: object, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of a command."""
    monkeypatch.setattr(sys, "argv", ["mudd-interp", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@contextmanager
def full_beyond(size: int) -> Generator[None]:
    """No file can grow beyond this many bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
