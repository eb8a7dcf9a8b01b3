"""What the metrics exporter costs, beside a re-export with `prometheus_client`.

usage: python dev/bench/exporter.py [PAGE]

Prints CPU time for a page, memory and start of the program, and the requests that reach the server
while a hundred readers ask at once. PAGE is a server's page; the default is that of vLLM.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

from flytekitplugins.inference.facts.liveness import LivenessRule
from flytekitplugins.inference.facts.metric_names import FAMILIES
from flytekitplugins.inference.facts.metrics_page import metric_families, summed
from flytekitplugins.inference.programs.exporter.exporter_page import ExporterPage
from flytekitplugins.inference.programs.exporter.server_monitor import ServerMonitor
from flytekitplugins.inference.programs.exporter.start_facts import StartFacts
from flytekitplugins.inference.programs.exporter.upstream import ServerPage

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
DEFAULT = ROOT / "tests" / "data" / "metrics" / "vllm-cpu.txt"
BUNDLED = """
import sys
from flytekitplugins.inference.pod.bundle import BOOTSTRAP, programs_bundle
print(BOOTSTRAP, end="\\0")
print(programs_bundle("export_metrics"), end="")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the metrics exporter.")
    parser.add_argument("page", nargs="?", type=Path, default=DEFAULT)
    path = parser.parse_args().page
    text = path.read_text()
    print(f"{path.name}: {len(text)} bytes, {text.count(chr(10))} lines")
    own = cpu_ms(lambda: own_page(text))
    print(f"{'scan and render (ms of CPU)':<44} {own:8.2f}")
    theirs = cpu_ms(lambda: re_export(text), rounds=10)
    print(f"{'prometheus_client, parse and generate':<44} {theirs:8.2f}   {theirs / own:.0f} x")
    with upstream(text.encode()) as server:
        program(server, "as a module", [], {})
        done = subprocess.run(
            [sys.executable, "-c", BUNDLED], check=True, capture_output=True, text=True
        )
        bootstrap, _, bundle = done.stdout.partition("\0")
        program(server, "bundled", [bootstrap], {"INFERENCE_PROGRAMS": bundle})


def cpu_ms(action: Callable[[], object], rounds: int = 200) -> float:
    """Return the median CPU time of one call."""
    times = []
    action()
    for _ in range(rounds):
        began = time.process_time()
        action()
        times.append(time.process_time() - began)
    return statistics.median(times) * 1e3


_PAGE = ExporterPage({"server": "vllm"}, aliases=(), facts=StartFacts(None, None))
_MONITOR = ServerMonitor(None, lambda: True, LivenessRule())


def own_page(text: str) -> str:
    families = metric_families(text, FAMILIES["vllm"])
    reading = _MONITOR.reading()
    reading.page = ServerPage(families=families, totals=summed(families), size=len(text))
    return _PAGE.text(reading)


def re_export(text: str) -> str:
    from prometheus_client import generate_latest
    from prometheus_client.parser import text_string_to_metric_families
    from prometheus_client.registry import CollectorRegistry

    class Collector:
        def collect(self) -> Any:
            return text_string_to_metric_families(text)

    registry = CollectorRegistry()
    registry.register(Collector())
    return generate_latest(registry).decode()


class upstream:  # noqa: N801 - reads as a function
    """A server with one page, which counts its requests."""

    def __init__(self, page: bytes) -> None:
        self.count = 0
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stub.count += self.path == "/metrics"
                self.send_response(200)
                self.end_headers()
                self.wfile.write(page)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/metrics"

    def __enter__(self) -> upstream:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()


def program(server: upstream, name: str, bootstrap: list[str], environ: dict[str, str]) -> None:
    module = ["-m", "flytekitplugins.inference.programs.export_metrics"]
    command = ["-c", *bootstrap, "export_metrics"] if bootstrap else module
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *command, server.url, "--port", "0", "--host", "127.0.0.1"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environ},
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    ready = time.monotonic() - began
    url = f"http://127.0.0.1:{line.rpartition('=')[2].strip()}/metrics"
    server.count = 0
    asked = time.monotonic()
    cpu = cpu_of(process.pid)
    with ThreadPoolExecutor(20) as pool:
        sizes = list(pool.map(lambda _: len(read(url)), range(500)))
    cpu = (cpu_of(process.pid) - cpu) / 500 * 1e3
    seconds = time.monotonic() - asked
    status = Path(f"/proc/{process.pid}/status").read_text()
    peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    process.terminate()
    process.wait()
    print(f"{f'program {name}: start (s)':<44} {ready:8.2f}")
    print(f"{'  peak memory (MiB)':<44} {int(peak) / 1024:8.1f}")
    print(f"{'  500 reads by 20 readers (ms of CPU each)':<44} {cpu:8.2f}   {max(sizes)} bytes")
    print(f"{'  requests to the server meanwhile':<44} {server.count:8d}   in {seconds:.1f} s")


def read(url: str) -> bytes:
    with urlopen(url, timeout=30) as answer:
        body: bytes = answer.read()
    return body


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    main()
