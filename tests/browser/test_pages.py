"""What a person does: pages open with their figures, and a link shows another what one saw."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.server import Server

# Each page with the chart that it is about.
CHARTS = {
    "": "token_losses-model",
    "similarity": "layer_similarity-model",
    "weights": "dense_weights-model",
    "heads": "head_activity-model",
    "attribution": "logit_attribution-model",
}


def values(app: Any, chart: str) -> list[Any]:
    """What a chart shows: the numbers of its first trace, as the browser holds them."""
    return app.page.evaluate(
        "chart => { const trace = document.querySelector(`.st-key-${chart} .js-plotly-plot`)"
        ".calcdata[0]; return trace.map(point => point.y ?? point.z); }",
        chart,
    )


@pytest.mark.parametrize("page", CHARTS)
def test_a_page_opens_with_its_figure(app: Any, page: str):
    app.open(page)
    app.drawn(CHARTS[page])
    assert app.page.get_by_text("cannot be drawn").count() == 0


@pytest.mark.parametrize("page", ["interventions", "corpus", "about"])
def test_a_page_of_words_opens(app: Any, page: str):
    app.open(page)
    expect(app.page.get_by_role("heading", level=1)).to_be_visible()


def test_a_prompt_becomes_figures_and_its_link_opens_them_in_a_new_browser(
    app: Any, new_app: Callable[..., Any]
):
    app.open("similarity", "n=2&c=64&s=prompt")
    app.drawn(CHARTS["similarity"])
    before = values(app, CHARTS["similarity"])
    app.page.get_by_label("Prompt", exact=True).fill("def add(a, b):\n    return a + b\n")
    app.page.get_by_role("button", name="Run").click()
    expect(app.page).to_have_url(re.compile(r"[?&]p="))
    app.settle()
    app.drawn(CHARTS["similarity"])
    shown = values(app, CHARTS["similarity"])
    assert shown != before

    other = new_app()
    other.page.goto(app.page.url)
    other.settle()
    other.drawn(CHARTS["similarity"])
    assert values(other, CHARTS["similarity"]) == shown


def test_two_sessions_at_once_do_not_see_each_other_and_leave_the_models_alone(
    new_app: Callable[..., Any], server: Server
):
    one, two = new_app(), new_app()
    one.open("heads")
    before = server.models()
    assert before.keys() == {"mudd-tiny", "tfm-tiny"}
    assert all(each["hooks"] == 0 for each in before.values())
    for app, prompt in ((one, "alpha = 1"), (two, "import os")):
        app.open()
        app.page.get_by_label("Prompt", exact=True).fill(prompt)
        app.page.get_by_role("button", name="Run").click()
    for app, first in ((one, "al"), (two, "import")):
        expect(app.page.locator("#chip-0")).to_have_text(re.compile(f"^{first}"))
    assert "import" not in one.page.locator("[role=listbox]").inner_text()
    for app in (one, two):
        app.settle()
    assert server.models() == before


def test_a_narrow_dark_window_holds_the_figures(new_app: Callable[..., Any]):
    app = new_app(viewport={"width": 1024, "height": 800}, color_scheme="dark")
    app.open("weights")
    app.drawn(CHARTS["weights"])
    assert app.page.evaluate("document.documentElement.scrollWidth") <= 1024
