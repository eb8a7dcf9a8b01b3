"""The other end of a connection, on a real socket, that says what a test wants."""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
import threading
import time
from collections.abc import Callable

Talk = Callable[[socket.socket], None]


class Peer:
    """Takes connections, reads one request of each, and hands it to `talk`."""

    def __init__(self, talk: Talk, family: socket.AddressFamily = socket.AF_INET) -> None:
        host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        self._listener = socket.create_server((host, 0), family=family)
        self.port = self._listener.getsockname()[1]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"
        self.requests: list[bytes] = []
        self._talk = talk
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=(accepted,), daemon=True).start()

    def _answer(self, connected: socket.socket) -> None:
        with contextlib.suppress(OSError), connected:
            with connected.makefile("rb") as source:
                request = b""
                while not request.endswith(b"\r\n\r\n"):
                    if not (line := source.readline()):
                        return  # closed before a whole request: the end is not a line
                    request += line
                length = re.search(rb"Content-Length: (\d+)", request)
                self.requests.append(request + source.read(int(length[1]) if length else 0))
            self._talk(connected)

    def close(self) -> None:
        self._listener.close()


Peers = Callable[..., Peer]


def saying(text: bytes) -> Talk:
    return lambda connected: connected.sendall(text)


def repeating(start: bytes, part: bytes, pause: float = 0.0) -> Talk:
    """Send a start, and then the same part for ever."""

    def talk(connected: socket.socket) -> None:
        connected.sendall(start)
        for _ in itertools.count():
            connected.sendall(part)
            time.sleep(pause)

    return talk
