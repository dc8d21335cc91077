"""Figures as files: HTML that needs no network, and pictures drawn by an installed browser."""

import asyncio
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, get_args

import plotly.graph_objects as go

from mudd_interp.viz.theme import HEIGHT, WIDTH

ImageFormat = Literal["png", "svg", "pdf"]

IMAGE_FORMATS: tuple[ImageFormat, ...] = get_args(ImageFormat)

_INSTALL = (
    "install Chromium or Chrome (on Debian: apt-get install chromium), or set BROWSER_PATH to one"
)


def figure_html(figure: go.Figure, name: str = "figure") -> str:
    """A page that shows the figure in any browser, offline; the same figure gives the same text.

    Args:
        figure: The figure.
        name: The id of the figure's element.
    """
    return figure.to_html(include_plotlyjs=True, full_html=True, div_id=name)


def figure_images(jobs: Iterable[tuple[go.Figure, ImageFormat]], scale: float = 2.0) -> list[bytes]:
    """Pictures of figures, drawn by one browser that is started and stopped here.

    Args:
        jobs: Figures, each with the format in which to draw it.
        scale: Pixels of a PNG for each pixel of the layout.

    Raises:
        ValueError: If there is no browser or no Kaleido, with what to install.
    """
    find_browser()
    # In a thread: where an event loop is already running, as in a notebook, a second one is
    # refused.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, _render(list(jobs), scale)).result()


def find_browser() -> str:
    """The path of the browser that draws pictures; without one, Kaleido would wait forever.

    Raises:
        ValueError: If there is no browser or no Kaleido, with what to install.
    """
    chosen = os.environ.get("BROWSER_PATH")
    if chosen:
        if os.access(chosen, os.X_OK) and Path(chosen).is_file():
            return chosen
        raise ValueError(f"BROWSER_PATH is {chosen!r}, which is not a program: {_INSTALL}.")
    found = _import_kaleido()[1].find_browser(skip_local=False)
    if found is None:
        raise ValueError(f"drawing a picture needs a browser and there is none: {_INSTALL}.")
    return found


def _import_kaleido() -> tuple[Any, Any]:
    try:  # Not at the top of the module: it comes with an extra.
        import kaleido
        from choreographer.browsers.chromium import Chromium
    except ImportError as error:
        raise ValueError(
            "drawing a picture needs Kaleido: pip install 'mudd-interp[export]'."
        ) from error
    return kaleido, Chromium


async def _render(jobs: Sequence[tuple[go.Figure, ImageFormat]], scale: float) -> list[bytes]:
    kaleido, _ = _import_kaleido()
    # Without MathJax, which Kaleido would fetch from the network.
    async with kaleido.Kaleido(mathjax=False) as renderer:
        return [
            await renderer.calc_fig(figure.to_dict(), opts=_options(figure, image_format, scale))
            for figure, image_format in jobs
        ]


def _options(figure: go.Figure, image_format: ImageFormat, scale: float) -> dict[str, Any]:
    layout: Any = figure.layout
    return {
        "format": image_format,
        "width": layout.width or WIDTH,
        "height": layout.height or HEIGHT,
        "scale": scale if image_format == "png" else 1,
    }
