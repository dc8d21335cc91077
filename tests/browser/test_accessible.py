"""Every page opens, also for people who do not use a mouse, or cannot see."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, expect

pytestmark = pytest.mark.slow

PAGES = {
    "": ("token_losses-model",),
    "similarity": ("layer_similarity-model", "similarity_matrix-model"),
    "weights": ("dense_weights-model", "edge_distribution-model"),
    "heads": ("head_activity-model", "head_composition-baseline"),
    "attribution": ("logit_attribution-model", "path_coefficients-model"),
    "interventions": (),
    "corpus": (),
    "about": (),
}
"""Each page with its first and its last chart, if it opens with charts."""

MOST_STOPS = 400

# What the keyboard stops at is marked. Steps of number inputs and arrows of menus have no stop of
# their own, because the arrow keys do the same; of a group of radios one is a stop.
WALK = """async () => {
  const found = document.activeElement;
  if (!found || found === document.body) return false;
  found.dataset.stopped = "yes";
  return true;
}"""
MISSED = """() => {
  const stopped = element => element.closest("[data-stopped]");
  const group = element => element.closest("[role=radiogroup]");
  return [...document.querySelectorAll("button, a[href], input, textarea, summary, [role=listbox]")]
    .filter(each => each.checkVisibility({ opacityProperty: true, visibilityProperty: true }))
    .filter(each => each.tabIndex >= 0 && !each.disabled && !stopped(each))
    .filter(each => !group(each)?.querySelector("[data-stopped]"))
    .map(each => each.getAttribute("aria-label") || each.innerText || each.outerHTML);
}"""


def opened(app: Any, page: str) -> Any:
    app.open(page)
    expect(app.page.get_by_role("heading", level=1)).to_be_visible()
    app.settle()
    for chart in PAGES[page]:
        app.drawn(chart)
    assert app.page.get_by_text("cannot be drawn").count() == 0
    return app


def violations(app: Any) -> list[tuple[str, str]]:
    found = Axe().run(app.page).response["violations"]
    return [(each["id"], each["nodes"][0]["html"]) for each in found]


def tab_to(app: Any, control: Locator) -> Locator:
    """Go there with the tab key alone."""
    expect(control).to_be_visible()
    for _ in range(MOST_STOPS):
        # A component's part of the page has a focus of its own.
        if control.evaluate("each => each.contains(each.getRootNode().activeElement)"):
            return control
        app.page.keyboard.press("Tab")
    raise AssertionError(f"the tab key does not lead to {control}")


def test_axe_finds_nothing_on_a_dark_page(new_app: Callable[..., Any]):
    assert violations(opened(new_app(color_scheme="dark"), "weights")) == []


@pytest.mark.parametrize("page", PAGES)
def test_a_page_opens_axe_finds_nothing_and_the_tab_key_stops_at_every_control(app: Any, page: str):
    assert violations(opened(app, page)) == []
    ends = 0  # of the page; the focus is also lost when the element that has it is redrawn
    for _ in range(2 * MOST_STOPS):
        app.page.keyboard.press("Tab")
        ends += not app.page.evaluate(WALK)
        if ends == 2:
            break
    assert app.page.locator("[data-stopped]").count() > 10
    assert app.page.evaluate(MISSED) == []


def test_a_prompt_a_token_a_mode_and_a_download_need_no_mouse(app: Any):
    keyboard = app.page.keyboard
    app.open("", "n=2&c=64&o=side_by_side")
    tab_to(app, app.page.get_by_label("Prompt", exact=True))
    keyboard.press("Control+a")
    keyboard.type("x = [1, 2")
    tab_to(app, app.page.get_by_role("button", name="Run"))
    keyboard.press("Enter")
    expect(app.page.locator("#chip-0")).to_contain_text("x")
    tab_to(app, app.page.locator("[role=listbox]"))
    keyboard.press("Home")
    expect(app.page).to_have_url(re.compile(r"[?&]x=0(&|$)"))
    app.settle()
    tab_to(app, app.page.get_by_role("radiogroup", name="Two models"))
    keyboard.press("ArrowLeft")
    keyboard.press("Space")
    expect(app.page).to_have_url(re.compile(r"[?&]o=overlay(&|$)"))
    app.settle()
    app.drawn("next_tokens-model")
    download = tab_to(app, app.page.get_by_role("button", name="CSV").first)
    with app.page.expect_download():
        keyboard.press("Enter")
    expect(download).to_be_visible()


def test_an_edge_is_chosen_without_a_mouse(app: Any):
    opened(app, "weights")
    stream = app.page.get_by_role("radiogroup", name="Stream")
    tab_to(app, stream)
    stream.get_by_role("radio", name="k").focus()
    app.page.keyboard.press("Space")
    expect(app.page).to_have_url(re.compile(r"[?&]st=k(&|$)"))
    app.settle()
    tab_to(app, app.page.get_by_label(re.compile("^Source, 0 to ")))
    app.page.keyboard.press("ArrowUp")
    app.page.keyboard.press("Enter")
    expect(app.page).to_have_url(re.compile(r"[?&]j=2(&|$)"))


def test_an_edit_is_written_and_removed_without_a_mouse(app: Any):
    opened(app, "interventions")
    keyboard = app.page.keyboard
    tab_to(app, app.page.get_by_label("Edits, one per line"))
    keyboard.type("cut v 7<-2")
    keyboard.press("Control+Enter")
    expect(app.page).to_have_url(re.compile(r"[?&]e="))
    app.settle()
    app.drawn("edit_effects-model")
    tab_to(app, app.page.get_by_role("button", name="Remove all"))
    keyboard.press("Enter")
    expect(app.page.get_by_text("There are no edits yet")).to_be_visible()
