"""The screenshots of the dashboard in docs/: start `mudd-interp app --headless` first.

python docs/screenshots.py http://127.0.0.1:8501
"""

import sys
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from mudd_interp.viz import find_browser

EDITS = "eNpLLi1RKFMwt9E1slZIBrIzUhNTFMz1gLzijNK0tJxUhUIFLRtdLQD0Dgub"
"""cut v 7<-2; cut head 7.2; shuffle q *<-*"""
PAGES = {
    "overview": ("", "token_losses-model"),
    "similarity": ("similarity", "similarity_matrix-model"),
    "weights": ("weights", "dense_weights-model"),
    "heads": ("heads", "attention_head-model"),
    "attribution": ("attribution", "logit_attribution-model"),
    "interventions": (f"interventions?e={EDITS}", "edited_losses-baseline"),
    "corpus": ("corpus", "loss_comparison-model"),
    "about": ("about", None),
}
DARK = ("similarity", "heads")
FOLDER = Path(__file__).parent


def take(browser: Browser, url: str, name: str, scheme: str) -> None:
    """Open a page, wait until its last chart is drawn, and save what a person sees."""
    path, chart = PAGES[name]
    page = browser.new_page(viewport={"width": 1280, "height": 1000}, color_scheme=scheme)  # pyright: ignore[reportArgumentType]
    page.set_default_timeout(180_000)
    page.goto(f"{url}/{path}")
    page.wait_for_selector(
        "[data-testid=stApp][data-test-script-state=notRunning]", state="attached"
    )
    page.get_by_role("heading", level=1).wait_for()
    if name == "corpus" and (run := page.locator(".st-key-start_run button")).is_enabled():
        run.click()
    if chart is not None:
        page.wait_for_function(
            "chart => document.querySelector(`.st-key-${chart} .js-plotly-plot`)?.calcdata?.length",
            arg=chart,
        )
    page.wait_for_timeout(1500)
    suffix = "" if scheme == "light" else "-dark"
    page.screenshot(path=FOLDER / f"app-{name}{suffix}.png")
    page.close()


def main() -> None:
    """Take all of them."""
    url = sys.argv[1].rstrip("/")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=find_browser(), args=arguments)
        for name in PAGES:
            take(browser, url, name, "light")
        for name in DARK:
            take(browser, url, name, "dark")


if __name__ == "__main__":
    main()
