"""How fast something long goes, and how long it will take. Standard library only."""

import time


class Pace:
    """The mean speed since it was made.

    Args:
        done: Units that were done before.
    """

    def __init__(self, done: int = 0):
        self._first, self._started = done, time.monotonic()

    def per_second(self, count: int) -> float:
        """Units per second since then."""
        return count / max(1e-9, time.monotonic() - self._started)

    def left(self, done: int, total: int) -> str:
        """The time that is left at that speed, as ``h:mm:ss``."""
        seconds = round(max(0, total - done) / self.per_second(max(1, done - self._first)))
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
