"""A figure whose template was put in its place looks the same, and is drawn once."""

import json
from pathlib import Path
from typing import Any

import plotly
import pytest
from playwright.sync_api import Browser, Page
from plotly.io.json import to_json_plotly

from mudd_interp.catalog import draw_kind, find
from mudd_interp.request import Request
from mudd_interp.study import Study
from mudd_interp.viz import dark
from specs import spec
from tests.bundled import load

pytestmark = pytest.mark.slow

REQUEST = Request(sequences=1, context=32, prompt="for i in range(3):\n    print(i)\n")
FIGURES = (
    "layer_similarity",
    "dense_weights",
    "token_losses",
    "next_tokens",
    "edge_distribution",
    "head_scores",
    "attention_maps",
    "loss_comparison",
)
"""Every type of trace, and shapes, annotations and colour scales of every kind."""

DRAW = """async spec => {
  const node = document.getElementById("chart");
  Plotly.purge(node);
  await Plotly.newPlot(node, spec.data, spec.layout, { staticPlot: true });
}"""

# What Streamlit's front end does: it sets the figure that it has drawn, parsed a second time.
AGAIN = """async spec => {
  const node = document.getElementById("chart");
  const computed = node.calcdata;
  await Plotly.react(node, spec.data, spec.layout, { staticPlot: true });
  return node.calcdata === computed;
}"""


@pytest.fixture(scope="module")
def study() -> Study:
    """Both bundled models on one sequence and one prompt."""
    return Study(REQUEST, load)


@pytest.fixture(scope="module")
def page(browser: Browser) -> Page:
    """An empty page with Plotly."""
    page = browser.new_page(viewport={"width": 1280, "height": 1600})
    page.set_content("<div id=chart></div>")
    page.add_script_tag(path=Path(plotly.__file__).parent / "package_data" / "plotly.min.js")
    return page


def sent(figure: dict[str, Any]) -> Any:
    """What a browser gets of a figure or a spec."""
    return json.loads(str(to_json_plotly(figure)))


@pytest.mark.parametrize("name", FIGURES)
def test_a_spec_looks_as_its_figure_on_a_light_and_a_dark_page(name: str, study: Study, page: Page):
    light = draw_kind(find(name), study).figure
    for figure in (light, dark(light)):
        page.evaluate(DRAW, sent(figure.to_dict()))
        before = page.screenshot()
        page.evaluate(DRAW, sent(spec(figure)))
        assert page.screenshot() == before


@pytest.mark.parametrize("name", FIGURES)
def test_setting_the_same_spec_again_computes_nothing(name: str, study: Study, page: Page):
    figure = draw_kind(find(name), study).figure
    for fields, kept in ((figure.to_dict(), False), (spec(figure), True)):
        page.evaluate(DRAW, sent(fields))
        assert page.evaluate(AGAIN, sent(fields)) is kept
