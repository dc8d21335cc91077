"""Images."""

import streamlit as st

import charts
import frame
import state
import widgets
from mudd_interp.checkpoints.names import PAIRS
from mudd_interp.pictures import reads_images

study = frame.open_page(
    "What does it see, and where does it look?",
    "A Vision Transformer reads an image as a row of patches. Here is what each patch reads, and "
    "how much of the answer comes from it.",
)
if not reads_images(study.models["model"]):
    st.info(
        f"This page is for models that read images, and {state.plain(study.name('model'))} reads "
        "text. Name such a model at the side, or look at the bundled pair."
    )
    if st.button("Open the bundled pair"):
        model, baseline = PAIRS[1]
        state.put(model=model, baseline=baseline)
        st.rerun()
    st.stop()
st.header("What speaks for the class?", anchor=False)
with st.container(horizontal=True):
    widgets.token("answer", "the likeliest class")
    widgets.token("against", "nothing")
charts.chart("class_attribution")


def each(name: str) -> None:
    """A figure of one model, of each over the whole width: maps need room."""
    for role in study.roles:
        charts.chart(name, of=role)


@frame.section
def one_block() -> None:
    """Attention of a block's heads, and dense weights behind it, over the image."""
    st.header("Where do the heads of a block look?", anchor=False)
    st.markdown("Choose a block here, and a patch in the picture above.")
    frame.choose_edge(study)
    each("attention_over_image")
    each("relative_offsets")
    st.header("Which depth does each patch read?", anchor=False)
    st.markdown("Of the stream and the source that are chosen above.")
    each("weights_over_image")


st.header("What would rollout say?", anchor=False)
each("attention_rollout")
st.header("Over all images", anchor=False)
charts.prepare("patch_similarity", "patch_sinks")
charts.chart("patch_similarity")
charts.chart("patch_sinks")
