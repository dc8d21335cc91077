"""The app in a real browser: one server for all tests, and pages that fail on what is not right."""

import os
from collections.abc import Callable, Generator
from typing import Any

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Page,
    Request,
    Response,
    expect,
    sync_playwright,
)

from mudd_interp.viz import find_browser
from tests.browser.server import Server, serve

ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage"]
TIMEOUT = 120_000  # milliseconds; the machines that run this are slow
expect.set_options(timeout=TIMEOUT)


@pytest.fixture(scope="session")
def browser() -> Generator[Browser]:
    """The installed browser, the one that pictures are drawn with."""
    try:
        path = find_browser()
    except ValueError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path, args=ARGUMENTS)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    """The app, served for the length of the session."""
    with serve(tmp_path_factory.mktemp("app")) as server:
        yield server


class Watched:
    """A page that remembers what went wrong in it."""

    def __init__(self, page: Page, url: str):
        self.page, self.url, self.wrong = page, url, list[str]()
        page.set_default_timeout(TIMEOUT)
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("response", self._response)
        page.on("request", self._request)

    def _response(self, response: Response) -> None:
        if response.status >= 400 and "/_stcore/" not in response.url:
            self.wrong.append(f"{response.status}: {response.url}")

    def _request(self, request: Request) -> None:
        if not request.url.startswith((self.url, self.url.replace("http", "ws"), "data:", "blob:")):
            self.wrong.append(f"left the machine: {request.url}")

    def open(self, path: str = "", query: str = "n=2&c=64") -> None:
        """Open a page of the app on a small corpus, and wait until it has settled."""
        self.page.goto(f"{self.url}/{path}?{query}")
        self.settle()

    def settle(self) -> None:
        """Wait until the script is done, and no part of the page is out of date or still to come.

        A widget whose code the browser does not have yet is a skeleton: nothing to stop at.
        """
        self.page.wait_for_selector(
            "[data-testid=stApp][data-test-script-state=notRunning]", state="attached"
        )
        self.page.wait_for_function(
            "!document.querySelector('[data-stale=true], [data-testid=stSkeleton]')"
        )

    def drawn(self, chart: str) -> None:
        """Wait until a chart is drawn: settled is not drawn."""
        self.page.wait_for_function(
            "chart => document.querySelector(`.st-key-${chart} .js-plotly-plot`)?.calcdata?.length",
            arg=chart,
        )


@pytest.fixture
def new_app(browser: Browser, server: Server) -> Generator[Callable[..., Watched]]:
    """Makes fresh browser sessions; none of them may have seen an error when the test ends."""
    contexts, apps = list[BrowserContext](), list[Watched]()

    def make(**options: Any) -> Watched:
        arguments: dict[str, Any] = {"viewport": {"width": 1280, "height": 900}, **options}
        contexts.append(browser.new_context(**arguments))
        apps.append(Watched(contexts[-1].new_page(), server.url))
        return apps[-1]

    yield make
    wrong = [each for app in apps for each in app.wrong]
    for context in contexts:
        context.close()
    assert not wrong


@pytest.fixture
def app(new_app: Callable[..., Watched]) -> Watched:
    """One session, of a laptop's size."""
    return new_app()
