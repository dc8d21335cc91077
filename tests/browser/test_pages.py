"""What a person does: pages open with their figures, and a link shows someone else the same."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.server import Server

pytestmark = pytest.mark.slow

SIMILARITY = "layer_similarity-model"


def values(app: Any, chart: str) -> list[Any]:
    """What a chart shows: the numbers of its first trace, as the browser holds them."""
    return app.page.evaluate(
        "chart => { const trace = document.querySelector(`.st-key-${chart} .js-plotly-plot`)"
        ".calcdata[0]; return trace.map(point => point.y ?? point.z); }",
        chart,
    )


def test_a_prompt_becomes_figures_and_its_link_opens_them_in_a_new_browser(
    app: Any, new_app: Callable[..., Any]
):
    app.open("similarity", "n=2&c=64&s=prompt")
    app.drawn(SIMILARITY)
    before = values(app, SIMILARITY)
    app.page.get_by_label("Prompt", exact=True).fill("def add(a, b):\n    return a + b\n")
    app.page.get_by_role("button", name="Run").click()
    expect(app.page).to_have_url(re.compile(r"[?&]p="))
    app.settle()
    app.drawn(SIMILARITY)
    shown = values(app, SIMILARITY)
    assert shown != before

    other = new_app()
    other.page.goto(app.page.url)
    other.settle()
    other.drawn(SIMILARITY)
    assert values(other, SIMILARITY) == shown


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
    app.drawn("dense_weights-model")
    assert app.page.evaluate("document.documentElement.scrollWidth") <= 1024
