"""Which text averages are over: the bundled one, an upload, a file or folder."""

from pathlib import Path

import streamlit as st

import sessions
import state
import uploads
import widgets
from mudd_interp.dashboard import LARGEST_UPLOAD

TEXTS = {
    "bundled": "the bundled held-out text",
    "upload": "an uploaded file",
    "path": "a file or folder on this machine",
}


def choose_text() -> None:
    """Which text, and how much of it."""
    session, view = st.session_state, state.view()
    names = (view["text"], view["dataset"])
    if "text_kind" not in session or session.get("text_of") != names:
        session["text_kind"], session["text_of"] = kind_of(*names), names
    st.segmented_control(
        "Text",
        [kind for kind in TEXTS if kind != "path" or not sessions.is_shared()],
        required=True,
        format_func=lambda kind: TEXTS[kind],
        key="text_kind",
        on_change=take_kind,
    )
    if session["text_kind"] == "path":
        if "path" not in session or session["path_of"] != view["text"]:
            session["path"], session["path_of"] = view["text"] or "", view["text"]
        st.text_input("File or folder (UTF-8)", key="path", on_change=take_path, width=640)
    if session["text_kind"] == "upload":
        st.file_uploader(
            "Text file (UTF-8)",
            key="upload",
            on_change=take_upload,
            max_upload_size=LARGEST_UPLOAD,
        )
        st.caption(
            "An upload stays on the machine that runs this app. A link names it and does not carry "
            "it: elsewhere the link asks for the file."
        )
    if error := session.pop("text_error", None):
        st.error(f"**The text is still the one before.** {state.plain(error)}")
    session["all_sequences"] = view["sequences"] is None
    with st.container(horizontal=True, vertical_alignment="bottom"):
        widgets.number("sequences", width=180, disabled=session["all_sequences"])
        st.toggle("All of the text", key="all_sequences", on_change=take_all)


def kind_of(text: str | None, dataset: str | None) -> str:
    """Which of :data:`TEXTS` the view's text is."""
    if text is None and dataset is None:
        return "bundled"
    return "path" if uploads.digest_of(text) is None else "upload"


def take_kind() -> None:
    """Called when another kind of text was chosen; a file is still to be named."""
    if st.session_state["text_kind"] == "bundled":
        state.put(text=None, dataset=None)


def take_path() -> None:
    """Called when a path was typed."""
    if typed := st.session_state["path"].strip():
        try:
            path = Path(typed).expanduser().resolve(strict=True)
        except (OSError, ValueError, RuntimeError):  # the last for ~nobody
            st.session_state["text_error"] = f"There is no file or folder {typed}: check the path."
        else:
            state.put(text=str(path), dataset=None)


def take_upload() -> None:
    """Called when a file was chosen, or taken away."""
    file = st.session_state["upload"]
    if file is None:
        return
    try:
        state.put(text=str(uploads.keep(file.name, file.getvalue())), dataset=None)
    except (ValueError, OSError) as error:
        st.session_state["text_error"] = str(error)


def take_all() -> None:
    """Called when all of the text was chosen, or no longer."""
    chosen = st.session_state["all_sequences"]
    state.put(sequences=None if chosen else state.FIELDS["sequences"].default)
