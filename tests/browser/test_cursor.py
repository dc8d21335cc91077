"""The cursor on the tokens: mouse, keys and number input move the one position in the link."""

import re
from typing import Any

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.slow


def chosen(app: Any) -> str:
    return app.page.locator("[role=option][aria-selected=true]").get_attribute("id") or ""


def test_mouse_keys_and_number_move_one_cursor(app: Any):
    app.open()
    options = app.page.locator("[role=option]")
    expect(options.first).to_be_visible()
    last = options.count() - 1
    assert chosen(app) == f"chip-{last}"

    options.nth(3).click()
    expect(app.page).to_have_url(re.compile(r"[?&]x=3(&|$)"))
    app.page.locator("[role=listbox]").press("ArrowRight")
    expect(app.page).to_have_url(re.compile(r"[?&]x=4(&|$)"))
    app.page.locator("[role=listbox]").press("Home")
    expect(app.page).to_have_url(re.compile(r"[?&]x=0(&|$)"))

    number = app.page.get_by_label(re.compile("^Token, 0 to "))
    expect(number).to_have_value("0")
    number.fill("5")
    number.press("Enter")
    expect(app.page.locator("#chip-5")).to_have_attribute("aria-selected", "true")


def test_tokens_are_text_and_nothing_else(app: Any):
    app.open()
    app.page.get_by_label("Prompt", exact=True).fill("<img src=x onerror=alert(1)><b>&amp;</b>")
    app.page.get_by_role("button", name="Run").click()
    expect(app.page.locator("[role=option]").first).to_contain_text("<")
    app.settle()
    assert app.page.locator("[role=option] img, [role=option] b").count() == 0
