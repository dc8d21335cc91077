"""Attribution and Interventions: what is chosen there, and numbers that are the library's."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from mudd_interp.analysis import ablation_sweep, direct_logit_attribution
from mudd_interp.data import bundled_batches
from tests.bundled import load

pytestmark = pytest.mark.slow

PROMPT, ANSWER, AGAINST = "x = [1, 2", "]", ","
EDIT = "cut v 7<-2"

BARS = """([chart, trace]) => {
  const plot = document.querySelector(`.st-key-${chart} .js-plotly-plot`);
  return Array.from(plot._fullData[trace].x);
}"""


def bars(app: Any, chart: str, trace: int = 0) -> list[float]:
    """The lengths of the bars of a trace, as the browser holds them."""
    app.drawn(chart)
    return app.page.evaluate(BARS, [chart, trace])


def test_the_bars_of_a_chosen_token_are_the_librarys_and_sum_to_its_logit(app: Any):
    app.open("attribution")
    app.page.get_by_label("Prompt", exact=True).fill(PROMPT)
    app.page.get_by_role("button", name="Run").click()
    expect(app.page.locator("#chip-0")).to_have_text("x")
    title = app.page.locator(".st-key-panel-logit_attribution-model h3")
    for label, token in (("Token whose logit is explained", ANSWER), ("Minus the logit", AGAINST)):
        field = app.page.get_by_label(re.compile(f"^{label}"))
        field.fill(token)
        field.press("Enter")
        expect(title).to_contain_text(f"“{token}”")
        app.settle()

    for trace, name in enumerate(("mudd-tiny", "tfm-tiny")):
        model: Any = load(name)
        found = direct_logit_attribution(model, model.to_tokens(PROMPT), ANSWER, AGAINST)
        shown = bars(app, "logit_attribution-model", trace)
        # Two processes, one float32 forward pass each.
        assert shown == pytest.approx(found.components.tolist(), abs=1e-5)
        assert sum(shown) == pytest.approx(found.logit, abs=1e-4)


def test_an_edit_has_the_librarys_effect_and_its_link_shows_another_the_same(
    app: Any, new_app: Callable[..., Any]
):
    app.open("interventions", "n=2")
    for label, value in (("Stream", "v"), ("After block", "7"), ("Source", "2")):
        field = app.page.get_by_label(label, exact=True)
        field.fill(value)
        field.press("Enter")
        app.settle()
    app.page.get_by_role("button", name="Add", exact=True).click()
    expect(app.page).to_have_url(re.compile(r"[?&]e="))
    app.settle()
    shown = bars(app, "edit_effects-model")
    found = ablation_sweep(load("mudd-tiny"), bundled_batches(2), [EDIT])
    assert shown == pytest.approx(found.frame["loss"].tolist(), abs=1e-6)

    other = new_app()
    other.page.goto(app.page.url)
    other.settle()
    expect(other.page.get_by_label("Edits, one per line")).to_have_value(EDIT)
    assert bars(other, "edit_effects-model") == shown
