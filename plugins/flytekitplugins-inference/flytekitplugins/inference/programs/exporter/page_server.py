"""Serves the exporter's few pages over HTTP, with a bounded number of connections.

The kubelet restarts the model server when this one does not answer, so nobody may keep it busy: the
answers come from memory, and when all connections are taken, the oldest one is closed for the
newest.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["MAX_CONNECTIONS", "Page", "PageServer"]

MAX_CONNECTIONS = 32
IDLE_SECONDS = 5.0
"""How long a client may take for each part of its request and of its answer."""
MAX_REQUEST_BYTES = 16 * 1024

Page = tuple[int, str, str]
"""Status, type of the content, content."""
_REASONS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


class PageServer(socketserver.ThreadingTCPServer):
    """Answers GET requests for the paths of `pages`.

    Args:
        host: The address to listen on.
        port: The port; 0 lets the system choose one.
        pages: Path → function that returns the page; called in the connection's thread.
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, pages: Mapping[str, Callable[[], Page]]) -> None:
        self.pages = pages
        self.closed_connections = 0
        self._open: dict[int, socket.socket] = {}
        """Connections by the order of their arrival."""
        self._open_lock = threading.Lock()
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _Exchange)

    @property
    def port(self) -> int:
        """The port it listens on."""
        port: int = self.server_address[1]
        return port

    def process_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        """Take a connection."""
        with self._open_lock:
            if len(self._open) >= MAX_CONNECTIONS:
                oldest = self._open.pop(next(iter(self._open)))
                self.closed_connections += 1
                with contextlib.suppress(OSError):  # its client was faster
                    oldest.shutdown(socket.SHUT_RDWR)
            self._open[id(request)] = request
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]
        """Give a connection back."""
        with self._open_lock:
            self._open.pop(id(request), None)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that goes away is no event of this program."""


class _Exchange(socketserver.BaseRequestHandler):
    request: socket.socket
    server: PageServer

    def handle(self) -> None:
        self.request.settimeout(IDLE_SECONDS)
        head = b""
        while b"\r\n\r\n" not in head and b"\n\n" not in head:
            block = self.request.recv(4096)
            head += block
            if not block or len(head) > MAX_REQUEST_BYTES:
                return
        words = head.split(b"\n", 1)[0].decode("latin-1").split()
        if len(words) < 2:
            return
        self.request.sendall(_answer(words[0], self._page(words[0], words[1])))
        # otherwise the close could reset the connection before the client has read all of it
        self.request.shutdown(socket.SHUT_WR)

    def _page(self, method: str, target: str) -> Page:
        if method not in ("GET", "HEAD"):
            return 405, "text/plain", "Only GET.\n"
        page = self.server.pages.get(target.partition("?")[0])
        if page is None:
            return 404, "text/plain", f"There are {', '.join(self.server.pages)}.\n"
        return page()


def _answer(method: str, page: Page) -> bytes:
    status, kind, text = page
    body = text.encode()
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {kind}; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + (b"" if method == "HEAD" else body)
