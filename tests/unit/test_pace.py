"""Speed and time left, by a clock that the test turns."""

import pytest

from mudd_interp.pace import Pace


def test_what_is_left_takes_as_long_as_what_is_done_did(monkeypatch: pytest.MonkeyPatch):
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    pace, resumed = Pace(), Pace(done=30)
    now = 3900.0
    assert pace.per_second(7600) == 2
    assert pace.left(40, 80) == "1:03:20"
    assert resumed.left(40, 80) == "4:13:20"  # ten done, forty to do
    assert pace.left(80, 80) == "0:00:00"
