"""What is clicked, what is shown and what is downloaded are the same."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser, TimeoutError, expect

from clicks import JS
from mudd_interp.axes import STREAMS

pytestmark = pytest.mark.slow

# Where a cell of a heatmap is on the screen.
PLACE = """([chart, trace, x, y]) => {
  const plot = document.querySelector(`.st-key-${chart} .js-plotly-plot`);
  plot.scrollIntoView({ block: "center" });
  const { xaxis, yaxis } = plot.calcdata[trace][0].trace;
  const axes = ["x", "y"].map((letter, i) =>
    plot._fullLayout[[xaxis, yaxis][i].replace(letter, letter + "axis")]);
  const box = plot.getBoundingClientRect();
  return [
    box.x + axes[0]._offset + axes[0].l2p(x),
    box.y + axes[1]._offset + axes[1].l2p(y),
  ];
}"""

# Plotly looks at the pointer every 50 ms, and a click is on what it saw last.
SEEN = """([chart, trace, x, y]) => {
  const plot = document.querySelector(`.st-key-${chart} .js-plotly-plot`);
  return plot._hoverdata?.some(p => p.curveNumber === trace && p.x === x && p.y === y);
}"""


def click_cell(app: Any, chart: str, trace: int, x: int, y: int) -> None:
    app.drawn(chart)
    before, place = None, app.page.evaluate(PLACE, [chart, trace, x, y])
    while before != place:  # the page scrolls, and what is above may still be drawn
        app.page.wait_for_timeout(500)
        before, place = place, app.page.evaluate(PLACE, [chart, trace, x, y])
    app.page.mouse.move(*place)
    app.page.wait_for_function(SEEN, arg=[chart, trace, x, y])
    app.page.mouse.click(*place)


def choose_cell(app: Any, chart: str, trace: int, x: int, y: int, link: str) -> None:
    """Click a cell until the link says so, twice at most.

    A click is lost while a busy machine redraws the chart; a person would repeat it.
    """
    click_cell(app, chart, trace, x, y)
    try:
        app.page.wait_for_url(re.compile(link), timeout=20_000)
    except TimeoutError:
        app.settle()
        click_cell(app, chart, trace, x, y)
    expect(app.page).to_have_url(re.compile(link))


# Streamlit may end a call after the next has begun, and Plotly forgets its listeners in place.
TWO_CALLS = """async (code) => {
  const blob = new Blob([code], { type: "text/javascript" });
  const { default: begin } = await import(URL.createObjectURL(blob));
  const plot = document.querySelector(".js-plotly-plot");
  const heard = [];
  let listeners = [];
  plot.on = (name, listener) => listeners.push(listener);
  plot.removeListener = (name, gone) => { listeners = listeners.filter(each => each !== gone); };
  const click = async () => {
    plot.append(document.createElement("i"));
    await new Promise(requestAnimationFrame);
    listeners.forEach(each => each({ points: [{ curveNumber: 1, x: 2, y: 3 }] }));
  };
  const call = (name) => begin({
    data: { chart: "chart" }, parentElement: document.body,
    setTriggerValue: (event, value) => heard.push([name, event, value]),
  });
  const ends = [call("first"), call("second")];
  ends[0]();
  await click();
  listeners = [];
  await click();
  ends[1]();
  await click();
  return heard;
}"""


def test_clicks_are_heard_once_however_often_the_page_is_drawn(browser: Browser):
    page = browser.new_page()
    page.set_content('<div class="st-key-chart"><div class="js-plotly-plot"></div></div>')
    click = ["second", "clicked", {"curve": 1, "x": 2, "y": 3}]
    assert page.evaluate(TWO_CALLS, JS) == [click, click]
    page.close()


def test_a_click_on_a_cell_chooses_its_edge_again_and_again(app: Any):
    app.open("weights")
    app.drawn("edge_distribution-model")
    for stream, layer, source in (("q", 7, 3), ("v", 9, 4), ("r", 11, 0)):
        edge = rf"(?=.*[?&]l={layer}(&|$))(?=.*[?&]j={source}(&|$))(?=.*[?&]rb={layer + 1}(&|$))"
        if stream != "v":
            edge += rf"(?=.*[?&]st={stream}(&|$))"
        choose_cell(app, "token_weights-model", STREAMS.index(stream), source, layer, edge)
        app.settle()
        expect(app.page.locator(".st-key-panel-edge-model h3")).to_contain_text(str(layer))


def test_a_click_on_a_head_or_a_statistic_chooses_it(app: Any):
    app.open("heads")
    app.drawn("attention_maps-model")
    for chart, layer, head in (("head_activity_by_head-model", 4, 2), ("head_scores-model", 6, 3)):
        link = rf"(?=.*[?&]l={layer}(&|$))(?=.*[?&]h={head}(&|$))"
        choose_cell(app, chart, 0, head, layer, link)
        app.settle()
    app.open("weights")
    app.drawn("edge_distribution-model")
    edge = r"(?=.*[?&]st=k(&|$))(?=.*[?&]l=8(&|$))(?=.*[?&]j=3(&|$))"
    # The second stream, of the second statistic.
    choose_cell(app, "dense_weights-model", 5, 3, 8, edge)


def test_a_download_holds_what_the_figure_shows(app: Any, tmp_path: Path):
    app.open("similarity")
    app.drawn("layer_similarity-model")
    traces = app.page.evaluate(
        "() => document.querySelector('.st-key-layer_similarity-model .js-plotly-plot')"
        ".calcdata.map(trace => trace.map(point => [point.x, point.y]))"
    )
    with app.page.expect_download() as download:
        app.page.locator(".st-key-csv-layer_similarity-model button").click()
    download.value.save_as(tmp_path / "numbers.csv")
    frame = pd.read_csv(tmp_path / "numbers.csv")
    told = [
        list(zip(rows["layer"], rows["cosine"], strict=True))
        for _, rows in frame.groupby(["model", "stream"], sort=False)
    ]
    drawn = [trace for trace in traces if len(trace) > 1]
    assert len(drawn) == len(told) == 5
    for trace, rows in zip(sorted(drawn), sorted(told), strict=True):
        np.testing.assert_allclose(trace, rows, rtol=0, atol=1e-6)


def test_link_lines_and_command_are_there_when_they_are_opened(app: Any):
    app.open("similarity")
    app.drawn("layer_similarity-model")
    codes = app.page.locator("[data-testid=stCode]")
    assert codes.count() == 0
    app.page.locator(".st-key-taken-layer_similarity-model button").click()
    expect(codes).to_have_count(3)
    expect(codes.nth(0)).to_contain_text(f"{app.url}/similarity?")
    expect(codes.nth(1)).to_contain_text("layer_similarity")
    expect(codes.nth(2)).to_contain_text("mudd-interp figures --only layer_similarity")
