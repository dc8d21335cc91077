"""Malicious or meaningless prompts and files: shown as text or refused in words, never run."""

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.slow

HTML = '</textarea><script>window.harmed = 1</script><img src=x onerror="window.harmed = 1">'

SHOWN = {
    "HTML and scripts": (HTML, "<"),
    "Markdown, formulas and colours": ("![a](http://evil.example/a.png) $x^2$ :red[b] **c**", "!"),
    "emoji": ("smile = '🙂👩‍👩‍👧🏳️‍🌈'", "s"),
    "control characters": ("a\x07\x1b[31mb\u0000\u2028c", "a"),
    "right to left": ("שלום = 'مرحبا'  # \u202eevil\u202c", None),
}
REFUSED = {
    "nothing": ("", "The prompt is empty"),
    "longer than the context": ("x = 1\n" * 200, "do not fit the context of 256"),
    "50 kB": ("word " * 10_000, "do not fit the context of 256"),
    "more than is read": ("y" * 100_001, "at most 100,000 are read"),
}


def run(app: Any, prompt: str) -> None:
    app.page.get_by_label("Prompt", exact=True).fill(prompt)
    app.page.get_by_role("button", name="Run").click()


def unharmed(app: Any) -> None:
    app.settle()
    assert app.page.evaluate("window.harmed") is None
    assert app.page.locator("[role=option] *, .stMarkdown img, .stMarkdown .katex").count() == 0


@pytest.mark.parametrize("what", SHOWN)
def test_a_hostile_prompt_is_shown_as_text(app: Any, what: str):
    prompt, first = SHOWN[what]
    app.open()
    run(app, prompt)
    if first is not None:
        expect(app.page.locator("#chip-0")).to_have_text(first)
    expect(app.page).to_have_url(re.compile("[?&]p="))
    app.drawn("next_tokens-model")
    unharmed(app)
    assert not re.search("[\x00-\x08\u202e]", app.page.locator("[role=listbox]").inner_text())


def test_a_prompt_that_cannot_be_read_is_refused_in_words_and_the_next_one_is_read(app: Any):
    app.open()
    for prompt, message in REFUSED.values():
        run(app, prompt)
        expect(app.page.get_by_text(message).first).to_be_visible()
        unharmed(app)
    run(app, "x = 1")
    expect(app.page.locator("#chip-0")).to_have_text("x")


def test_models_that_cannot_be_loaded_are_named_and_the_app_goes_on(app: Any, tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "muddpythia", "vocab_size": 1')
    for model, reason in ((tmp_path, "is not JSON"), ("mudd-tidy", "did you mean")):
        app.open("similarity", f"n=2&c=64&m={model}")
        expect(app.page.get_by_text("None of it has been read, loaded or computed")).to_be_visible()
        app.page.get_by_role("button", name="Go on", exact=True).click()
        expect(app.page.get_by_text("a model cannot be loaded")).to_be_visible()
        expect(app.page.get_by_text(reason)).to_be_visible()
    app.open("similarity")
    app.drawn("layer_similarity-model")
