"""Attribution."""

import streamlit as st

import charts
import frame
import widgets

study = frame.open_page(
    "What wrote this prediction, and by which route?",
    "A bar is what one component added to the logit after the chosen token, over all paths; the "
    "bars and one constant add up to it exactly.",
    r"With the weights of each token as they are, the final stream is $\sum_k c_k\, u_k$: the "
    r"outputs $u_k$ of the embedding, of every attention and every FFN, each with a total "
    r"coefficient $c_k$ that sums over all ways through the dense connections. A contribution is "
    r"$c_k\, u_k$ divided by the scale of the final norm, times its gain, onto the direction of "
    "the token in the unembedding. A contribution is not a cause: without the component, the "
    "weights and everything later would be different.",
    scope=False,
)
st.header("Who wrote it?", anchor=False)
with st.container(horizontal=True):
    widgets.token("answer", "the likeliest one")
    widgets.token("against", "nothing")
charts.chart("logit_attribution")

st.header("What would each output predict?", anchor=False)
charts.chart("logit_lens")
for role in study.roles:
    charts.chart_if_fit(study, "stream_lens", of=role)

st.header("What is in one stream, and how did it get there?", anchor=False)
st.markdown(
    "Choose the stream of a block (behind the last one comes the final norm), and a source whose "
    "routes to it are drawn. A cell clicked on the page Weights, or a head, is chosen here too."
)
frame.choose_read(study)
charts.chart("stream_decomposition")
charts.chart("routes")

st.header("How much of everything is in every stream?", anchor=False)
widgets.choice("raw")
for role in study.roles:
    charts.chart("path_coefficients", of=role)
