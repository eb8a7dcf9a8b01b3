"""A server that misbehaves on demand: no real one answers 503 when a test wants it to.

It speaks HTTP over real sockets, dies with all of its connections, and comes back on the same port.
How real model servers word things is tested in `test_live.py`.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ports import reserve_port

Behaviour = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Any
    body = b""

    def do_GET(self) -> None:
        stub: Stub = self.server.stub
        stub.gets.append((self.path, self._headers()))
        behaviour = stub.pages.get(self.path.partition("?")[0])
        if behaviour is None:
            send(404, {"error": f"no page {self.path}"})(self)
        else:
            behaviour(self)

    def do_POST(self) -> None:
        stub: Stub = self.server.stub
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        behaviour = stub.take(self.path, self._headers(), self.body)
        behaviour(self)

    def _headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.headers.items()}

    def log_message(self, format: str, *args: object) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(
            OSError, ValueError
        ):  # the other side, or the test, has ended the connection
            super().handle()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], stub: Stub) -> None:
        self.stub, self.connections = stub, set[socket.socket]()
        super().__init__(address, Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        with contextlib.suppress(OSError):
            super().shutdown_request(request)


class Stub:
    """The server; `posts` and `gets` are its requests, `script` holds its next answers to posts."""

    def __init__(self) -> None:
        self.script: list[Behaviour] = []
        self.default: Behaviour = chat("hello")
        self.pages: dict[str, Behaviour] = {"/health": send(200, {"status": "ok"})}
        self.posts: list[tuple[str, dict[str, str], bytes]] = []
        self.gets: list[tuple[str, dict[str, str]]] = []
        self._lock = threading.Lock()
        self._server: _Server | None = None
        self._port = reserve_port()
        self._timers: list[threading.Timer] = []
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def asked(self, path: str) -> int:
        """How often a page was asked for."""
        return sum(1 for one, _ in self.gets if one == path)

    def take(self, path: str, headers: dict[str, str], body: bytes) -> Behaviour:
        with self._lock:
            self.posts.append((path, headers, body))
            return self.script.pop(0) if self.script else self.default

    def start(self) -> None:
        """Begin to listen: each time on the same port, which is kept while the server is away."""
        self._server = _Server(("127.0.0.1", self._port), self)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def start_in(self, seconds: float) -> None:
        timer = threading.Timer(seconds, self.start)
        timer.start()  # before `close` can see it: what was not started cannot be joined
        self._timers.append(timer)

    def die(self) -> None:
        """End at once, as a process that is killed: its connections are reset."""
        server, self._server = self._server, None
        if server is None:
            return
        server.socket.close()  # refuses from now on
        for connection in list(server.connections):
            abort(connection)
        server.shutdown()

    def close(self) -> None:
        for timer in self._timers:
            timer.cancel()
            timer.join()
        self.die()


def abort(connection: socket.socket) -> None:
    """Close a connection with a reset."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        connection.close()


# Behaviours


def send(
    status: int,
    value: Any,
    *,
    kind: str = "application/json",
    headers: dict[str, str] | None = None,
) -> Behaviour:
    """Answer with a status and a body: bytes as they are, anything else as JSON."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()

    def behave(handler: Handler) -> None:
        handler.send_response(status)
        for name, text in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            **(headers or {}),
        }.items():
            handler.send_header(name, text)
        handler.end_headers()
        handler.wfile.write(body)

    return behave


def chat(text: str) -> Behaviour:
    """Answer as OpenAI's API does."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return send(
        200,
        {
            "id": "chat-1",
            "object": "chat.completion",
            "created": 1,
            "model": "tiny",
            "choices": [choice],
        },
    )


def stream(*texts: str, then: Behaviour | None = None) -> Behaviour:
    """Stream chunks, and end the stream as OpenAI's API does, or as `then` does."""

    def behave(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for text in texts:
            choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
            chunk = {
                "id": "1",
                "object": "chat.completion.chunk",
                "created": 1,
                "model": "tiny",
                "choices": [choice],
            }
            _write_chunk(handler, f"data: {json.dumps(chunk)}\n\n".encode())
        if then is not None:
            then(handler)
            return
        _write_chunk(handler, b"data: [DONE]\n\n")
        handler.wfile.write(b"0\r\n\r\n")

    return behave


def _write_chunk(handler: Handler, data: bytes) -> None:
    handler.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
    handler.wfile.flush()


def reset(handler: Handler) -> None:
    """Break the connection without an answer."""
    handler.close_connection = True
    abort(handler.connection)


def hang(handler: Handler) -> None:
    """Say nothing, until the other side goes."""
    handler.close_connection = True
    handler.connection.settimeout(20)
    with contextlib.suppress(OSError):
        handler.connection.recv(1)


def half(handler: Handler) -> None:
    """Break off in the middle of a body whose length was told."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"id": "chat-1", ')
    handler.wfile.flush()
    handler.close_connection = True


def crash(return_in: float | None = None) -> Behaviour:
    """End the whole server, which comes back after so many seconds or never."""

    def behave(handler: Handler) -> None:
        stub: Stub = handler.server.stub
        handler.close_connection = True
        stub.die()
        if return_in is not None:
            stub.start_in(return_in)

    return behave


@contextlib.contextmanager
def running() -> Iterator[Stub]:
    """Run a server as long as the block lasts."""
    stub = Stub()
    try:
        yield stub
    finally:
        stub.close()
