"""Who may talk to the server: a layer of ASGI in front of Streamlit's.

A browser makes requests for every page that is open in it. Its headers say for which: ``Host`` is
the name that the page's address has (which the owner of a foreign name may point to this machine),
``Origin`` is the page. Both must be the server's own.
"""

import ipaddress
import re
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_PAGES = 64
"""Open pages at once."""

MOST_FILES = 3
"""Uploads that a session may hold; the page itself takes one at a time."""

MOST_UPLOADED = 100 * 2**20
"""Bytes of all uploads that are held in memory together."""

MOST_UPLOADS_AT_ONCE = 4

_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^\s:/?#@\[\]\\]+)(?::[0-9]{1,5})?", re.IGNORECASE)
_CORE = ("health", "host-config", "stream", "upload_file", "bidi-components")
_CLOSED = ("component", "auth", "oauth2callback")
_UPLOAD = "upload_file"

_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self' ws://{host} wss://{host} data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'none'"
)
"""Nothing is loaded from another machine, and no other page may frame this one."""

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """Refuses what does not come from the dashboard's own pages, before Streamlit sees it.

    Args:
        app: What is behind it.
        hosts: The names that a Host header may have, in small letters.
        base: The first part of every path, if the dashboard is not at the root.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str], base: str = ""):
        self._app, self._hosts, self._base = app, hosts, [part for part in base.split("/") if part]
        self._pages = self._uploads = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] == "websocket":
            await self._page(scope, receive, send)
        elif scope["type"] == "http":
            await self._request(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _page(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._refusal(scope) is not None or self._pages >= MOST_PAGES:
            await send({"type": "websocket.close", "code": 1008})  # answers 403
            return
        self._pages += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._pages -= 1
            free_uploads()

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal, is_upload = self._refusal(scope), self._is_upload(scope)
        if refusal is None and is_upload:
            refusal = self._too_many(scope)
        if refusal is not None:
            status, reason = refusal
            await PlainTextResponse(reason + "\n", status)(scope, receive, send)
            return
        self._uploads += is_upload
        try:
            await self._app(scope, receive, _with_headers(scope, send))
        finally:
            self._uploads -= is_upload

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """The status and the reason with which a request is refused."""
        headers = Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or not self._is_ours(hosts[0], scope):
            return 421, (
                "This is a dashboard of mudd-interp, and it does not know the name in this "
                "address. If the name is yours, start it with --allow-host and that name."
            )
        if any(_place(origin) != hosts[0] for origin in origins) or _from_elsewhere(headers):
            return 403, "This dashboard answers its own pages only."
        path = self._path(scope)
        if path[:1] == ["_stcore"] and (path[1:2] or [""])[0] not in _CORE:
            return 404, "There is nothing here."
        return (404, "There is nothing here.") if path and path[0] in _CLOSED else None

    def _is_ours(self, host: str, scope: Scope) -> bool:
        """Whether a Host header has a name of this server, or the address that was reached."""
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        name = found["name"].strip("[]").rstrip(".").lower()
        return name in self._hosts or _is_address(name, scope.get("server"))

    def _path(self, scope: Scope) -> list[str]:
        parts = [part for part in scope["path"].split("/") if part]
        return parts[len(self._base) :] if parts[: len(self._base)] == self._base else parts

    def _is_upload(self, scope: Scope) -> bool:
        return scope["method"] == "PUT" and self._path(scope)[:2] == ["_stcore", _UPLOAD]

    def _too_many(self, scope: Scope) -> tuple[int, str] | None:
        """Why no further file is taken into memory, if so."""
        session, file = (*self._path(scope)[2:4], "", "")[:2]
        held = _held()
        mine = held.get(session, {})
        total = sum(len(each.data) for files in list(held.values()) for each in [*files.values()])
        if len({*mine, file}) > MOST_FILES:
            return 429, f"A page holds {MOST_FILES} uploads at most: remove one first."
        if total >= MOST_UPLOADED or self._uploads >= MOST_UPLOADS_AT_ONCE:
            return 429, "There are too many uploads at once: try again later."
        return None


def free_uploads() -> None:
    """Forget the uploads of sessions whose page is closed: those that were taken are on disk."""
    from streamlit import runtime

    if not runtime.exists():
        return
    instance = runtime.get_instance()
    for session in [*_held()]:
        if not instance.is_active_session(session):
            instance.uploaded_file_mgr.remove_session_files(session)


def _held() -> MutableMapping[str, dict[str, Any]]:
    """The uploads that Streamlit holds in memory, by session and file."""
    from streamlit import runtime

    manager: Any = runtime.get_instance().uploaded_file_mgr if runtime.exists() else None
    return {} if manager is None else manager.file_storage


def _place(origin: str) -> str | None:
    """The name and port of an origin, as a Host header has them."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    return parts.netloc if parts.scheme in ("http", "https") else None


def _from_elsewhere(headers: Headers) -> bool:
    """Whether a page of another site asks for anything but to navigate here."""
    site, mode = headers.get("sec-fetch-site"), headers.get("sec-fetch-mode")
    return site in ("cross-site", "same-site") and mode != "navigate"


def _is_address(name: str, server: tuple[str, int | None] | None) -> bool:
    """Whether a name is the address, in digits, at which the connection came in.

    No foreign name can point there: the page itself would have come from that address.
    """
    try:
        return server is not None and _address(name) == _address(server[0])
    except ValueError:
        return False


def _address(text: str) -> Any:
    address = ipaddress.ip_address(text.split("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def _with_headers(scope: Scope, send: Send) -> Send:
    policy = _POLICY.format(host=Headers(scope=scope)["host"])

    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["Content-Security-Policy"] = policy
            headers.update(_HEADERS)
        await send(message)

    return wrapped
