#!/usr/bin/env python3
"""A stand-in for Ollama: its HTTP API without models, with faults on demand.

Written from ollama/ollama v0.33.3: `server/routes.go` (the handlers, streamResponse: an error
behind the first line of a stream is a line of it, inside a 200), `server/images.go` (PullModel's
lines), `server/download.go` (Wait repeats a part's line each 60 ms, whether bytes arrive or not),
`server/create.go` (CreateHandler), `api/types.go`. What it is asked in another form than those
files read is answered as an error, as there.

`python ollama_stand_in.py serve` listens on `OLLAMA_HOST`, as `ollama serve` does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Line = dict[str, Any]
LAYER = "sha256:" + "ab" * 32
MEGABYTES = 8
CREATE_FIELDS = {
    *(
        "model",
        "from",
        "files",
        "draft_files",
        "adapters",
        "template",
        "license",
        "system",
        "parameters",
        "messages",
    ),
    *("renderer", "parser", "requires"),
}


@dataclass
class StandIn:
    """What the server holds, what it was asked, and what goes wrong."""

    registry: set[str] = field(
        default_factory=lambda: {"llama3.2:latest", "llama3.2:1b", "nomic-embed-text:latest"}
    )
    """Models that can be pulled, as they are listed."""
    models: dict[str, Line] = field(default_factory=dict)
    """Models that it has, and the request that created each."""
    loaded: list[str] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)
    """By path, what goes wrong with its next answers, in this order."""
    requests: list[tuple[str, str, Line]] = field(default_factory=list)
    """Method, path and body."""
    port: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def asked(self, path: str) -> list[Line]:
        return [body for _, asked, body in self.requests if asked == path]


def handler(state: StandIn) -> type[BaseHTTPRequestHandler]:  # noqa: C901 (a class in a function)
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def handle(self) -> None:
            with contextlib.suppress(OSError):  # the program hung up
                super().handle()

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            fault = self._fault({})
            if fault.isdecimal():
                self._json(int(fault), {"error": "a fault"})
            elif self.path == "/":
                self._json(200, {})
            elif self.path == "/api/version":
                self._json(200, {"version": "0.33.3"})
            elif self.path == "/api/tags":
                self._json(
                    200,
                    {
                        "models": []
                        if fault == "empty"
                        else [{"name": name} for name in state.models]
                    },
                )
            elif self.path == "/api/ps":
                rows = [{"name": name, "size": 1000, "size_vram": 250} for name in state.loaded]
                self._json(200, {"models": [] if fault == "empty" else rows})
            elif self.path == "/v1/models":
                self._json(200, {"object": "list", "data": [{"id": name} for name in state.models]})
            elif self.path.startswith("/api/blobs/"):
                self._json(200 if self.path.rpartition("/")[2] in state.blobs else 404, {})
            else:
                self._json(404, {"error": "404 page not found"})

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            body = {} if self.path.startswith("/api/blobs/") else json.loads(content)
            fault = self._fault(body)
            if fault.isdecimal():
                self._json(int(fault), {"error": "a fault"})
            elif self.path.startswith("/api/blobs/"):
                self._blob(self.path.rpartition("/")[2], content, fault)
            elif self.path == "/api/pull":
                self._pull(_listed(body["model"]), fault)
            elif self.path == "/api/create":
                self._create(body, fault)
            elif self.path == "/api/show":
                is_embedding = body["model"].startswith("nomic")
                self._found(body, {"capabilities": ["embedding" if is_embedding else "completion"]})
            elif self.path in ("/api/generate", "/api/embed"):
                self._load(body, fault)
            else:
                self._json(404, {"error": "404 page not found"})

        def _fault(self, body: Line) -> str:
            state.requests.append((self.command, self.path, body))
            waiting = state.faults.get(self.path.replace("/sha256:", "/*").partition("*")[0], [])
            return waiting.pop(0) if waiting else ""

        def _json(self, status: int, value: Line) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else data)

        # Streams

        def _begin(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/x-ndjson")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()

        def _line(self, **fields: Any) -> None:
            self._chunk(json.dumps(fields).encode() + b"\n")

        def _chunk(self, data: bytes) -> None:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()

        def _end(self) -> None:
            self.wfile.write(b"0\r\n\r\n")

        def _pull(self, name: str, fault: str) -> None:
            self._begin()
            self._line(status="pulling manifest")
            if fault == "unauthorized":
                self._line(error="pull model manifest: unauthorized: access denied")
            elif fault.startswith("error "):
                self._line(error=fault.removeprefix("error "))
            elif name not in state.registry:
                self._line(error="pull model manifest: file does not exist")
            elif self._layers(fault):
                for status in ("verifying sha256 digest", "writing manifest", "success"):
                    self._line(status=status)
                state.models[name] = {}
            self._end()

        def _layers(self, fault: str) -> bool:
            total = MEGABYTES * 10**6
            for done in range(0, total + 1, 10**6):
                self._line(
                    status=f"pulling {LAYER[7:19]}", digest=LAYER, total=total, completed=done
                )
                if done == total // 2 and fault == "cut":
                    self.close_connection = True
                    raise ConnectionAbortedError
                if done == total // 2 and fault == "half line":
                    self._chunk(b'{"status": "pull')
                    self.close_connection = True
                    raise ConnectionAbortedError
                if done == total // 2 and fault == "end":
                    return False
                while done == total // 2 and fault == "stall" and not state.over.wait(0.05):
                    self._line(
                        status=f"pulling {LAYER[7:19]}", digest=LAYER, total=total, completed=done
                    )
                if done == total // 2 and fault == "silence":
                    state.over.wait()
            return True

        def _create(self, body: Line, fault: str) -> None:
            unknown = body.keys() - CREATE_FIELDS
            missing = [
                digest
                for files in ("files", "adapters", "draft_files")
                for digest in body.get(files, {}).values()
                if digest not in state.blobs
            ]
            if unknown or missing:
                self._json(400, {"error": f"unknown {sorted(unknown)}, missing {missing}"})
            elif "from" not in body and "files" not in body:
                self._json(400, {"error": "neither 'from' or 'files' was specified"})
            elif "from" in body and body["from"] not in state.models:
                self._json(500, {"error": "the model was not pulled before"})
            else:
                self._begin()
                self._line(status="parsing GGUF")
                if fault.startswith("error "):
                    self._line(error=fault.removeprefix("error "))
                elif fault == "end":
                    pass
                else:
                    if fault == "silence":
                        state.over.wait()
                    self._line(status="writing manifest")
                    self._line(status="success")
                    state.models[body["model"]] = body
                self._end()

        # The rest

        def _blob(self, digest: str, content: bytes, fault: str) -> None:
            if fault == "corrupt":
                content += b"!"
            got = f"sha256:{hashlib.sha256(content).hexdigest()}"
            if got != digest:
                self._json(400, {"error": f'digest mismatch, expected "{digest}", got "{got}"'})
                return
            state.blobs[digest] = content
            self._json(201, {})

        def _found(self, body: Line, answer: Line) -> None:
            if body["model"] in state.models:
                self._json(200, answer)
            else:
                self._json(404, {"error": f"model '{body['model']}' not found"})

        def _load(self, body: Line, fault: str) -> None:
            is_embedding = body["model"].startswith("nomic")
            if is_embedding and self.path == "/api/generate":
                self._json(400, {"error": f'"{body["model"]}" does not support generate'})
                return
            if fault == "slow":
                state.over.wait()
            if fault == "die":
                self.close_connection = True
                raise ConnectionAbortedError
            state.loaded.append(body["model"])
            self._found(body, {"done": True, "done_reason": "load"})

    return Handler


def _listed(name: str) -> str:
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def listen(state: StandIn, address: tuple[str, int]) -> ThreadingHTTPServer:
    """Answer in threads from now on."""
    server = ThreadingHTTPServer(address, handler(state))
    server.daemon_threads = True
    state.port = server.server_address[1]
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    ).start()
    return server


def main() -> None:
    """Run as `ollama serve` does, until SIGTERM."""
    assert sys.argv[1:] == ["serve"], sys.argv
    host, _, port = os.environ["OLLAMA_HOST"].rpartition(":")
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    listen(StandIn(), (host, int(port)))
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main()
