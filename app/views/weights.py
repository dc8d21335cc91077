"""Dense weights."""

import streamlit as st

import charts
import clicks
import frame
import state
import widgets
from mudd_interp.request import Statistic


def at_token(statistic: Statistic | None) -> Statistic | None:
    """What a statistic over many tokens is at a single one."""
    return statistic if statistic in ("static", "dynamic") else None


def over_paths(statistic: Statistic | None) -> Statistic | None:
    """What a statistic is of weights over all paths, which have no static and dynamic part."""
    return statistic if statistic in ("mean", "std") else None


def choose_edge(curve: int, x: float, y: float) -> None:
    """Called when a cell is clicked: each triangle is one stream, of one statistic."""
    wiring = study.models["model"].wiring
    stream = wiring.streams[curve % len(wiring.streams)]
    reader = wiring.row(stream, int(y)).layer
    state.put(stream=stream, layer=int(y), source=int(x), block=reader)


study = frame.open_page(
    "What does each stream read?",
    "Each triangle is one stream: a row is the aggregation after a block, a column an earlier "
    "output that it reads; a plain Transformer reads the newest output only.",
    r"$X^{s}_{i} = \sum_j W^{s}_{i j}(t)\, X_j$ for the streams $s$ = Q, K, V, R: equations 4 "
    "to 8 of the paper. Rectified weights (Figures 12 and 13) are multiplied by the mean norm of "
    "their source, so that columns can be compared. A weight is not a contribution, since $X_j$ "
    "contains what it read itself; and a contribution is not a cause.",
)
widgets.choice("raw")


@frame.section
def every_edge() -> None:
    """All weights, over the text and at the chosen token."""
    st.header("Over the text", anchor=False)
    widgets.choice("statistic", known=("mean", "std", "static", "dynamic"))
    charts.prepare("dense_weights", "edge_distribution")
    charts.chart("dense_weights")
    if state.view()["mode"] in ("overlay", "difference") or state.view()["baseline"] is None:
        charts.chart("dense_weights_baseline", mode=None)

    st.header("At the chosen token", anchor=False)
    charts.chart("token_weights", statistic=at_token(state.view()["statistic"]))


@frame.section
def every_sublayer() -> None:
    """W between single sublayers, which any two architectures have in common."""
    st.header("Between single sublayers", anchor=False)
    st.markdown(
        "How much of what each attention and FFN wrote is in what each of them reads, over all "
        "ways through the connections: the one table that any two architectures have in common."
    )
    charts.chart("delta_weights", statistic=over_paths(state.view()["statistic"]))
    charts.chart_if_fit(study, "stream_mixing")
    for role in study.roles:
        charts.chart_if_fit(study, "stream_weights", of=role)


@frame.section
def one_edge() -> None:
    """One weight, over the tokens of the prompt and over the text."""
    st.header("One edge", anchor=False)
    st.markdown(
        "Which stream, after which block, reads which earlier output: choose here, or click a cell "
        "of the triangles above."
    )
    frame.choose_edge(study)
    charts.chart("edge")
    charts.chart("edge_distribution")
    clicks.clicks("dense_weights-model", "statistic_clicks", choose_edge)
    clicks.clicks("token_weights-model", "weight_clicks", choose_edge)
