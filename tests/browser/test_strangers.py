"""Foreign pages, and other people who reach the dashboard: a browser acts for all of them."""

import re
import threading
import time
from collections.abc import Callable, Generator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from mudd_interp.viz import find_browser
from tests.browser.conftest import ARGUMENTS, TIMEOUT, Watched
from tests.browser.server import Server, serve

pytestmark = pytest.mark.slow

SPEAK = """async url => {
  const answer = fetch(url + "/_stcore/health").then(() => "read", () => "refused");
  const socket = new Promise(done => {
    const opened = new WebSocket(url.replace("http", "ws") + "/_stcore/stream", ["streamlit"]);
    opened.onopen = () => done("open");
    opened.onerror = () => done("refused");
  });
  const upload = fetch(url + "/_stcore/upload_file/a/b", { method: "PUT", body: "x" })
    .then(() => "sent", () => "refused");
  const image = new Promise(done => {
    const made = new Image();
    made.onload = () => done("shown");
    made.onerror = () => done("refused");
    made.src = url + "/favicon.png";
  });
  return Promise.all([answer, socket, upload, image]);
}"""


@pytest.fixture
def strange(browser: Browser) -> Generator[Browser]:
    """A browser in which a foreign name has the address of this machine."""
    rules = ["--host-resolver-rules=MAP evil.example 127.0.0.1"]
    started = browser.browser_type.launch(executable_path=find_browser(), args=ARGUMENTS + rules)
    yield started
    started.close()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Generator[str]:
    """The address of somebody else's page."""
    (tmp_path / "index.html").write_text("<title>Elsewhere</title>")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_page_of_another_origin_gets_no_answer(browser: Browser, server: Server, elsewhere: str):
    page = browser.new_page()
    for url in (server.url, server.url.replace("127.0.0.1", "localhost")):
        page.goto(elsewhere)
        assert page.evaluate(SPEAK, url) == ["refused"] * 4
    page.close()


def test_it_is_shown_in_nobodys_frame(browser: Browser, server: Server, elsewhere: str):
    page = browser.new_page()
    page.goto(elsewhere)
    refusal = re.compile("frame-ancestors|X-Frame-Options")
    with page.expect_console_message(lambda message: bool(refusal.search(message.text))):
        page.set_content(f"<iframe src='{server.url}'></iframe>")
    assert page.frames[1].locator("[data-testid=stApp]").count() == 0
    page.close()


def test_a_foreign_name_that_leads_here_is_told_that_it_is_not_known(
    strange: Browser, server: Server
):
    page = strange.new_page()
    url = server.url.replace("127.0.0.1", "evil.example")
    response = page.goto(url)
    assert response is not None
    assert response.status == 421
    expect(page.locator("body")).to_contain_text("--allow-host")
    # This page has that name, and so may read what the name answers.
    assert page.evaluate("fetch('/_stcore/health').then(answer => answer.status)") == 421
    assert page.evaluate(SPEAK, url)[1] == "refused"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    """A dashboard that others reach."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "tmp").mkdir()
    with serve(folder, ["--host", "0.0.0.0"], {"TMPDIR": str(folder / "tmp")}) as server:
        yield server


@pytest.fixture
def visit(browser: Browser, shared: Server) -> Generator[Callable[[], Any]]:
    """Makes visitors, each with a browser of their own."""
    pages = list[Page]()

    def make() -> Watched:
        pages.append(browser.new_context().new_page())
        return Watched(pages[-1], shared.url)

    yield make
    for page in pages:
        page.context.close()


def test_visitors_do_not_find_one_anothers_runs_and_uploads(
    visit: Callable[[], Any], shared: Server, tmp_path: Path
):
    one, two = visit(), visit()
    one.open("corpus", "n=2&bs=1")
    one.page.get_by_text("an uploaded file").click()
    text = tmp_path / "mine.txt"
    text.write_text("def area(r):\n    return 3.14 * r * r\n" * 40)
    one.page.locator("input[type=file]").set_input_files(text)
    expect(one.page).to_have_url(re.compile("[?&]t="))
    one.settle()
    one.page.locator(".st-key-start_run button").click()
    expect(one.page.get_by_text("Finished")).to_be_visible()
    expect(one.page.get_by_text("Of this page, until it is closed")).to_be_visible()

    two.open("corpus", "n=2&bs=1")
    expect(two.page.get_by_text("None yet.")).to_be_visible()
    two.page.goto(one.page.url)
    expect(two.page.get_by_text("Others reach this dashboard.")).to_be_visible()
    expect(two.page.get_by_text("not uploaded on this page")).to_be_visible()

    kept = shared.log.parent / "tmp"

    def left() -> list[Path]:
        return [*kept.glob("*/runs/*"), *kept.glob("*/uploads/*")]

    assert list(kept.glob("*/runs/*"))
    assert list(kept.glob("*/uploads/*"))
    one.page.close()
    until = time.monotonic() + TIMEOUT / 1000
    while left() and time.monotonic() < until:
        two.page.wait_for_timeout(100)
    assert not left()
    assert not (shared.log.parent / "cache").exists()
