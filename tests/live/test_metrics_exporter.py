"""The metrics exporter beside a real llama.cpp: saturated, and frozen."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from flytekitplugins.inference import LlamaCpp, MetricsExporter
from flytekitplugins.inference.facts.metrics_page import scan
from flytekitplugins.inference.programs.exporter.vocabulary import VOCABULARY
from patience import patient

if TYPE_CHECKING:
    from collections.abc import Callable

    from flytekitplugins.inference.flyte.local_run import LocalServer

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[2]
PORT = 9090
BOUND = 10
NAMES = {quantity: metric.name for quantity, metric in VOCABULARY.items()}
SATURATED_PAGES = int(os.environ.get("INFERENCE_SATURATED_PAGES", "4"))
"""How many pages of a saturated server to wait for; one comes in five seconds."""


@pytest.fixture(scope="module")
def template(servers: Any, tmp_path_factory: pytest.TempPathFactory) -> LlamaCpp:
    directory = Path(tmp_path_factory.mktemp("repository"))
    model = servers.model("llamacpp", "llama-gguf") / "model.gguf"
    shutil.copy(model, directory / "tiny.gguf")
    return LlamaCpp(
        model=f"file://{directory}",
        model_file="tiny.gguf",
        arg_dict={"ctx_size": 2048, "alias": "tiny", "parallel": 2},
        startup_timeout=180,
        termination_grace_period=2,
        gpu=0,
        cpu=1,
        mem="1Gi",
        metrics=MetricsExporter(stall_timeout=BOUND),
    )


def exporter_url(server: LocalServer) -> str:
    return f"http://localhost:{server.pod.port(PORT)}"


def page(server: LocalServer) -> str:
    return requests.get(f"{exporter_url(server)}/metrics", timeout=patient(20)).text


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + patient(seconds)
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def own(text: str, name: str) -> float:
    """Return the value of a metric with one sample."""
    return float(
        next(line for line in text.splitlines() if line.startswith(f"{name}{{")).split()[-1]
    )


def descendants(pid: int) -> list[int]:
    """Return a process's children and theirs: the server runs below the local runner's own."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [found for child in map(int, children) for found in (child, *descendants(child))]


@contextmanager
def load(server: LocalServer, clients: int = 8) -> Iterator[list[str]]:
    """Keep a server busy with more clients than it has slots."""
    stop = threading.Event()
    answers: list[str] = []

    def ask() -> None:
        while not stop.is_set():
            with suppress(requests.RequestException):
                answer = requests.post(
                    f"{server.base_url}/v1/completions",
                    json={"prompt": "one", "max_tokens": 500, "ignore_eos": True},
                    timeout=patient(60),
                )
                answers.append(answer.text)

    with ThreadPoolExecutor(clients) as pool:
        for _ in range(clients):
            pool.submit(ask)
        try:
            yield answers
        finally:
            stop.set()


def test_a_saturated_server_lives_and_a_frozen_one_is_started_anew(
    servers: Any, template: LlamaCpp
) -> None:
    with servers.on_path("llamacpp"), template.run_locally() as server:
        with load(server) as answers:
            wait_for(lambda: own(page(server), "inference_exporter_scrapes_total") > 1, 60)
            first = own(page(server), "inference_exporter_scrapes_total")
            waited = False
            while own(text := page(server), "inference_exporter_scrapes_total") < (
                first + SATURATED_PAGES
            ):
                assert own(text, "inference_live") == 1
                waited |= scan(text, NAMES).values["requests_waiting"] > 0
                time.sleep(0.5)
            assert waited, "it was not saturated"
            assert answers
            assert server.pod.restarts("model-server") == 0

            for pid in descendants(server.pod._container("model-server")._process.pid):
                os.kill(pid, signal.SIGSTOP)
            frozen_at = time.monotonic()
            live = f"{exporter_url(server)}/live"
            wait_for(lambda: requests.get(live, timeout=patient(20)).status_code == 503, BOUND + 30)
            seconds = time.monotonic() - frozen_at
            assert seconds < patient(BOUND + 10)
            wait_for(lambda: server.pod.restarts("model-server") == 1, 120)

        wait_for(lambda: own(page(server), "inference_server_restarts_total") == 1, 120)
        assert own(page(server), "inference_live") == 1
        answer = requests.post(
            f"{server.base_url}/v1/completions",
            json={"prompt": "one two", "max_tokens": 2},
            timeout=patient(60),
        )
        assert answer.json()["choices"][0]["text"] == " three four"
        assert server.pod.restarts("model-server") == 1
        assert server.pod.restarts("metrics-exporter") == 0
        print(f"saturated for {SATURATED_PAGES} pages; found {seconds:.1f} s after the freeze")


def test_the_page_of_the_exporter_is_that_of_the_server(servers: Any, template: LlamaCpp) -> None:
    with servers.running("llamacpp", template) as server:
        requests.post(
            f"{server.base_url}/v1/completions",
            json={"prompt": "one two", "max_tokens": 4},
            timeout=patient(60),
        )
        wait_for(lambda: scan(page(server), NAMES).values.get("generation_tokens", 0) == 4, 60)
        described = template.server()
        native = requests.get(f"{server.base_url}{described.metrics_path}", timeout=patient(20))
        assert scan(page(server), NAMES) == scan(native.text, described.metric_names)
        assert 'inference_start_phase_seconds{phase="server_load"' in page(server)
        wait_for(lambda: own(page(server), "inference_ready") == 1, 60)


@pytest.mark.slow
def test_the_example_draws_what_prometheus_has(servers: Any, tmp_path: Path) -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed (Debian: apt-get install prometheus)")
    model = servers.model("llamacpp", "llama-gguf")
    page = tmp_path / "watch.html"
    words = ["--model", f"file://{model}", "--model-file", "model.gguf", "--page", str(page)]
    with servers.on_path("llamacpp"):
        done = subprocess.run(
            [sys.executable, "examples/observability/watch.py", *words, "--seconds", "20"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "alerts that fired: none" in done.stdout
    text = page.read_text(encoding="utf-8")
    for title in ("Ready", "Requests", "Tokens", "Phases of the start", "Cold starts"):
        assert re.search(rf"<figcaption>{title}</figcaption><small>most .*?<polyline", text), title
