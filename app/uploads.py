"""Uploaded texts: looked at before they are taken, kept as files of the cache folder."""

import re
from pathlib import Path

import sessions
from mudd_interp.dashboard import LARGEST_UPLOAD
from mudd_interp.documents import decoded
from mudd_interp.files import sha256, write_bytes
from shelf import cache_folder, prune

LARGEST = LARGEST_UPLOAD * 2**20
"""Bytes of an upload; the server takes no more."""

UPLOADS_LIMIT = 100 * 10**6
"""Bytes of all uploads together; beyond that the oldest go."""


def keep(name: str, data: bytes) -> Path:
    """Check an uploaded text and keep it, under its digest and a plain form of its name.

    Raises:
        ValueError: If it is empty, too large, or not UTF-8 text.
        OSError: If it cannot be written.
    """
    _check(name, data)
    folder = (sessions.own_folder() or cache_folder()) / "uploads"
    path = folder / sha256(data)[:16] / _plain(name)
    write_bytes(path, data)
    prune(folder, UPLOADS_LIMIT)
    return path


def _check(name: str, data: bytes) -> None:
    if len(data) > LARGEST:
        raise ValueError(
            f"{name} has {len(data) / 2**20:,.1f} MiB, and an upload may have {LARGEST_UPLOAD}: "
            "cut it, or give the path of a folder with smaller files."
        )
    text = "".join(decoded([data], name))
    if not text.strip():
        raise ValueError(f"{name} is empty: give a file with text.")


def _plain(name: str) -> str:
    """A name that is safe for a file and in a link."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)[-60:].lstrip(".") or "upload.txt"


def digest_of(text: str | None) -> str | None:
    """The first digits of an upload's sha256, or ``None`` if the text is not an upload."""
    folder = Path(text or "").parent
    is_upload = folder.parent.name == "uploads" and re.fullmatch("[0-9a-f]{16}", folder.name)
    return folder.name if is_upload else None


def why_missing(text: str | None) -> str | None:
    """What to do about a text of the view that is not on this machine; ``None`` if it is."""
    if text is None or Path(text).exists():
        return None
    digest = digest_of(text)
    if digest is None:
        return (
            f"The text of this view, {text}, is not on this machine: choose another one on the "
            "page Corpus."
        )
    return (
        f"This view is over an upload, {Path(text).name} (sha256 {digest}…), and a link does not "
        "carry uploads: upload that file on the page Corpus, or choose another text there."
    )
