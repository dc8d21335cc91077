"""A figure of the catalog on a page: drawn, described, tabulated, and ready to be reproduced."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from html import unescape
from typing import Any

import streamlit as st

import caches
import state
from mudd_interp.catalog import Drawn, FigureKind, draw_kind, find, python_code, shell_command
from mudd_interp.catalog.interventions import CUT_SEQUENCES
from mudd_interp.figures import csv_bytes
from mudd_interp.request import ROLES, Request
from mudd_interp.study import Need, Study
from mudd_interp.viz import alt_text, dark
from progress import bar

TITLE_HEIGHT, LINE_HEIGHT = 40, 15
"""Pixels of a figure's title, and of each line below it, which a page writes itself."""

SQUARE_HEIGHT = 460
"""Pixels of a figure with square cells that has half of the page."""

LONG_TEXT = 128
"""No average over more sequences than this begins unasked; nor over fewer, if they are long."""

USUAL_CONTEXT = 256
"""Tokens of a sequence in a request that does not say."""

CONFIG = {"displaylogo": False}


@dataclass(frozen=True)
class Panel:
    """A figure as a page shows it; shared by all sessions, so nobody changes it.

    Attributes:
        title: The figure's title, as Markdown.
        lines: The definition and what it was computed on, likewise.
        figure: The figure without title and lines, for a light or a dark page; frozen.
        alt: The figure in words.
        drawn: The figure of the catalog and its numbers.
    """

    title: str
    lines: tuple[str, ...]
    figure: caches.Frozen
    alt: str
    drawn: Drawn


def prepare(*names: str) -> None:
    """Compute what several figures of the view need, with one walk for each model and text.

    The charts themselves say what fails, and what takes long waits there.
    """
    with caches.failing(lambda _: None):
        study = caches.study(state.request())
        kinds = [kind for name in names if (kind := find(name)).unfit(study) is None]
        needs = [need for kind in kinds for need in kind.needs(study)]
        short = [need for need in needs if not waits(study, [need])]
        with bar(partial(_sequences, study, short)) as progress:
            caches.study(study.request, progress).prepare(short)


def chart(name: str, *, table: bool = False, **values: Any) -> None:
    """Draw a figure of the catalog from the view.

    A figure of one model is drawn of each when they stand side by side. Where one cannot be drawn,
    the page says so.

    Args:
        name: The figure's name in the catalog.
        table: Whether its numbers are open from the start.
        **values: Fields of the request that this chart fixes.
    """
    kind, request = find(name), replace(state.request(), **values)
    notice, both = "", request.baseline is not None
    if kind.of_baseline and not both:
        st.info(f"**{kind.title}**: it shows the baseline, and there is none.")
        return
    if not both:
        request = replace(request, mode=None, of="model")
    if request.mode is not None and request.mode not in kind.modes:
        notice = _why_not(kind, request)
        request = replace(request, mode=None)
    if kind.single and both and kind.mode(request) == "side_by_side" and "of" not in values:
        with st.container(key=f"pair-{kind.name}"):
            columns = st.columns(2)
        for column, role in zip(columns, ROLES, strict=True):
            with column:
                _panel(kind, replace(request, of=role), notice, table, half=True)
    else:
        _panel(kind, request, notice, table)


def chart_if_fit(study: Study, name: str, **values: Any) -> None:
    """:func:`chart`, of models that have what it shows; nothing at all of others."""
    if find(name).unfit(study.with_request(replace(study.request, **values))) is None:
        chart(name, **values)


def _why_not(kind: FigureKind, request: Request) -> str:
    assert request.mode is not None
    mode = request.mode.replace("_", " ")
    reason = kind.why_not.get(request.mode)
    return f"Not drawn as {mode}: {reason}." if reason else f"Not drawn as {mode}."


def _panel(
    kind: FigureKind, request: Request, notice: str, table: bool, half: bool = False
) -> None:
    key = f"{kind.name}-{request.of}"

    def say(reason: str) -> None:
        st.error(f"**{kind.title}** cannot be drawn: {state.plain(reason)}")

    with st.container(border=True, key=f"panel-{key}"), caches.failing(say):
        kind.check(request)
        study = caches.study(request)
        request = study.request
        if reason := kind.unfit(study):
            st.info(f"**{kind.title}**: {state.plain(reason)}")
            return
        if waits(study, kind.needs(study)):
            st.info(f"**{kind.title}** is over a long text that has not been read yet.")
            st.page_link("views/corpus.py", label="Run it on the page Corpus")
            return
        panel = _drawn(kind, request, half)
        st.subheader(panel.title, anchor=False)
        st.caption("  \n".join((*panel.lines, state.plain(notice))))
        st.plotly_chart(panel.figure, key=key, theme=None, config=CONFIG, alt=panel.alt)
        _footer(kind, request, panel.drawn, key, table)


def _drawn(kind: FigureKind, request: Request, half: bool) -> Panel:
    """The figure, drawn once for each value of what it depends on."""
    study = caches.study(request)

    def draw() -> Panel:
        with bar(partial(_sequences, study, kind.needs(study))) as progress:
            return _as_panel(draw_kind(kind, caches.study(request, progress)), _page(), half)

    return caches.drawing(kind, study, _place(half), draw)


def is_drawn(name: str, **values: Any) -> bool:
    """Whether :func:`chart` has nothing to compute, for a figure in its own mode."""
    request = replace(state.request(), **values)
    return caches.is_drawn(find(name), caches.study(request), _place(half=False))


def is_there(name: str, request: Request | None = None) -> bool:
    """Whether everything that a figure is computed from is there already."""
    with caches.failing(lambda _: None):  # the chart says what fails
        study = caches.study(request or state.request())
        return not study.walks(find(name).needs(study))
    return False


def _page() -> str:
    return st.context.theme.type or "light"


def _place(half: bool) -> str:
    return f"{_page()}, {'half' if half else 'whole'} width"


def waits(study: Study, needs: Iterable[Need]) -> bool:
    """Whether a long walk is missing: a run on the page Corpus makes it, if asked."""
    walks = [next(iter(walk.values())) for walk in study.walks(needs)]
    return any(_is_long(study, need) for need in walks)


def _is_long(study: Study, need: Need) -> bool:
    if need.text == "repeated" or (need.text == "scope" and study.request.scope == "prompt"):
        return False
    count = study.at_most(need)
    return count is None or count > _most(study.request)


def few(name: str, request: Request) -> dict[str, Any]:
    """A few sequences of a long text, for a costly figure, unless everything is there already."""
    if request.sequences is not None and request.sequences <= _most(request):
        return {}
    return {} if is_there(name, request) else {"sequences": CUT_SEQUENCES}


def _most(request: Request) -> int:
    """How many sequences are read unasked."""
    return LONG_TEXT * USUAL_CONTEXT // max(USUAL_CONTEXT, request.context or 0)


def _as_panel(drawn: Drawn, page: str, half: bool) -> Panel:
    """Take title and definition out of a figure: as text of the page, their lines can break."""
    figure: Any = dark(drawn.figure) if page == "dark" else drawn.figure
    alt, layout = alt_text(figure), figure.layout
    heading = _as_text(layout.title.text)
    lines = tuple(_as_text(layout.meta[name]) for name in ("definition", "source"))
    height = TITLE_HEIGHT + LINE_HEIGHT * len(layout.title.subtitle.text.split("<br>"))
    top = layout.margin.t - height
    height = layout.height - height
    if half and layout.yaxis.scaleanchor:
        height = min(height, SQUARE_HEIGHT)
    figure.update_layout(title=None, height=height, margin_t=top)
    return Panel(heading, lines, caches.Frozen(figure), alt, drawn)


def _as_text(html: str) -> str:
    return state.plain(unescape(re.sub("<[^>]*>", "", html)))


def _footer(kind: FigureKind, request: Request, drawn: Drawn, key: str, table: bool) -> None:
    with st.container(horizontal=True):
        st.download_button(
            "CSV",
            data=partial(csv_bytes, drawn),
            file_name=f"{kind.name}.csv",
            mime="text/csv",
            on_click="ignore",
            icon=":material/download:",
            key=f"csv-{key}",
        )
        # What is closed is not sent: these are most of a page's elements.
        taken = st.popover(
            "Link, Python, command",
            icon=":material/link:",
            on_change="rerun",
            key=f"taken-{key}",
        )
    if taken.open:
        with taken:
            st.caption("This view")
            st.code(state.link(), language=None, wrap_lines=True)
            st.caption("This figure and its numbers in Python")
            st.code(python_code(kind, request), language="python")
            st.caption("On the command line")
            st.code(shell_command(kind, request), language="bash", wrap_lines=True)
    label = f"Numbers: {len(drawn.frame):,} rows"
    numbers = st.expander(label, expanded=table, on_change="rerun", key=f"numbers-{key}")
    if numbers.open:
        numbers.dataframe(drawn.frame, hide_index=True)


def _sequences(study: Study, needs: Iterable[Need]) -> int:
    """How many sequences there are to see in all walks together; 0 where that is not known."""
    walks = [next(iter(walk.values())) for walk in study.walks(needs)]
    counts = [study.walked(need).n_sequences for need in walks]
    return sum(count or 0 for count in counts) if all(counts) else 0
