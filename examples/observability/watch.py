"""Watches a llama.cpp on this machine with Prometheus, and draws the dashboards' panels as a page.

See README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import html
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from flytekitplugins.inference import LlamaCpp, MetricsExporter
from flytekitplugins.inference.monitoring import dashboard, rule_file

EXPORTER_PORT = 9090
LABELS = {
    "namespace": "watch-development",
    "pod": "a0",
    "project": "watch",
    "domain": "development",
    "task_name": "watch.answer",
}
"""What the PodMonitor would add on a cluster."""
VARIABLES = ("namespace", "pod", "project", "domain")
COLORS = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#0891b2")


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    url: str

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer of its API."""
        with urlopen(f"{self.url}/api/v1/{path}?{urlencode(parameters)}", timeout=10) as answer:
            return json.load(answer)["data"]

    def series(self, expression: str, seconds: int) -> list[dict[str, Any]]:
        """Return the series of an expression over the last seconds."""
        now = time.time()
        result: list[dict[str, Any]] = self.ask(
            "query_range", query=expression, start=str(now - seconds), end=str(now), step="2"
        )["result"]
        return result

    def alerts(self) -> dict[str, str]:
        """Return the state of each alert."""
        groups = self.ask("rules")["groups"]
        return {rule["name"]: rule["state"] for group in groups for rule in group["rules"]}


@contextlib.contextmanager
def prometheus(target: str) -> Iterator[Prometheus]:
    """Run a Prometheus that reads the exporter every two seconds."""
    program = shutil.which("prometheus")
    if program is None:
        sys.exit("prometheus is not on the path (Debian: apt-get install prometheus)")
    rules = rule_file()
    rules["groups"][0]["interval"] = "5s"
    config = {
        "global": {"scrape_interval": "2s", "scrape_timeout": "2s"},
        "rule_files": ["rules.yml"],
        "scrape_configs": [
            {"job_name": "flyte", "static_configs": [{"targets": [target], "labels": LABELS}]}
        ],
    }
    with tempfile.TemporaryDirectory() as name, socket.socket() as free:
        directory = Path(name)
        (directory / "rules.yml").write_text(json.dumps(rules))
        (directory / "prometheus.yml").write_text(json.dumps(config))
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        free.close()
        process = subprocess.Popen(
            [
                program,
                f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address={address}",
                "--log.level=error",
            ]
        )
        try:
            yield Prometheus(f"http://{address}")
        finally:
            process.terminate()
            process.wait()


@contextlib.contextmanager
def load(url: str, clients: int) -> Iterator[None]:
    """Keep a server busy."""
    stop = threading.Event()

    def ask() -> None:
        body = json.dumps({"prompt": "one", "max_tokens": 200, "ignore_eos": True}).encode()
        request = Request(
            f"{url}/v1/completions", body, headers={"Content-Type": "application/json"}
        )
        while not stop.is_set():
            with contextlib.suppress(OSError), urlopen(request, timeout=30) as answer:
                answer.read()

    for _ in range(clients):
        threading.Thread(target=ask, daemon=True).start()
    try:
        yield
    finally:
        stop.set()


def freeze(name: str) -> None:
    """Stop the processes below this one that run a program of this name."""
    pending = [os.getpid()]
    while pending:
        pid = pending.pop()
        for task in Path(f"/proc/{pid}/task").iterdir():
            pending += map(int, (task / "children").read_text().split())
        # a program, or a script that an interpreter runs
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:2]
        if any(Path(word.decode()).name == name for word in words):
            os.kill(pid, signal.SIGSTOP)


def filled(expression: str) -> str:
    """Return a panel's expression as Grafana sends it."""
    for name in VARIABLES:
        expression = expression.replace(f"${name}", ".*")
    return expression.replace("$__rate_interval", "20s")


def legend(text: str, labels: dict[str, str]) -> str:
    """Return the name of a series, as the panel writes it."""
    for name, value in labels.items():
        text = text.replace(f"{{{{{name}}}}}", value)
    return text or "now"


def chart(series: list[dict[str, Any]], legends: list[str]) -> str:
    """Return the series as a drawing."""
    if not series:
        return "<p class=none>no data</p>"
    points = [
        [(float(at), float(value)) for at, value in one["values"] if value != "NaN"]
        for one in series
    ]
    times = [at for one in points for at, _ in one] or [0.0]
    most = max((value for one in points for _, value in one), default=0.0) or 1.0
    first, span = min(times), (max(times) - min(times)) or 1.0
    lines, names = [], []
    for index, (one, name) in enumerate(zip(points, legends, strict=True)):
        color = COLORS[index % len(COLORS)]
        path = " ".join(
            f"{(at - first) / span * 300:.1f},{100 - value / most * 95:.1f}" for at, value in one
        )
        lines.append(f'<polyline points="{path}" stroke="{color}" fill="none"/>')
        last = f"{one[-1][1]:.4g}" if one else "-"
        names.append(f'<span style="color:{color}">{html.escape(name)}: {last}</span>')
    drawing = f'<svg viewBox="0 0 300 102" width="300">{"".join(lines)}</svg>'
    return f"<small>most {most:.4g}</small>{drawing}<small>{'<br>'.join(names)}</small>"


def page(source: Prometheus, seconds: int) -> tuple[str, int, list[str]]:
    """Return the page, the number of panels with data, and the titles of those without."""
    parts, empty, filled_panels = [], [], 0
    for name in ("pod", "fleet"):
        board = dashboard(name)
        parts.append(f"<h1>{html.escape(board['title'])}</h1>")
        for panel in board["panels"]:
            if panel["type"] == "row":
                parts.append(f"<h2>{html.escape(panel['title'])}</h2>")
                continue
            series, legends = [], []
            for target in panel["targets"]:
                answer = source.series(filled(target["expr"]), seconds)
                series += answer
                legends += [legend(target["legendFormat"], one["metric"]) for one in answer]
            if series:
                filled_panels += 1
            else:
                empty.append(panel["title"])
            title = f"<figcaption>{html.escape(panel['title'])}</figcaption>"
            parts.append(f"<figure>{title}{chart(series, legends)}</figure>")
    states = "".join(
        f"<tr><td>{name}<td class={state}>{state}" for name, state in source.alerts().items()
    )
    style = (
        "body{font:14px sans-serif;margin:2em}figure{display:inline-block;width:310px;margin:6px;"
        "vertical-align:top;border:1px solid #ddd;padding:6px}.none{color:#999}"
        ".firing{color:#dc2626}.inactive{color:#059669}"
    )
    text = (
        f"<!doctype html><meta charset=utf-8><title>Metrics</title><style>{style}</style>"
        f"{''.join(parts)}<h1>Alerts</h1><table>{states}</table>"
    )
    return text, filled_panels, empty


def main() -> None:
    """Watch for a while; see `--help`."""
    parser = argparse.ArgumentParser(description="Watch a llama.cpp with Prometheus.")
    parser.add_argument("--model", required=True, help="as LlamaCpp(model=…) takes it")
    parser.add_argument("--model-file", required=True, help="the GGUF file")
    parser.add_argument("--seconds", type=int, default=60, help="how long to watch (%(default)s)")
    parser.add_argument("--clients", type=int, default=8, help="of the load (%(default)s)")
    parser.add_argument("--freeze", action="store_true", help="stop the server at the end")
    parser.add_argument("--page", type=Path, default=Path("watch.html"), help="(%(default)s)")
    given = parser.parse_args()
    template = LlamaCpp(
        model=given.model,
        model_file=given.model_file,
        arg_dict={"ctx_size": 2048, "parallel": 2},
        startup_timeout=600,
        gpu=0,
        metrics=MetricsExporter(stall_timeout=10),
    )
    seen: set[str] = set()
    with (
        template.run_locally() as server,
        prometheus(f"localhost:{server.pod.port(EXPORTER_PORT)}") as source,
        load(server.base_url, given.clients),
    ):
        end = time.monotonic() + given.seconds
        frozen_from = end - given.seconds / 3 if given.freeze else float("inf")
        while time.monotonic() < end:
            if time.monotonic() > frozen_from:
                freeze("llama-server")
                frozen_from = float("inf")
            time.sleep(1)
            with contextlib.suppress(OSError):  # it does not answer yet
                seen |= {name for name, state in source.alerts().items() if state == "firing"}
        text, count, empty = page(source, given.seconds)
        given.page.write_text(text)
        print(f"{given.page}: {count} panels with data; without: {', '.join(empty) or 'none'}")
        print(f"alerts that fired: {', '.join(sorted(seen)) or 'none'}")
        now = sorted(name for name, state in source.alerts().items() if state == "firing")
        print(f"alerts that still fire: {', '.join(now) or 'none'}")


if __name__ == "__main__":
    main()
