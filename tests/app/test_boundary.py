"""Whatever fails in what a page computes is a sentence on the page and a line in the log."""

import logging
from typing import Any

import pytest
from streamlit.runtime.scriptrunner_utils.exceptions import RerunException, StopException
from streamlit.runtime.scriptrunner_utils.script_requests import RerunData
from streamlit.testing.v1 import AppTest

import caches
from tests.app.test_pages import opened, settled, texts

pytestmark = pytest.mark.slow


class PanicException(BaseException):
    """Like the panic of a library in Rust: not an ``Exception``."""


FAILURES: list[tuple[type[BaseException], str]] = [
    (RecursionError, "too deep"),
    (MemoryError, ""),
    (KeyError, "a key"),
    (RuntimeError, "first line\nsecond line"),
    (PanicException, "index out of bounds"),
    (AssertionError, ""),
]


@pytest.fixture(params=FAILURES, ids=lambda each: each[0].__name__)
def error(request: pytest.FixtureRequest) -> BaseException:
    kind, words = request.param
    return kind(words)


FORESEEN = [ValueError("it is 3: give 4."), OSError(28, "No space left on device")]
SIGNALS = [StopException(), RerunException(RerunData()), KeyboardInterrupt(), SystemExit(1)]


def failing(error: BaseException) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def require_sentence(at: AppTest, beginning: str, error: BaseException) -> None:
    """The page says that something unexpected happened, and shows no more of it."""
    settled(at)
    said = texts(at.error).replace("\\", "").replace("*", "")
    assert f"{beginning} an unexpected {type(error).__name__}; the log of the dashboard" in said
    assert "Traceback" not in said
    assert "line" not in said.replace("baseline", "")
    assert ".py" not in said


def require_line(log: pytest.LogCaptureFixture, error: BaseException) -> None:
    records = [r for r in log.records if r.name == "caches" and r.levelno == logging.ERROR]
    assert records
    assert all(r.exc_info and r.exc_info[1] is error for r in records)


def test_an_unexpected_failure_is_a_sentence_and_a_line_in_the_log(error, caplog):
    said: list[str] = []
    with caches.failing(said.append):
        raise error
    assert said == [f"an unexpected {type(error).__name__}; the log of the dashboard says where."]
    require_line(caplog, error)


@pytest.mark.parametrize("foreseen", FORESEEN, ids=lambda error: type(error).__name__)
def test_a_foreseen_one_says_itself(foreseen, caplog):
    said: list[str] = []
    with caches.failing(said.append):
        raise foreseen
    assert said == [str(foreseen)]
    assert not caplog.records


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: type(signal).__name__)
def test_what_ends_a_script_or_begins_it_anew_passes(signal: BaseException):
    said: list[str] = []
    with pytest.raises(type(signal)), caches.failing(said.append):
        raise signal
    assert not said


def test_a_figure_that_fails_leaves_the_rest_of_its_page(error, monkeypatch, caplog):
    monkeypatch.setattr("charts.draw_kind", failing(error))
    monkeypatch.setattr("caches._shared", _nothing_kept(caches._Shared()))
    at = opened("similarity")
    require_sentence(at, "cannot be drawn:", error)
    require_line(caplog, error)
    assert at.title


def test_a_page_that_fails_says_so_below_what_there_is(error, monkeypatch, caplog):
    monkeypatch.setattr("mudd_interp.inspection.describe_model", failing(error))
    at = opened("overview")
    require_sentence(at, "The rest cannot be shown:", error)
    require_line(caplog, error)
    assert at.title
    assert at.sidebar.button(key="press_run")


def test_a_model_that_cannot_be_loaded_is_said(error, monkeypatch, caplog):
    monkeypatch.setattr("caches.load", failing(error))
    at = opened("heads")
    require_sentence(at, "a model cannot be loaded.", error)
    require_line(caplog, error)


def test_a_run_that_fails_says_so_when_it_ends(error, monkeypatch, caplog):
    monkeypatch.setattr("runs._go", failing(error))
    at = opened("corpus")
    at.button(key="start_run").click().run()
    require_sentence(at, "Something went wrong.", error)
    require_line(caplog, error)


def _nothing_kept(shared: Any) -> Any:
    return lambda: shared
