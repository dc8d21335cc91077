"""Pictures: drawn by a browser, if there is one."""

import os

import pytest
from plotly import graph_objects as go

from mudd_interp import viz
from mudd_interp.viz.theme import MUDD


@pytest.mark.slow
def test_pictures_of_every_format():
    try:
        viz.find_browser()
    except ValueError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    figure = go.Figure(MUDD.trace(x=[0, 1], y=[1, 0]), layout={"width": 300, "height": 200})
    png, svg, pdf = viz.figure_images([(figure, f) for f in viz.IMAGE_FORMATS], scale=2.0)
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(png[16:20]), int.from_bytes(png[20:24])) == (600, 400)
    assert svg.startswith(b"<svg")
    assert pdf.startswith(b"%PDF")
