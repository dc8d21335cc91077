"""A bar that counts the sequences of a sweep."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

import streamlit as st

from mudd_interp.analysis import Progress
from mudd_interp.pace import Pace


@contextmanager
def bar(total: Callable[[], int], what: str = "Sweeping the text") -> Generator[Progress]:
    """Yield what is to be called after each batch; the bar is gone at the end.

    Each call is a place where Streamlit ends the script, if something was clicked: by an exception
    that leaves the sweep between two batches.

    Args:
        total: How many sequences there will be, 0 if that is not known; asked when it is needed.
        what: What is being done.
    """
    place, pace, known = st.empty(), Pace(), None

    def report(sequences: int, tokens: int) -> None:
        nonlocal known
        known = total() if known is None else known
        share = min(1.0, sequences / known) if known else 0.0
        place.progress(share, f"{what}: {line(sequences, known, tokens, pace)}")

    try:
        yield report
    finally:
        place.empty()


def line(sequences: int, total: int, tokens: int, pace: Pace) -> str:
    """How far it is, how fast it goes, and how long it will take."""
    seen = f"{sequences:,} of {total:,}" if total else f"{sequences:,}"
    left = f", {pace.left(sequences, total)} left" if total else ""
    return f"{seen} sequences, {tokens:,} tokens, {pace.per_second(tokens):,.0f} tokens/s{left}"
