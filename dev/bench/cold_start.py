"""Cold start by both modes: the sum of the phases, and the slowest of them.

    python dev/bench/cold_start.py

A model that takes 6 s to bring, inputs that take 4 s and a server that takes 3 s to load, with the
real loader, downloader and gate, run on this machine from the manifest that a cluster gets. The
store is a small server here that speaks the part of S3 that is needed and sends no faster than
told. Prints the event history of each mode, the phases of the gate's report, and the ratio of the
primary's start to (model + server), in one run.
"""

from __future__ import annotations

import http.server
import os
import re
import sys
import tempfile
import threading
import time
import urllib.parse
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

MODEL_SECONDS = 6.0
INPUT_SECONDS = 4.0
SERVER_SECONDS = 3.0
OBJECTS = {"model/weights.bin": 6 * 2**20, "inputs/data.bin": 4 * 2**20}
SECONDS = {"model": MODEL_SECONDS, "inputs": INPUT_SECONDS}
BLOCK = 32 * 1024
SERVER = f"""
import http.server, sys, time
time.sleep({SERVER_SECONDS})
handler = http.server.SimpleHTTPRequestHandler
http.server.ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), handler).serve_forever()
"""


class Throttle:
    """Lets bytes pass at a rate, over all connections together."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._free_at = 0.0

    def wait(self, size: int) -> None:
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic()) + size / self._rate
            delay = self._free_at - time.monotonic()
        time.sleep(max(0.0, delay))


class Store(http.server.BaseHTTPRequestHandler):
    """Lists and sends OBJECTS, in the bucket `bench`."""

    protocol_version = "HTTP/1.1"
    throttles: ClassVar[dict[str, Throttle]] = {}

    def do_HEAD(self) -> None:
        self.do_GET(body=False)

    def do_GET(self, *, body: bool = True) -> None:
        url = urllib.parse.urlsplit(self.path)
        key = url.path.removeprefix("/bench").lstrip("/")
        if not key:
            self._list(urllib.parse.parse_qs(url.query).get("prefix", [""])[0])
        elif key not in OBJECTS:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        else:
            self._send(key, body=body)

    def _list(self, prefix: str) -> None:
        found = "".join(
            f'<Contents><Key>{key}</Key><Size>{size}</Size><ETag>"{size}"</ETag>'
            "<LastModified>2024-01-01T00:00:00.000Z</LastModified></Contents>"
            for key, size in OBJECTS.items()
            if key.startswith(prefix)
        )
        xml = f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>"
        self._answer(200, xml.encode())

    def _send(self, key: str, *, body: bool) -> None:
        size = OBJECTS[key]
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, end = (
            (int(span[1]), min(int(span[2] or size - 1), size - 1)) if span else (0, size - 1)
        )
        self.send_response(206 if span else 200)
        self.send_header("ETag", f'"{size}"')
        self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
        self.send_header("Content-Length", str(end - start + 1))
        if span:
            self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        self.end_headers()
        for position in range(start, end + 1 if body else start, BLOCK):
            block = min(BLOCK, end + 1 - position)
            self.throttles[key.partition("/")[0]].wait(block)
            self.wfile.write(b"x" * block)

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Requests are not logged."""


def main() -> int:
    """Measure both modes and say whether the gate's is as fast as it should be."""
    from flytekit.types.file import FlyteFile

    from flytekitplugins.inference import ModelInferenceTemplate

    store = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Store)
    threading.Thread(target=store.serve_forever, daemon=True).start()
    os.environ |= {
        "FLYTE_AWS_ENDPOINT": f"http://127.0.0.1:{store.server_port}",
        "FLYTE_AWS_ACCESS_KEY_ID": "bench",
        "FLYTE_AWS_SECRET_ACCESS_KEY": "bench",
        "INFERENCE_LOCAL_DIRECTORY": tempfile.mkdtemp(prefix="cold-start-", dir="/tmp"),
    }
    script = Path(os.environ["INFERENCE_LOCAL_DIRECTORY"], "slow_server.py")
    script.write_text(SERVER)
    probe = ModelInferenceTemplate(
        image="bench:1",
        command=["python", str(script), "$(INFERENCE_PORT)"],
        health_endpoint="/",
        port=28200,
        gpu=0,
        model="s3://bench/model",
        download_inputs=True,
    )
    inputs = {"data": FlyteFile("s3://bench/inputs/data.bin")}
    measured: dict[str, float] = {}
    for mode, template in (("probe", probe), ("gate", replace(probe, startup_timeout=120))):
        Store.throttles = {
            name: Throttle(OBJECTS_OF[name] / seconds) for name, seconds in SECONDS.items()
        }
        print(f"--- {mode} mode", flush=True)
        with template.run_locally(inputs) as server:
            events = server.pod.events
            measured[mode] = next(event.seconds for event in events if event.container == "primary")
        print(
            "\n".join(
                str(event) for event in events if event.kind in ("started", "passed", "exited")
            )
        )
    least = MODEL_SECONDS + SERVER_SECONDS
    ratio = measured["gate"] / least
    print(
        f"probe mode: primary after {measured['probe']:.1f} s (phases in sum "
        f"{least + INPUT_SECONDS:.0f} s)"
    )
    print(
        f"gate mode:  primary after {measured['gate']:.1f} s, {ratio:.2f} of model + server "
        f"({least:.0f} s; aim 1.15)"
    )
    return 0 if ratio <= 1.15 else 1


OBJECTS_OF = {
    name: sum(size for key, size in OBJECTS.items() if key.startswith(f"{name}/"))
    for name in SECONDS
}

if __name__ == "__main__":
    sys.exit(main())
