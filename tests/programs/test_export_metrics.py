"""The exporter as a program: against servers of any kind, with real processes and connections."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from flytekitplugins.inference.errors import UsageError
from flytekitplugins.inference.programs import export_metrics
from flytekitplugins.inference.programs.exporter.page_server import MAX_CONNECTIONS
from patience import patient

PAGES = Path(__file__).parents[1] / "data" / "metrics"
KEY = "sk-very-secret"


class ModelServer:
    """A server whose answers a test sets, and that remembers who asked."""

    def __init__(self) -> None:
        self.page = (PAGES / "vllm-cpu.txt").read_bytes()
        self.asked: list[tuple[str, str]] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stub.asked.append((self.path, self.headers.get("Authorization", "")))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(stub.page if self.path == "/metrics" else b"{}")

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def model_server() -> Iterator[ModelServer]:
    server = ModelServer()
    yield server
    server.close()


@dataclass
class Exporter:
    process: subprocess.Popen[str]
    url: str

    def get(self, path: str) -> requests.Response:
        return requests.get(f"{self.url}{path}", timeout=patient(20))

    def wait_for(self, text: str) -> str:
        """Return the page once it has `text`."""
        for _ in range(round(patient(600))):
            page = self.get("/metrics").text
            if text in page:
                return page
            threading.Event().wait(0.05)
        raise AssertionError(f"no {text} on\n{page}")

    def end(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGTERM)
        _, log = self.process.communicate(timeout=patient(20))
        return self.process.returncode, log


@pytest.fixture
def export(model_server: ModelServer) -> Iterator[Callable[..., Exporter]]:
    processes = []

    def run(*options: str, url: str = "", **environ: str) -> Exporter:
        command = [
            sys.executable,
            "-m",
            export_metrics.__name__,
            url or f"{model_server.url}/metrics",
        ]
        process = subprocess.Popen(
            [*command, "--port", "0", "--host", "127.0.0.1", *options],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environ},
        )
        processes.append(process)
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("export_metrics ready port="), line
        return Exporter(process, f"http://127.0.0.1:{line.rpartition('=')[2].strip()}")

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def test_the_page_has_one_vocabulary_with_the_servers_labels(export: Any) -> None:
    exporter = export("--server", "vllm", "--model", "tiny", "--names", "vllm")
    page = exporter.wait_for("inference_up{server=")
    page = exporter.wait_for("inference_heartbeat_total{")
    lines = page.splitlines()
    labels = 'engine="0",model_name="tiny",server="vllm"'
    assert f"inference_generation_tokens_total{{{labels}}} 4456" in lines
    assert (
        'inference_requests_finished_total{engine="0",reason="length",model_name="tiny",'
        'server="vllm"} 279'
    ) in lines
    assert (
        'inference_time_to_first_token_seconds_bucket{engine="0",le="0.25",model_name="tiny",'
        'server="vllm"} 197'
    ) in lines
    assert "# TYPE inference_time_to_first_token_seconds histogram" in lines
    assert 'inference_up{server="vllm",model_name="tiny"} 1' in lines
    assert "vllm:" not in page
    assert "ml_" not in page


def test_other_names_and_the_servers_own_lines_by_option(export: Any) -> None:
    exporter = export("--model", "tiny", "--alias", "ml", "--alias", "gen_ai", "--native")
    page = exporter.wait_for("vllm:num_requests_running")
    for name in (
        "ml_model_healthy",
        "ml_health_check_latency_seconds_bucket",
        "ml_exporter_errors_total",
        "ml_requests_running",
        "ml_requests_waiting",
        "ml_gpu_kv_cache_usage",
        "gen_ai_server_request_duration_seconds_bucket",
        "gen_ai_server_time_to_first_token_seconds_sum",
    ):
        assert f"\n{name}{{" in page, name
    assert "_created" not in page


def test_many_readers_cause_one_request_to_the_server(
    export: Any, model_server: ModelServer
) -> None:
    exporter = export()
    exporter.wait_for("inference_up 1")
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: exporter.get("/metrics").status_code, range(100)))
    assert answers == [200] * 100
    seconds = float(json.loads(exporter.get("/summary").text)["observed_seconds"])
    asked = [path for path, _ in model_server.asked if path == "/metrics"]
    assert len(asked) <= 1 + seconds // 5


def test_the_key_goes_to_the_server_and_nowhere_else(
    export: Any, model_server: ModelServer
) -> None:
    model_server.page = f'vllm:num_requests_running{{key="{KEY}"}} 3\n'.encode()
    exporter = export("--token-env", "THE_KEY", "--native", THE_KEY=KEY)
    pages = exporter.wait_for("inference_requests_running{")
    pages += "".join(exporter.get(path).text for path in ("/live", "/summary", "/nothing"))
    assert ("/metrics", f"Bearer {KEY}") in model_server.asked
    code, log = exporter.end()
    assert code == 143
    assert KEY not in pages + log


def test_a_summary_is_written_at_the_end(export: Any, tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    exporter = export("--summary", str(path), "--server", "vllm")
    exporter.wait_for("inference_heartbeat_total")
    code, _ = exporter.end()
    assert code == 143
    summary = json.loads(path.read_text())
    assert summary["version"] == 1
    assert summary["server"] == "vllm"
    assert summary["totals"]["generation_tokens"] == 4456
    assert summary["latencies"]["time_to_first_token"]["count"] == 279
    assert summary["series"]["requests_running"][0] == 0


def test_what_the_start_and_the_loader_say(export: Any, tmp_path: Path) -> None:
    report = tmp_path / "cold-start.json"
    report.write_text(
        json.dumps(
            {"phases": [{"name": "server_load", "seconds": 4.5}, {"name": 3}], "total_seconds": 9}
        )
    )
    (tmp_path / "metadata.json").write_text(
        json.dumps(
            {
                "model_id": "owner/model",
                "revision": "abc",
                "bytes": 1234,
                "source": "https://host/model?signature=secret",
            }
        )
    )
    exporter = export("--start-report", str(report), "--models", str(tmp_path))
    lines = exporter.wait_for("inference_start_seconds 9").splitlines()
    assert 'inference_start_phase_seconds{phase="server_load"} 4.5' in lines
    assert "inference_model_bytes 1234" in lines
    assert (
        'inference_model_info{model_id="owner/model",revision="abc",source="https://host/model?..."'
        "} 1" in lines
    )


def test_a_server_that_is_not_there_yet_is_no_dead_one(export: Any) -> None:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        exporter = export(url=f"http://127.0.0.1:{free.getsockname()[1]}/metrics")
        lines = exporter.wait_for('reason="refused"} 1').splitlines()
    assert "inference_up 0" in lines
    assert "inference_live 1" in lines
    assert exporter.get("/live").status_code == 200
    assert exporter.get("/started").status_code == 200
    assert exporter.get("/healthz").status_code == 200


def test_after_a_restart_the_kubelet_waits_until_the_server_answers_again(
    export: Any, model_server: ModelServer
) -> None:
    exporter = export()
    assert exporter.get("/started").status_code == 200
    exporter.wait_for("inference_up 1")
    answers = []
    for _ in range(round(patient(600))):
        answers.append(exporter.get("/started").status_code)
        if answers[-1] == 200:
            break
        threading.Event().wait(0.1)
    assert answers[0] == 503
    assert answers[-1] == 200
    assert exporter.get("/live").status_code == 200


def test_connections_that_say_nothing_keep_nobody_out(export: Any) -> None:
    exporter = export()
    port = int(exporter.url.rpartition(":")[2])
    silent = [
        socket.create_connection(("127.0.0.1", port), timeout=patient(10))
        for _ in range(MAX_CONNECTIONS + 8)
    ]
    try:
        assert exporter.get("/live").status_code == 200
        page = exporter.get("/metrics").text
        closed = next(
            line for line in page.splitlines() if line.startswith("inference_exporter_closed")
        )
        assert int(closed.split()[1]) >= 8
    finally:
        for connection in silent:
            connection.close()


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (b"GET /live HTTP/1.1\r\n\r\n", b"200"),
        (b"HEAD /metrics HTTP/1.1\r\n\r\n", b"200"),
        (b"GET /live?probe=1 HTTP/1.0\n\n", b"200"),
        (b"POST /live HTTP/1.1\r\n\r\n", b"405"),
        (b"GET /etc/passwd HTTP/1.1\r\n\r\n", b"404"),
        (b"GET\r\n\r\n", b""),
        (b"\x00\xff\r\n\r\n", b""),
        (b"GET /" + b"a" * 20_000, b""),
    ],
)
def test_requests_of_any_kind(export: Any, request_text: bytes, status: bytes) -> None:
    exporter = export()
    port = int(exporter.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=patient(10)) as connection:
        connection.sendall(request_text)
        try:
            answer = connection.recv(100)
        except ConnectionResetError:  # it did not read all of a request that is too long
            answer = b""
    assert answer.partition(b" ")[2][:3] == status
    assert exporter.get("/live").status_code == 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["ftp://host/metrics"], "not a plain http"),
        (["http://u:p@host/metrics"], "not a plain http"),
        (["http://h/m", "--names", "nobody"], "neither a known server"),
        (["http://h/m", "--names", "[1]"], "neither a known server"),
        (["http://h/m", "--names", '{"speed": "x"}'], "unknown quantities: speed"),
        (["http://h/m", "--port", "99999"], "not a port"),
        (["http://h/m", "--bound", "0"], "above 0"),
        (["http://h/m", "--alias", "other"], "invalid choice"),
    ],
)
def test_wrong_arguments(options: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        export_metrics.main(options, {})


def test_a_port_that_is_taken_is_named() -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with pytest.raises(Exception, match=f"cannot listen on port {port}"):
            export_metrics.main(["http://h/m", "--host", "127.0.0.1", "--port", port], {})
