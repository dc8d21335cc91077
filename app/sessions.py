"""Whose dashboard it is: one person's, or shared by all who reach it.

What one person keeps (runs, uploads) any page finds again, today and tomorrow. Where others reach
the dashboard too, each page keeps its own, in a folder that is removed when the page is closed, and
no file of the machine is read for it.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import streamlit as st

from mudd_interp.dashboard import is_loopback

_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)


def is_shared() -> bool:
    """Whether anyone but the person who started the dashboard may reach it."""
    names = [st.get_option("server.address"), *st.get_option("server.allowedHosts")]
    return not all(is_loopback(name) for name in names if name is not None)


def own_folder() -> Path | None:
    """Where this page keeps its files, if not where everything else is."""
    return Path(_folder().name) if is_shared() else None


@st.cache_resource(show_spinner=False, scope="session", on_release=lambda folder: folder.cleanup())
def _folder() -> "TemporaryDirectory[str]":
    return TemporaryDirectory(prefix="mudd-interp-")


def why_not_here(wanted: Mapping[str, Any]) -> str | None:
    """Why a shared dashboard does not do what is wanted: it would read files of the machine.

    Args:
        wanted: By field, what the person who started the dashboard did not name.
    """
    own = own_folder()
    if own is None:
        return None
    for field in ("model", "baseline", "dataset"):
        name = wanted.get(field)
        if name is not None and (not _HUB_ID.fullmatch(name) or Path(name).exists()):
            why = "it is not a name of the hub, and no folder of this machine is read"
            return f"{field} {name}: {why}"
    text = wanted.get("text")
    # As it is spelled: nothing is looked up for a name that somebody sent.
    if text is not None and (not Path(text).is_relative_to(own) or ".." in Path(text).parts):
        return f"text {text}: not uploaded on this page, and no other file of this machine is read"
    return None
