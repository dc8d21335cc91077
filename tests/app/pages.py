"""A page of the dashboard as a browser opens it, without a browser: what it sends, byte by byte."""

import socket
from collections.abc import Generator
from contextlib import contextmanager
from urllib.parse import urlencode

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import ClientConnection, connect

PATIENCE = 120  # seconds; the machines that run this are slow


def status(port: int, path: str = "/_stcore/health", method: str = "GET", **headers: str) -> int:
    """What a server on this machine answers to a request with these headers and no others."""
    lines = [f"{method} {path} HTTP/1.1"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        connection.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode())
        return int(connection.makefile("rb").readline().split()[1])


def handshake(port: int, **headers: str) -> int:
    """The same for a websocket: 101 for one that is open."""
    upgrade = {
        "Upgrade": "websocket",
        "Sec_WebSocket_Version": "13",
        "Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    lines = ["GET /_stcore/stream HTTP/1.1", "Connection: Upgrade"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in (upgrade | headers).items()]
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return int(connection.makefile("rb").readline().split()[1])


class Page:
    """An open page."""

    def __init__(self, connection: ClientConnection):
        self._connection = connection
        self.session = ""

    def open(self, name: str = "", **params: str) -> None:
        """Go to a page, as a link does."""
        message = BackMsg()
        message.rerun_script.query_string = urlencode(params)
        message.rerun_script.page_name = name
        self.send(message.SerializeToString())

    def send(self, data: bytes) -> None:
        """Send a message; of a large one, wait for what the server says to it."""
        self._connection.send(data)
        if len(data) > 2**20:
            self._connection.recv(timeout=PATIENCE)

    def close(self) -> None:
        """Close it early."""
        self._connection.close()

    def until(self, kind: str, seconds: float = PATIENCE) -> ForwardMsg:
        """The next message of a kind, such as ``script_finished``."""
        while True:
            message = ForwardMsg()
            data = self._connection.recv(timeout=seconds)
            assert isinstance(data, bytes)
            message.ParseFromString(data)
            if message.HasField("new_session"):
                self.session = message.new_session.initialize.session_id
            if message.WhichOneof("type") == kind:
                return message

    def until_text(self, text: str, seconds: float = PATIENCE) -> None:
        """Wait until something on the page says a text."""
        while text not in str(self.until("delta", seconds)):
            pass


@contextmanager
def page(port: int) -> Generator[Page]:
    """A page that is open, and is closed afterwards."""
    url, origin = f"ws://127.0.0.1:{port}/_stcore/stream", f"http://127.0.0.1:{port}"
    with connect(
        url,
        origin=origin,  # pyright: ignore[reportArgumentType]
        subprotocols=["streamlit"],  # pyright: ignore[reportArgumentType]
        max_size=None,
        open_timeout=PATIENCE,
        ping_interval=None,  # a server that is slow to answer is busy, not gone
    ) as connection:
        yield Page(connection)
