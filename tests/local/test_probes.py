"""The prober against a real server."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from flytekitplugins.inference.local.plan.probe_plan import Exec, HttpGet, ProbePlan, TcpSocket
from flytekitplugins.inference.local.prober import ProbeResult, ask_probe

if TYPE_CHECKING:
    from collections.abc import Iterator


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        kind, _, rest = self.path.strip("/").partition("/")
        if kind == "slow":
            time.sleep(0.6)
        if kind == "close":
            return
        location = {"here": "/status/204", "loop": "/loop", "away": "http://example.invalid/"}.get(
            kind
        )
        body = (self.headers["User-Agent"] + " " + self.headers.get("X-A", "")).encode()
        self.send_response(302 if location else int(rest or 200))
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


class Commands:
    def execute(self, command: tuple[str, ...], timeout: float) -> tuple[int | None, str]:
        return {"ok": (0, ""), "bad": (3, "why"), "slow": (None, "")}[command[0]]


@pytest.mark.parametrize(
    ("path", "ok", "said"),
    [
        ("/status/200", True, "HTTP 200"),
        ("/status/399", True, "HTTP 399"),
        ("/status/404", False, "HTTP 404 kube-probe/1.36 b"),
        ("/status/503", False, "HTTP 503 kube-probe/1.36 b"),
        ("/here", True, "HTTP 204"),
        ("/away", True, "HTTP 302"),
        ("/loop", False, "more than 10 redirects"),
        ("/slow", False, "no answer within 0.3 s"),
        ("/close", False, "connection closed without an answer"),
    ],
)
def test_http(address: str, path: str, ok: bool, said: str) -> None:
    action = HttpGet(url=f"http://{address}{path}", headers=(("X-A", "b"),))
    answer = ask_probe(ProbePlan(action=action, timeout=0.3), Commands())
    assert answer == ProbeResult(ok=ok, text=f"GET http://{address}{path}: {said}")


def test_nothing_listens(free_port: int) -> None:
    url = f"http://127.0.0.1:{free_port}/x"
    assert ask_probe(ProbePlan(action=HttpGet(url=url)), Commands()) == ProbeResult(
        ok=False, text=f"GET {url}: connection refused"
    )
    answer = ask_probe(ProbePlan(action=TcpSocket(host="127.0.0.1", port=free_port)), Commands())
    assert answer == ProbeResult(
        ok=False, text=f"connect to 127.0.0.1:{free_port}: connection refused"
    )


def test_tcp_needs_a_connection_only() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        answer = ask_probe(ProbePlan(action=TcpSocket(host="127.0.0.1", port=port)), Commands())
    assert answer == ProbeResult(ok=True, text=f"connect to 127.0.0.1:{port}: connected")


@pytest.mark.parametrize(
    ("command", "ok", "said"),
    [
        ("ok", True, "exit code 0"),
        ("bad", False, "exit code 3, why"),
        ("slow", False, "no end within 1 s"),
    ],
)
def test_commands(command: str, ok: bool, said: str) -> None:
    answer = ask_probe(ProbePlan(action=Exec(command=(command,))), Commands())
    assert answer == ProbeResult(ok=ok, text=f"run {command}: {said}")
