"""About."""

import platform
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import streamlit as st

import frame
import mudd_interp
from mudd_interp.checkpoints.names import BUNDLED_FOLDER
from mudd_interp.figures import VERSIONED

st.title("What do the words mean, and where is all this from?", anchor=False)
st.markdown("What is computed, what it cannot say, how to cite it, and in which versions.")
frame.say_notices()
st.markdown((Path(__file__).parents[1] / "about.md").read_text(encoding="utf-8"))
with st.expander("Model card of mudd-tiny and tfm-tiny"):
    st.markdown((BUNDLED_FOLDER / "README.md").read_text(encoding="utf-8"))

st.header("Versions", anchor=False)
versions = {"mudd-interp": mudd_interp.__version__, "Python": platform.python_version()}
versions |= {name: version(name) for name in (*VERSIONED, "streamlit")}
st.table(pd.DataFrame(versions.items(), columns=["package", "version"]).set_index("package"))
