"""Interventions."""

from collections.abc import Sequence
from typing import Any

import streamlit as st

import charts
import frame
import state
import widgets
from mudd_interp.axes import STREAMS
from mudd_interp.catalog import find
from mudd_interp.catalog.interventions import CUT_SEQUENCES
from mudd_interp.edits import ACTIONS, Edit, edits_text

EXAMPLES = ("cut v 7<-2", "cut head 7.2", "static * *<-*", "shuffle q *<-*")
TARGETS = {"edge": "a connection", "head": "an attention head", "mlp": "an FFN"}
EVERY, HELD = "every", "held"  # the session's notes that all edges are to be cut
CUTS = ("edge_effects", "weight_contribution_cause", "first_order", "static_dynamic")


def put(edits: str) -> None:
    """Take a list of edits; if it is not one, say so and leave everything as it is."""
    try:
        text = edits_text(edits.replace("\n", ";"))
    except ValueError as error:
        state.ignore(f"The edits are as before: {error}")
        return
    state.put(edits=text or None)


def put_corrupted(text: str) -> None:
    """Take a corrupted prompt; if it is too long, say so and leave everything as it is."""
    try:
        frame.check_length("The corrupted prompt", text)
    except ValueError as error:
        state.ignore(f"The corrupted prompt is as before. {error}")
    else:
        state.put(corrupted=text or None)


def add() -> None:
    """Add what the form says."""
    session, part = st.session_state, st.session_state["new_part"]
    values: dict[str, Any] = {"action": "cut", "part": part}
    if part == "edge":
        values |= {"action": session["new_action"], "stream": session["new_stream"]}
        values |= {name: session[f"new_{name}"] for name in ("layer", "source")}
    else:
        values |= {"layer": session["new_layer"] or 0}
        values |= {"head": session["new_head"]} if part == "head" else {}
    before = state.view()["edits"]
    put("; ".join(filter(None, [before, str(Edit(**values))])))


def form(study: Any) -> None:
    """The edits as text, and a form for people who do not know the notation."""
    session, edits = st.session_state, state.view()["edits"]
    if "edits_text" not in session or session["edits_of"] != edits:
        session["edits_text"], session["edits_of"] = (edits or "").replace("; ", "\n"), edits
    st.text_area(
        "Edits, one per line",
        key="edits_text",
        placeholder="\n".join(EXAMPLES),
        on_change=lambda: put(st.session_state["edits_text"]),
        height=110,
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox("Of", [*TARGETS], format_func=TARGETS.__getitem__, key="new_part", width=180)
        part, model = st.session_state["new_part"], study.models["model"]
        cfg, wiring = model.cfg, model.wiring
        last = (wiring.n_rows if part == "edge" else cfg.n_layers) - 1
        if part == "edge":
            st.selectbox("Do", ACTIONS, key="new_action", width=120)
            st.selectbox(
                "Stream", STREAMS, index=None, placeholder="all", key="new_stream", width=110
            )
        word = "After block" if part == "edge" else "Block"
        st.number_input(
            word,
            0,
            last,
            None,
            key="new_layer",
            placeholder="all" if part == "edge" else "0",
            width=140,
        )
        if part == "edge":
            st.number_input(
                "Source",
                0,
                len(wiring.sources) - 1,
                None,
                key="new_source",
                placeholder="all",
                width=140,
            )
        if part == "head":
            st.number_input("Head", 0, cfg.n_heads - 1, 0, key="new_head", width=140)
        st.button("Add", on_click=add)
        st.button("Remove all", on_click=lambda: state.put(edits=None))


def ask(what: str) -> None:
    """Called when all edges are to be cut."""
    st.session_state[what] = True


def cut_every(what: str, label: str, names: Sequence[str], also: Sequence[str] = ()) -> None:
    """Figures for which every edge is cut, when they are asked for or there already.

    Args:
        what: The session's note that they are asked for: a click ends it.
        label: Of the button.
        names: The figures.
        also: Others that are shown beneath.
    """
    wanted = state.view()["sequences"] or CUT_SEQUENCES
    few: dict[str, Any] = {"sequences": min(CUT_SEQUENCES, wanted), "batch_size": 1}
    there = all(charts.is_drawn(name, **few) for name in names)
    if all(charts.is_there(name) for name in names):  # a run on the page Corpus was over all of it
        few, there = {}, True
    begins = st.session_state.pop(what, False) and not there
    if not there:
        with st.container(horizontal=True):
            st.button(label, type="primary", disabled=begins, on_click=ask, args=(what,))
            if begins:
                st.button("Stop", key=f"stop_{what}", icon=":material/stop:")
        if begins:
            st.caption("Anything else that is clicked stops it too.")
    if there or begins:
        for name in names:
            charts.chart(name, **few)
        for name in also:
            charts.chart(name)
    if begins and all(charts.is_drawn(name, **few) for name in names):
        st.rerun()  # without the buttons


study = frame.open_page(
    "What happens if I cut it?",
    "The same edits are made in both models, where they have a meaning: below, what they do to "
    "this prompt, and on average to a text.",
    "`cut v 7<-2`: stream V that enters block 8 (it follows block 7) no longer reads $X_2$; "
    "everything else still does. `cut` sets a weight to 0, `mean` to its mean over the text, "
    "`static` to its learned bias, `plain` to the plain residual, `shuffle` moves the weights of a "
    "stream to other tokens; `*` means all; `@3-5` at the end, at these tokens only. A plain "
    "Transformer has heads, FFNs, and the edge from the newest output.",
)
frame.ask_for(state.EDITS, "a list of edits")
form(study)
if state.view()["edits"] is None:
    st.info("There are no edits yet: write some, or add one.")
else:
    st.caption(state.plain(state.view()["edits"]))
    st.header("On this prompt", anchor=False)
    for name in ("edited_next_tokens", "edited_losses"):
        for role in study.roles:
            charts.chart(name, of=role)
    st.header("On the text", anchor=False)
    st.caption(f"Of a long text, {CUT_SEQUENCES} sequences are taken.")
    charts.chart("edit_effects", **charts.few("edit_effects", study.request))

st.header("What differs between two prompts?", anchor=False)
frame.ask_for(state.CORRUPTED, "a corrupted prompt")
st.session_state["corrupted_text"] = state.view()["corrupted"] or ""
st.text_area(
    "The prompt, corrupted, with the same number of tokens",
    key="corrupted_text",
    placeholder="the prompt with another name or number in it",
    on_change=lambda: put_corrupted(st.session_state["corrupted_text"]),
    height=80,
)
if state.view()["corrupted"] is None:
    st.info("Write a corrupted prompt: each edge in turn then carries what it carries there.")
else:
    with st.container(horizontal=True):
        widgets.token("answer", "the likeliest of the prompt")
        widgets.token("against", "the likeliest of the corrupted one")
    charts.chart("edge_patch")
    charts.chart("state_patch")

st.header("Every edge", anchor=False)
st.markdown(
    f"Each edge is cut in turn, on {CUT_SEQUENCES} sequences at most (on all of them by a run on "
    "the page Corpus): that takes a while. A weight is not a contribution, and a contribution is "
    "not a cause; here they stand side by side."
)
cut_every(EVERY, "Cut every edge", CUTS, ("in_context_loss",))
if find("frozen_live").unfit(study) is None:
    st.subheader("With later weights held", anchor=False)
    st.markdown(
        "A cut moves what follows, and so the weights of later reads: it is *live*. With these "
        "held at what they are without it, it is *frozen*; what differs between the two went "
        "through the weights."
    )
    cut_every(HELD, "Cut every edge once more, with later weights held", ("frozen_live",))
