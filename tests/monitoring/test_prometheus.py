"""A real Prometheus reads the exporter of a server: panels have data, alerts fire and clear."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from flytekitplugins.inference.monitoring import dashboard, rule_file
from flytekitplugins.inference.monitoring.dashboards import DASHBOARDS
from flytekitplugins.inference.programs import export_metrics
from patience import patient

PAGE = (Path(__file__).parents[1] / "data" / "metrics" / "vllm-cpu.txt").read_text()
LABELS = {
    "namespace": "p-d",
    "pod": "a0",
    "project": "p",
    "domain": "d",
    "task_name": "t",
}
OTHERS = """\
DCGM_FI_DEV_GPU_UTIL{gpu="0"} 0
kube_pod_init_container_resource_requests{container="model-server",resource="nvidia_com_gpu"} 1
"""
"""What other exporters say of the pod."""
UNSEEN = {"Failed and refused"}
"""Panels with a query of which vLLM's page has nothing; its other query has."""

pytestmark = [pytest.mark.slow]


class Stub:
    """A vLLM whose counters grow with each page, and what other exporters say."""

    def __init__(self) -> None:
        self.pages = 0
        self.is_ready = True
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if stub.is_ready or self.path != "/health" else 503)
                self.end_headers()
                self.wfile.write(stub.text(self.path).encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def text(self, path: str) -> str:
        if path == "/others":
            return OTHERS
        if path != "/metrics":
            return "{}"
        self.pages += 1
        return re.sub(
            r"(?m)^(vllm:\S+?(?:_total|_count|_sum|_bucket)\{.*?\}) (\S+)$",
            lambda match: f"{match[1]} {float(match[2]) + 5 * self.pages}",
            PAGE,
        )


@pytest.fixture(scope="module")
def stub() -> Iterator[Stub]:
    stub = Stub()
    yield stub
    stub.server.shutdown()
    stub.server.server_close()


@pytest.fixture(scope="module")
def exporter(stub: Stub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("exporter")
    (directory / "report.json").write_text(
        '{"phases": [{"name": "server_load", "seconds": 4}], "total_seconds": 5}'
    )
    (directory / "metadata.json").write_text('{"model_id": "m", "bytes": 1}')
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", export_metrics.__name__, f"http://{stub.address}/metrics"),
            *("--health", f"http://{stub.address}/health", "--port", "0", "--host", "127.0.0.1"),
            *("--start-report", str(directory / "report.json"), "--models", str(directory)),
            *("--names", "vllm", "--server", "vllm", "--model", "tiny"),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    yield f"127.0.0.1:{process.stderr.readline().rpartition('=')[2].strip()}"
    process.terminate()
    process.communicate()


@pytest.fixture(scope="module")
def prometheus(
    exporter: str, stub: Stub, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed (Debian: apt-get install prometheus)")
    directory = tmp_path_factory.mktemp("prometheus")
    rules = rule_file()
    rules["groups"][0]["interval"] = "1s"
    for rule in rules["groups"][0]["rules"]:
        rule["for"] = "1s"
    (directory / "rules.yml").write_text(json.dumps(rules))
    jobs = [("exporter", exporter, "/metrics"), ("others", stub.address, "/others")]
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "rule_files": ["rules.yml"],
        "scrape_configs": [
            {
                "job_name": name,
                "metrics_path": path,
                "static_configs": [{"targets": [target], "labels": LABELS}],
            }
            for name, target, path in jobs
        ],
    }
    (directory / "prometheus.yml").write_text(json.dumps(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    process = subprocess.Popen(
        [
            program,
            f"--config.file={directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address={address}",
            "--log.level=error",
        ]
    )
    yield f"http://{address}"
    process.terminate()
    process.wait()


def until(condition: Callable[[], Any], seconds: float) -> Any:
    end = time.monotonic() + patient(seconds)
    while True:
        try:
            if result := condition():
                return result
        except requests.ConnectionError:  # Prometheus does not answer yet
            pass
        assert time.monotonic() < end
        time.sleep(0.5)


def ask(prometheus: str, expression: str) -> list[Any]:
    for name in ("namespace", "pod", "project", "domain"):
        expression = expression.replace(f"${name}", ".*")
    expression = expression.replace("$__rate_interval", "30s")
    answer = requests.get(
        f"{prometheus}/api/v1/query", params={"query": expression}, timeout=patient(20)
    ).json()
    assert answer["status"] == "success", answer
    result: list[Any] = answer["data"]["result"]
    return result


PANELS = [
    (name, panel["title"], tuple(target["expr"] for target in panel["targets"]))
    for name in DASHBOARDS
    for panel in dashboard(name)["panels"]
    if panel["type"] != "row"
]


@pytest.mark.parametrize(
    ("name", "title", "expressions"), PANELS, ids=lambda value: str(value)[:24]
)
def test_every_panel_has_data(
    prometheus: str, name: str, title: str, expressions: tuple[str, ...]
) -> None:
    until(lambda: ask(prometheus, "max(inference_exporter_scrapes_total) > 2"), 60)
    answers = until(
        lambda: [found for expression in expressions if (found := ask(prometheus, expression))], 30
    )
    assert len(answers) == len(expressions) or title in UNSEEN or title == "Failures"


def states(prometheus: str) -> dict[str, str]:
    groups = requests.get(f"{prometheus}/api/v1/rules", timeout=patient(20)).json()["data"][
        "groups"
    ]
    for group in groups:
        for rule in group["rules"]:
            assert rule["health"] in ("ok", "unknown"), rule
    return {rule["name"]: rule["state"] for group in groups for rule in group["rules"]}


def test_an_alert_fires_and_clears_with_the_server(prometheus: str, stub: Stub) -> None:
    alert = "InferenceServerNotReady"
    until(lambda: ask(prometheus, "max(inference_ready) == 1"), 60)
    until(lambda: states(prometheus).get(alert) == "inactive", 60)
    stub.is_ready = False
    try:
        until(lambda: states(prometheus)[alert] == "firing", 60)
    finally:
        stub.is_ready = True
    until(lambda: states(prometheus)[alert] == "inactive", 60)
