"""The dashboard: what every page shares, and the way between pages."""

import argparse
import sys
from pathlib import Path

import streamlit as st

import frame
import state

HERE = Path(__file__).parent

# A picture of our own: Streamlit's named icons and emoji come from another machine here.
st.set_page_config(page_title="mudd-interp", page_icon=HERE / "icon.svg", layout="wide")
st.html(HERE / "style.css")
if st.context.theme.type == "dark":
    st.html(HERE / "dark.css")

# The folder is not called pages: Streamlit would run a page of that folder without this script,
# when that page's address is the first that a new process serves.
PAGES = [
    st.Page("views/overview.py", title="Overview", default=True),
    st.Page("views/similarity.py", title="Layer similarity", url_path="similarity"),
    st.Page("views/weights.py", title="Dense weights", url_path="weights"),
    st.Page("views/heads.py", title="Attention heads", url_path="heads"),
    st.Page("views/attribution.py", title="Attribution", url_path="attribution"),
    st.Page("views/interventions.py", title="Interventions", url_path="interventions"),
    st.Page("views/vision.py", title="Images", url_path="images"),
    st.Page("views/corpus.py", title="Corpus", url_path="corpus"),
    st.Page("views/about.py", title="About", url_path="about"),
]


def start() -> dict[str, str | None]:
    """The models that the command named."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for role in ("model", "baseline"):
        parser.add_argument(f"--{role}", default=state.FIELDS[role].default)
    given = vars(parser.parse_known_args(sys.argv[1:])[0])
    return {role: None if name == "none" else name for role, name in given.items()}


page = st.navigation(PAGES, position="hidden")
state.open_view(start())
frame.sidebar(PAGES)
frame.guarded(page.run)
state.write_link()
