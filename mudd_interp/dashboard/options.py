"""Streamlit's options: each is fixed here, or is the user's to choose.

Streamlit takes options from a file in the home folder, from one in the working folder (which may be
somebody else's repository), and from variables. Those that loosen security, or that make the server
or a browser contact another machine, have one value here wherever they are set; a test compares the
table with all options that the installed Streamlit knows.
"""

import ipaddress
import os
import re
import secrets
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

LARGEST_UPLOAD = 5
"""MiB of an uploaded text: it is read and encoded in one piece, with some 250 bytes per byte."""

LARGEST_MESSAGE = 4
"""MiB of a message from a browser: its widgets, which include the longest prompt three times."""

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""This machine's names for itself."""

WILDCARDS = ("0.0.0.0", "::")
"""Hosts that mean every address of this machine."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?|[0-9a-f:]*:[0-9a-f:.]*", re.IGNORECASE)

_OFF = "an interface that the dashboard does not use, and that others could"
_OURS = "part of how the dashboard is made"
_TEST = "lets a browser end the server, for Streamlit's own tests"
_WATCH = "source files do not change while it runs; watching them costs seconds"
_NO_AGENT = "of the agent interface, which is off"
_OUTSIDE = "would be loaded from another machine"

PINNED: Mapping[str, tuple[Any, str]] = {
    "global.developmentMode": (False, "accepts requests from any origin"),
    "global.e2eTest": (False, _TEST),
    "global.unitTest": (False, _TEST),
    "global.appTest": (False, _TEST),
    "global.disableWidgetStateDuplicationWarning": (False, _OURS),
    "global.showWarningOnDirectExecution": (True, _OURS),
    "global.suppressDeprecationWarnings": (False, _OURS),
    "global.minCachedMessageSize": (10_000.0, "memory of the server"),
    "global.maxCachedMessageAge": (2, "memory of the server"),
    "client.showErrorDetails": ("type", "a traceback shows paths and values of this machine"),
    "client.toolbarMode": ("viewer", "the other menus clear caches and offer to deploy"),
    "client.disableDataExport": (False, _OURS),
    "client.showSidebarNavigation": (True, _OURS),
    "client.showErrorLinks": (False, "an error's text would go to a search engine or a chat"),
    "client.allowedOrigins": ([], "pages of these origins may steer the dashboard in a frame"),
    "runner.magicEnabled": (False, "a text that stands alone in a source is for its reader"),
    "runner.postScriptGC": (True, "memory of the server"),
    "runner.fastReruns": (True, "without it a click, or a closed page, ends no computation"),
    "runner.enforceSerializableSessionState": (False, _OURS),
    "runner.enumCoercion": ("nameOnly", _OURS),
    "runner.parallelMaxWorkers": (None, _OURS),
    "runner.cacheBackgroundRefreshMaxWorkers": (4, _OURS),
    "runner.cacheBackgroundRefreshTTLMultiplier": (2.0, _OURS),
    "runner.connectionDefaultTTL": (None, _OURS),
    "runner.cacheHashSeed": (0, _OURS),
    "server.folderWatchList": ([], _WATCH),
    "server.folderWatchBlacklist": ([], _WATCH),
    "server.fileWatcherType": ("none", _WATCH),
    "server.runOnSave": (False, _WATCH),
    "server.allowRunOnSave": (False, _WATCH),
    "server.enableExpensiveMemoryStats": (False, _OFF),
    "server.maxCacheDataSize": (None, "the dashboard bounds its caches itself"),
    "server.showEmailPrompt": (False, "asks for an address to send to Streamlit"),
    "server.scriptHealthCheckEnabled": (False, _OFF),
    "server.customComponentBaseUrlPath": ("", "components " + _OUTSIDE),
    "server.enableCORS": (True, "otherwise any page may read and steer the dashboard"),
    "server.corsAllowedOrigins": ([], "these pages may read and steer the dashboard"),
    "server.enableXsrfProtection": (True, "otherwise any page may upload"),
    "server.xsrfCookieSameSite": ("strict", "no page of another site sends the cookie along"),
    "server.maxUploadSize": (LARGEST_UPLOAD, "more is refused before it is read"),
    "server.maxMessageSize": (200, "of figures; what a browser sends is bounded apart"),
    "server.maxWidgetStateSize": (LARGEST_MESSAGE, "memory of the server"),
    "server.enableWebsocketCompression": (False, "a small message could unpack to a large one"),
    "server.websocketPingInterval": (None, _OURS),
    "server.enableStaticServing": (False, "would serve files of a folder"),
    "server.disconnectedSessionTTL": (120, "memory of the server"),
    "server.enableAgentApi": (False, _OFF),
    "server.agentWaitTimeout": (30, _NO_AGENT),
    "server.agentSessionTTL": (900, _NO_AGENT),
    "server.agentMaxSessions": (100, _NO_AGENT),
    "server.agentPreviewRows": (100, _NO_AGENT),
    "server.trustedUserHeaders": ({}, "anybody can send a header"),
    "server.unsafeMetricsUserAttributes": ([], _OFF),
    "browser.serverAddress": ("localhost", "its pages may upload"),
    "browser.gatherUsageStats": (False, "usage statistics go to Streamlit"),
    "logger.hideWelcomeMessage": (True, "asks a service outside for this machine's address"),
    "ui.hideTopBar": (False, _OURS),
    "magic.displayRootDocString": (False, _OURS),
    "magic.displayLastExprIfNoSemicolon": (False, _OURS),
    "secrets.files": ([], "there are no secrets, and a log-in of these files would be offered"),
}
"""By name, an option's value, and what it would do otherwise."""

SET_AT_START = (
    "server.address",
    "server.port",
    "server.headless",
    "server.allowedHosts",
    "server.cookieSecret",
    "browser.serverPort",
)
"""Options that :func:`options_of` sets, from the command's."""

BY_VARIABLE = ("server.baseUrlPath", "server.sslCertFile", "server.sslKeyFile")
"""Options that only a variable may set: a file of the working folder may not."""

FREE = ("logger.level", "logger.messageFormat", "logger.enableRich")
"""Options that any file may set; colours and sizes of the theme are free too."""

THEME_OUTSIDE = ("font", "headingFont", "codeFont", "fontFaces")
"""Values of a theme that may be addresses: what they name would be loaded from there."""

FONTS = ("sans-serif", "serif", "monospace", [])
"""Values of these that are not addresses."""

BASES = ("light", "dark")


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where the dashboard is served, and under which names.

    Attributes:
        host: The address it listens on.
        port: The port; ``None`` for 8501 or the next one that is free.
        headless: Whether no browser is opened.
        names: Names besides this machine's own, for instance a proxy's.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    headless: bool = False
    names: tuple[str, ...] = ()

    @property
    def hosts(self) -> frozenset[str]:
        """What the Host header may name besides the address that was reached, in lower case."""
        own = () if self.host in WILDCARDS else (self.host,)
        return frozenset(name.lower() for name in (*LOOPBACK, *own, *self.names))

    @property
    def shared(self) -> bool:
        """Whether anyone but the person who started it may reach it."""
        return bool(self.names) or not is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether an address or a name is this machine's name for itself."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.casefold() == "localhost"


def address_of(
    host: str | None, port: int | None, headless: bool, names: Sequence[str], files: Sequence[Path]
) -> Address:
    """Where to serve: as the command says, else a variable, else (except the address) a file.

    Raises:
        ValueError: If a name or a number is not valid.
    """
    for name in (host, *names):
        if name is not None and not _NAME.fullmatch(name):
            raise ValueError(f"expected a name or an address such as 192.0.2.7, got {name!r}.")
    in_files = {key: value for file in files for key, value in set_in(file).items()}
    numbers = (port, os.environ.get("STREAMLIT_SERVER_PORT"), in_files.get("server.port"))
    quiet = os.environ.get("STREAMLIT_SERVER_HEADLESS", in_files.get("server.headless"))
    return Address(
        host=host or os.environ.get("STREAMLIT_SERVER_ADDRESS") or "127.0.0.1",
        port=next((_port(each) for each in numbers if each is not None), None),
        headless=headless or (_no_screen() if quiet is None else _same(str(quiet), True)),
        names=tuple(names),
    )


def _port(value: object) -> int:
    text = str(value)
    if not text.isdecimal() or not 0 <= int(text) < 2**16:
        raise ValueError(f"expected a port from 0 to 65535, got {text!r}.")
    return int(text)


def _no_screen() -> bool:
    """Whether there is no screen that a browser could be opened on."""
    return sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()


def options_of(address: Address, files: Iterable[Path] = ()) -> dict[str, Any]:
    """Every option that is not the user's to set in a file, with its value.

    Args:
        address: Where to serve.
        files: Streamlit's settings files, for the base of the theme.
    """
    known = declared()
    bases = [set_in(file).get("theme.base") for file in files]
    base = next((each for each in reversed(bases) if each in BASES), None)
    outside = (n for n in known if n.startswith("theme.") and n.split(".")[-1] in THEME_OUTSIDE)
    return {
        **{name: value for name, (value, _) in PINNED.items()},
        **dict.fromkeys(outside),
        **{n: os.environ.get(known[n].env_var, known[n].default_val) for n in BY_VARIABLE},
        "theme.base": base,
        "server.address": address.host,
        "server.port": address.port,
        "server.headless": address.headless,
        # Any name if it listens on all addresses: the guard in front knows which was reached.
        "server.allowedHosts": ["*"] if address.host in WILDCARDS else sorted(address.hosts),
        "server.cookieSecret": secrets.token_hex(),
        "browser.serverPort": address.port,
    }


def declared() -> Mapping[str, Any]:
    """All options of this Streamlit, as it declares them.

    Its public function for this reads the settings files first, and whatever those load.
    """
    from streamlit.config import (
        _config_options_template,  # pyright: ignore[reportPrivateUsage]
    )

    return _config_options_template


def set_in(file: Path) -> dict[str, Any]:
    """The options that a settings file sets; none if it is missing or not TOML."""
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # Streamlit itself reports what is not TOML
    return dict(_flat(values, ""))


def _flat(values: Mapping[str, Any], before: str) -> Iterable[tuple[str, Any]]:
    """Names with dots, for tables in tables."""
    for key, value in values.items():
        if isinstance(value, dict) and (name := before + key) not in PINNED:
            yield from _flat(cast(dict[str, Any], value), f"{name}.")
        else:
            yield before + key, value


def not_taken(files: Iterable[Path]) -> list[str]:
    """A sentence for each option that is set somewhere to a value that is not taken."""
    said, known = list[str](), declared()
    for file in files:
        for name, value in set_in(file).items():
            if why := _why_not(name, value):
                said.append(f"{name} of {file} is not taken{why}.")
    for name, (value, _) in PINNED.items():
        given = os.environ.get(variable := known[name].env_var)
        if given is not None and not _same(given, value):
            said.append(f"{variable} is not taken{_why_not(name, given)}.")
    return said


def _same(text: str, value: Any) -> bool:
    return text.casefold() == str(value).casefold()


def _why_not(name: str, value: Any) -> str:
    """Why a file's value of an option is not taken; ``None`` if it is, or makes no difference."""
    last = name.split(".")[-1]
    if name in PINNED:
        kept, why = PINNED[name]
        return "" if value == kept else f", it stays {kept!r}: {why}"
    if name == "server.address":
        return "" if is_loopback(str(value)) else ": who may reach the dashboard, --host says"
    if name in BY_VARIABLE:
        return ": only a variable may set it"
    if name.startswith("theme.") and last in THEME_OUTSIDE:
        return "" if value in FONTS else f": it {_OUTSIDE}, or could be"
    return f": it {_OUTSIDE}" if name == "theme.base" and value not in BASES else ""
