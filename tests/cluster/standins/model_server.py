#!/usr/bin/env python3
"""Stands in for a model server: takes its command line and answers as it does, without a model.

In its image it lies under the name of each server's program. It reads the options that say where
to listen, which model is served and under which names, refuses a model that is not there, and
answers health, the list of models and metrics. Sources: the `serve` modules of the package say
which version of each server has which option and path.

What shall go wrong stands in STANDIN, words separated by blanks: `crash` ends it at once with 3,
`silent` lets it never listen, `slow:N` waits N seconds before it listens, `memory:N` takes N MiB
before that, `memory-later:N` when it is asked for /grow, `stubborn` ignores SIGTERM, `loading:N`
answers 503 for N seconds.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PORT_OPTIONS = ("--port", "--http-port")
PORT_VARIABLES = (
    "INFERENCE_PORT",
    "NIM_SERVER_PORT",
    "NIM_HTTP_API_PORT",
    "MLSERVER_HTTP_PORT",
    "PORT",
)
HOST_OPTIONS = ("--host", "--hostname", "--http-address")
MORE_PORTS = ("--grpc-port", "--metrics-port")
MODEL_OPTIONS = ("--model", "--model-path", "--model-id", "--model-repository")
NAME_OPTIONS = ("--served-model-name", "--alias")


class Arguments:
    """The command line, of any server."""

    def __init__(self, words: list[str]) -> None:
        self.words = words

    def value(self, *options: str) -> str:
        """Return the value of the first of these options that is given."""
        return next(iter(self.values(*options)), "")

    def values(self, *options: str) -> list[str]:
        """Return what follows these options, up to the next option."""
        found: list[str] = []
        for number, word in enumerate(self.words):
            if word in options:
                for following in self.words[number + 1 :]:
                    if following.startswith("--"):
                        break
                    found.append(following)
        return found

    @property
    def models(self) -> list[str]:
        """The paths and names of models, as vLLM takes its one too: the first plain word."""
        plain = [word for word in self.words if not word.startswith("-")]
        first = plain[:1] if self.words[:1] == plain[:1] else []
        return [*first, *self.values(*MODEL_OPTIONS)]


def serve(arguments: Arguments, faults: dict[str, float]) -> None:
    """Listen until SIGTERM."""
    began = time.monotonic()
    missing = [
        path for path in arguments.models if path.startswith("/models") and not Path(path).exists()
    ]
    if missing:
        sys.exit(f"there is no model at {missing[0]}")
    port = int(
        arguments.value(*PORT_OPTIONS)
        or next((os.environ[name] for name in PORT_VARIABLES if os.environ.get(name)), "8000")
    )
    names = arguments.values(*NAME_OPTIONS) or arguments.models or ["model"]
    if "memory" in faults:
        _allocate(faults["memory"])
    time.sleep(faults.get("slow", 0))
    if "silent" in faults:
        signal.pause()
    handler = _handler(names, began + faults.get("loading", 0), faults)
    host = arguments.value(*HOST_OPTIONS) or "0.0.0.0"
    servers = [ThreadingHTTPServer((host, port), handler)]
    # Triton's others
    servers += [
        ThreadingHTTPServer((host, int(other)), handler)
        for other in arguments.values(*MORE_PORTS)
        if int(other) != port
    ]
    for server in servers[1:]:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"{Path(sys.argv[0]).name} listens on {host}:{port}", flush=True)
    servers[0].serve_forever()


def _handler(
    names: list[str], ready: float, faults: dict[str, float]
) -> type[BaseHTTPRequestHandler]:
    listed = [{"id": name, "object": "model"} for name in names]
    bodies: dict[str, Callable[[], bytes]] = {
        "/files": _files,
        "/metrics": lambda: b"# TYPE standin_requests counter\nstandin_requests_total 1\n",
        "/v1/models": lambda: json.dumps({"object": "list", "data": listed}).encode(),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/grow":
                _allocate(faults.get("memory-later", 0))
            if path not in bodies and time.monotonic() < ready:
                self._send(503, b"loading")
            else:
                self._send(200, bodies.get(path, lambda: b"{}")())

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            self.rfile.read(length)
            if self.path == "/v2/repository/index":
                index = [{"name": name, "state": "READY"} for name in names]
                self._send(200, json.dumps(index).encode())
            else:
                self._send(200, json.dumps({"success": True}).encode())

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None: ...

    return Handler


def _files() -> bytes:
    """Return what is published as the model: where it lies, and its files."""
    place = Path("/models/current")
    names = sorted(file.name for file in place.iterdir())
    return json.dumps({"target": str(place.resolve()), "names": names}).encode()


def _allocate(megabytes: float) -> None:
    """Take memory, and keep it."""
    _TAKEN.append(bytearray(os.urandom(1 << 20)) * int(megabytes))


_TAKEN: list[bytearray] = []


def _faults() -> dict[str, float]:
    words = [word.partition(":") for word in os.environ.get("STANDIN", "").split()]
    return {name: float(value or 0) for name, _, value in words}


def main() -> None:
    """Run what the name and the arguments ask for."""
    faults = _faults()
    if "crash" in faults:
        print("CUDA error: no kernel image is available for execution on the device", flush=True)
        sys.exit(3)
    if "stubborn" in faults:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    words = sys.argv[1:]
    # `vllm serve`, `sglang serve`, `mlserver start`, `ranker serve`
    serve(Arguments(words[1:] if words[:1] in (["serve"], ["start"]) else words), faults)


if __name__ == "__main__":
    main()
