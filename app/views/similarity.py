"""Layer similarity."""

import streamlit as st

import charts
import frame

frame.open_page(
    "Do the inputs stay distinct?",
    "A curve near 1 means that a block reads almost what the block before it read; where a curve "
    "falls, a stream brings something new.",
    "The mean over sequences and positions of "
    r"$\cos(x_l, x_{l-1})$, where $x_l$ is the input of block $l$ on one stream, before its norm: "
    "Figure 6 of the paper. A plain Transformer has one input for all four, drawn as stream R.",
)
st.header("Blocks, one after another", anchor=False)
charts.prepare("layer_similarity", "stream_norms", "similarity_matrix")
charts.chart("layer_similarity")
charts.chart("stream_norms")
st.header("Every block with every other", anchor=False)
charts.chart("similarity_matrix")
