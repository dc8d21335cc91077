"""Attention heads."""

from dataclasses import replace
from typing import Any

import streamlit as st

import charts
import clicks
import frame
import state
import widgets


def choose_head(_: int, x: float, y: float) -> None:
    """Called when a cell was clicked."""
    models = study.models.values()
    layers, heads = (min(getattr(m.cfg, n) for m in models) for n in ("n_layers", "n_heads"))
    if x < heads and y < layers:
        state.put(layer=int(y), head=int(x), block=int(y))


def choose_scored(curve: int, x: float, y: float) -> None:
    """The same for a score: behind each model's map and its ranks come the curves."""
    if curve < 2 * len(study.roles):
        choose_head(curve, x, y)


study = frame.open_page(
    "Which heads are awake?",
    "A head sleeps at a token when it looks at a sink: the first positions, or a token that "
    "says nothing. The share of tokens at which it does not is its activity.",
    "Activity is the share of (sequence, position) at which the largest attention weight, the "
    "first one on ties, falls neither on the first positions nor on a sink token: Figure 8 of "
    "the paper. By default the sinks are positions 0 and 1 and the tokens that read `<bos>`, "
    "`<|endoftext|>`, `.` or a newline.",
)
st.header("How active are they?", anchor=False)
with st.container(horizontal=True):
    widgets.number("sink_positions", width=220)
    widgets.ids("sinks", "those of the paper")
charts.prepare("head_activity", "sink_sensitivity", "head_scores")
charts.chart("head_activity")
charts.chart("head_activity_by_head")
charts.chart("sink_sensitivity")


@frame.section
def what_they_do() -> None:
    """The heads by score."""
    st.header("What do they do?", anchor=False)
    st.markdown(
        "Scores are attention probabilities on random tokens that are repeated three times; "
        "activity and entropy are over the text. The table below the picture holds them all: click "
        "a column to sort."
    )
    widgets.choice("score", width=220)
    charts.chart("head_scores", table=True)
    charts.chart("head_scores_by_depth")


@frame.section
def where_they_look() -> None:
    """One head, and all of its layer, on the prompt."""
    st.header("Where do they look on this prompt?", anchor=False)
    st.markdown("Choose a head here, or click it in one of the maps above.")
    with st.container(horizontal=True):
        frame.choose_layer(study)
        widgets.number("head", min(model.cfg.n_heads for model in study.models.values()) - 1)
    charts.chart("attention_head")
    clicks.clicks("head_activity_by_head-model", "activity_clicks", choose_head)
    clicks.clicks("head_scores-model", "score_clicks", choose_scored)
    charts.chart("attention_maps")
    charts.chart("attention_maps_baseline")


st.header("What does the strongest induction head read?", anchor=False)
for role in study.roles:
    place: dict[str, Any] = {"layer": None, "head": 0, "of": role}
    few = charts.few("head_composition", replace(study.request, **place))
    charts.chart("head_composition", **place, **few)
