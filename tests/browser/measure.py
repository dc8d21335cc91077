"""How fast the dashboard answers, how long it takes to start, and what memory sessions leave taken.

``python -m tests.browser.measure [--json FILE] [--repeats 20]`` prints three tables. Times are
taken in the browser, from the press of the mouse to the first frame whose chart shows other data,
on prompts of 256 tokens. Run it on a quiet machine.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Browser, Page, sync_playwright
from rich.console import Console
from rich.table import Table

import mudd_interp as mi
from mudd_interp.files import write_text
from mudd_interp.viz import find_browser
from tests.browser.conftest import ARGUMENTS, Watched
from tests.browser.server import ROOT, Server, serve

CONTEXT = 256
SESSIONS, AT_ONCE = 20, 5

# From the press to a chart with other data, in milliseconds; the chart may be another node then.
# A sample of its numbers is enough: comparing them all at each frame would be slower than the app.
WATCH = """chart => {
  const some = list => {
    const step = Math.max(1, Math.floor((list?.length ?? 0) / 40));
    return Array.from(list ?? []).filter((_, i) => i % step === 0);
  };
  const shown = () => {
    const plot = document.querySelector(`.st-key-${chart} .js-plotly-plot`);
    if (!plot?.calcdata?.length) return null;
    return JSON.stringify(plot.calcdata.map(trace =>
      trace[0]?.z ? some(trace[0].z).map(some) : some(trace).map(point => [point.x, point.y])));
  };
  const before = shown();
  window.drawnAfter = new Promise(resolve => {
    let pressed = null;
    const press = () => { pressed ??= performance.now(); };
    addEventListener("pointerdown", press, { capture: true });
    const look = () => {
      const now = pressed === null ? null : shown();
      if (now === null || now === before) return requestAnimationFrame(look);
      removeEventListener("pointerdown", press, { capture: true });
      resolve(performance.now() - pressed);
    };
    requestAnimationFrame(look);
  });
}"""

# What a process does before its first page, each step after the one above it.
STEPS = """
import json, time
steps, began = {}, time.perf_counter()
def step(name):
    global began
    now = time.perf_counter()
    steps[name], began = now - began, now
import streamlit.web.bootstrap; step("import streamlit")
import torch; step("import torch")
import transformer_lens; step("import transformer_lens")
import mudd_interp as mi
from mudd_interp import catalog, request, study; step("import mudd_interp and plotly")
models = {name: mi.load_model(name) for name in ("mudd-tiny", "tfm-tiny")}
step("load and check the pair")
of = study.Study(request.Request(prompt="x = [1, 2"), load=lambda name, **_: models[name])
for name in ("next_tokens", "token_losses"):
    catalog.draw_kind(catalog.find(name), of)
step("compute and draw the first page")
print(json.dumps(steps))
"""


def prompts(count: int) -> list[str]:
    """Held-out texts, each about as long as the context."""
    model: Any = mi.load_model("mudd-tiny")
    rows = mi.data.bundled_batches(n_sequences=count, batch_size=1)
    texts = [model.to_string(row[0, 1 : CONTEXT - 3]) for row in rows]
    lengths = [model.to_tokens(text).shape[1] for text in texts]
    assert max(lengths) <= CONTEXT
    return texts


def timed(app: Watched, chart: str, act: Callable[[], None]) -> float:
    """Seconds from the press of the mouse to the changed chart."""
    app.page.evaluate(WATCH, chart)
    act()
    milliseconds: float = app.page.evaluate("window.drawnAfter")
    app.settle()
    return milliseconds / 1000


def interactions(app: Watched, repeats: int) -> dict[str, list[float]]:
    """Seconds of every interaction, by what was done and on which page."""
    page, found = app.page, dict[str, list[float]]()
    texts = prompts(repeats + 1)
    field = page.get_by_label("Prompt", exact=True)
    press = page.get_by_role("button", name="Run")
    for name, chart, query in (
        ("overview", "next_tokens-model", ""),
        ("similarity", "layer_similarity-model", "s=prompt"),
        ("weights", "token_weights-model", ""),
        ("heads", "attention_maps-model", ""),
    ):
        app.open(name if name != "overview" else "", f"n=8&{query}")
        app.drawn(chart)
        times = found.setdefault(f"new prompt, {name}", [])
        # The first one is new to the app, but the page is not warm yet.
        for text in [texts[-1], *texts[:-1]]:
            field.fill(text)
            times.append(timed(app, chart, press.click))
        del times[0]
    for name, chart in (("overview", "next_tokens-model"), ("weights", "token_weights-model")):
        app.open(name if name != "overview" else "", "n=8")
        field.fill(texts[0])
        press.click()
        app.page.locator("#chip-100").wait_for()
        app.settle()
        app.drawn(chart)
        times = found.setdefault(f"cursor, {name}", [])
        for i in range(repeats):
            chip = page.locator(f"#chip-{5 + 9 * i}")
            times.append(timed(app, chart, chip.click))
    options: list[tuple[str, str, str, Callable[[int], Any]]] = [
        (
            "weights",
            "dense_weights-model",
            "statistic",
            lambda i: page.get_by_role("radio", name=("mean", "std", "static")[i % 3]),
        ),
        (
            "heads",
            "attention_head-model",
            "head",
            lambda i: page.locator(".st-key-view_head button").nth(1 if i % 6 < 3 else 0),
        ),
        *(
            (
                "similarity",
                chart,
                f"mode, {place} of five charts",
                lambda i: page.get_by_role("radio", name=("difference", "side by side")[i % 2]),
            )
            for place, chart in (
                ("first", "layer_similarity-model"),
                ("last", "similarity_matrix-model"),
            )
        ),
    ]
    for name, chart, option, control in options:
        app.open(name, "n=8&c=256")
        app.drawn(chart)
        times = found.setdefault(f"{option}, {name}", [])
        for i in range(repeats):
            times.append(timed(app, chart, control(i).click))
    return found


def cold_start(browser: Browser) -> dict[str, float]:
    """Seconds from the start of a process to its first page, and what a process does before."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        with serve(Path(folder)) as server:
            answering = time.perf_counter()
            app = Watched(browser.new_page(), server.url)
            app.open("", "")
            app.drawn("token_losses-model")
            usable = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", STEPS], cwd=ROOT, check=True, capture_output=True, text=True
    )
    steps: dict[str, float] = json.loads(done.stdout)
    return {"the server answers": answering - began, "first page usable": usable - began} | steps


def sessions(server: Server, browser: Browser) -> dict[str, Any]:
    """Resident memory in MB of the server after sessions, and whether its models are the same."""
    process = psutil.Process(server.process.pid)
    texts = prompts(SESSIONS + AT_ONCE)

    def visit(pages: list[Page], of: list[str]) -> None:
        apps = [Watched(page, server.url) for page in pages]
        for app, text in zip(apps, of, strict=True):
            app.open("weights", "n=8")
            app.page.get_by_label("Prompt", exact=True).fill(text)
            app.page.get_by_role("button", name="Run").click()
        for app in apps:
            app.page.locator("#chip-100").wait_for()
            app.settle()
            app.drawn("token_weights-model")
            assert not app.wrong, app.wrong

    def resident() -> float:
        return process.memory_info().rss / 1e6

    before, found = server.models(), {"before": resident()}
    for number, text in enumerate(texts[:SESSIONS], 1):
        with browser.new_context() as context:
            visit([context.new_page()], [text])
        if number in (1, 5, 10, 15, 20):
            found[f"after {number} one by one"] = resident()
    contexts = [browser.new_context() for _ in range(AT_ONCE)]
    visit([context.new_page() for context in contexts], texts[SESSIONS:])
    found[f"with {AT_ONCE} at once"] = resident()
    for context in contexts:
        context.close()
    time.sleep(5)
    found["after them"] = resident()
    return found | {"models unchanged, no hook left": server.models() == before}


def show(tables: dict[str, Any]) -> dict[str, Any]:
    """Print what was measured, and return it."""
    for title, rows in tables.items():
        table = Table(title, "")
        for name, value in rows.items():
            values = value if isinstance(value, tuple) else (value,)
            table.add_row(
                name, " ".join(f"{v:.2f}" if type(v) is float else f"{v}" for v in values)
            )
        Console().print(table)
    return tables


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=20)
    given = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=ARGUMENTS)
        found = {"cold start, s": cold_start(browser)}
        show(found)
        with tempfile.TemporaryDirectory() as folder, serve(Path(folder)) as server:
            app = Watched(browser.new_page(viewport={"width": 1280, "height": 900}), server.url)
            times = interactions(app, given.repeats)
            assert not app.wrong, app.wrong
            app.page.close()
            medians = {name: (statistics.median(each), max(each)) for name, each in times.items()}
            found |= show({"click to chart, s: median, slowest": medians})
            found |= show({"resident memory, MB": sessions(server, browser)})
    if given.json:
        write_text(given.json, json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
