"""How a task reaches its server: the same code with a sidecar, locally, and with one elsewhere."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from flytekit import task

from flytekitplugins.inference import (
    NIM,
    VLLM,
    ConfigError,
    ModelInferenceTemplate,
    ModelServers,
    NIMSecrets,
    Server,
)
from patience import patient
from ports import reserve_port
from users.minimal import ECHO, SERVER, ask

METRICS_PORT = reserve_port()
TEMPLATE = replace(ECHO, port=28141)
PAIR = ModelServers({"one": replace(ECHO, port=28142), "two-b": replace(ECHO, port=28143)})


@dataclass(frozen=True, kw_only=True)
class _WithMetrics(ModelInferenceTemplate):
    def server(self) -> Server:
        return Server(
            more_ports=(METRICS_PORT,), metrics_port=METRICS_PORT, metrics_path="/metrics"
        )


@task(task_config=TEMPLATE)
def who() -> str:
    return json.dumps(ask(TEMPLATE))


@task(task_config=TEMPLATE)
async def who_async() -> str:
    return json.dumps(ask(TEMPLATE))


@task(task_config=PAIR)
def who_of_two() -> list[str]:
    return [json.dumps(ask(PAIR["one"])), json.dumps(ask(PAIR["two-b"]))]


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """The address of a server that was there before."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(
                {"path": self.path, "key": self.headers.get("Authorization")}
            ).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Requests are not logged."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_of_a_sidecar() -> None:
    endpoint = VLLM(model="acme/chat", port=9000, startup_timeout=60).endpoint
    assert (endpoint.url, endpoint.protocol, endpoint.model) == (
        "http://localhost:9000",
        "openai",
        "acme/chat",
    )
    assert endpoint.health_url == "http://localhost:9000/health"
    assert endpoint.metrics_url == "http://localhost:9000/metrics"
    assert endpoint.cold_start == "/shared/cold-start.json"
    assert VLLM().endpoint.cold_start is None, "only a gate writes it"


def test_of_an_image_that_says_nothing() -> None:
    endpoint = ModelInferenceTemplate(image="a:1").endpoint
    assert (endpoint.protocol, endpoint.model, endpoint.health_url, endpoint.metrics_url) == (
        "none",
        "",
        None,
        None,
    )


def test_of_one_of_several() -> None:
    nim = NIM(secrets=NIMSecrets(ngc_secret_group="g", ngc_secret_key="k"), startup_timeout=60)
    pair = ModelServers({"a": nim, "b": VLLM(port=8001, startup_timeout=60)})
    assert pair["a"].endpoint.health_url == "http://localhost:8000/v1/health/ready"
    assert pair["a"].endpoint.metrics_url == "http://localhost:8000/v1/metrics"
    assert pair["b"].endpoint.cold_start == "/shared/cold-start-b.json"


def test_on_one_machine_it_follows_the_ports_and_paths(free_port: int) -> None:
    template = _WithMetrics(
        image="echo:1",
        command=["python", SERVER, "$(INFERENCE_PORT)"],
        health_endpoint="/health",
        port=free_port,
        gpu=0,
        startup_timeout=round(patient(15)),
    )
    with socket.socket() as busy, socket.socket() as busy_too:
        busy.bind(("0.0.0.0", free_port))
        busy_too.bind(("0.0.0.0", METRICS_PORT))
        with template.run_locally() as server:
            endpoint = template.endpoint
            assert endpoint.url == server.base_url != f"http://localhost:{free_port}"
            assert endpoint.health_url == f"{server.base_url}/health"
            assert (
                endpoint.metrics_url == f"http://localhost:{server.pod.port(METRICS_PORT)}/metrics"
            )
            assert endpoint.metrics_url != f"http://localhost:{METRICS_PORT}/metrics"
            assert json.loads(Path(endpoint.cold_start or "").read_text())["outcome"] == "ready"
            with template.client() as client:
                assert client.get("/ask").json()["pid"]


def test_the_environment_names_a_server_and_none_is_started(
    elsewhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERENCE_URL", elsewhere)
    monkeypatch.setenv("INFERENCE_API_KEY", "secret")
    assert TEMPLATE.base_url == elsewhere
    assert "secret" not in repr(TEMPLATE.endpoint)
    assert json.loads(who())["path"] == "/ask"
    assert json.loads(asyncio.run(who_async()))["path"] == "/ask"
    with TEMPLATE.client() as client:
        assert client.get("/x").json() == {"path": "/x", "key": "Bearer secret"}


def test_the_environment_names_each_of_several_by_its_name(
    elsewhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERENCE_URL_ONE", f"{elsewhere}/one")
    monkeypatch.setenv("INFERENCE_URL_TWO_B", f"{elsewhere}/two")
    assert [json.loads(answer)["path"] for answer in who_of_two()] == ["/one/ask", "/two/ask"]


def test_an_address_that_is_none_is_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("INFERENCE_URL", "localhost:8000")
    with pytest.raises(ConfigError, match="INFERENCE_URL is not an http or https URL"):
        who()


def test_at_is_the_same_kind_of_server_elsewhere() -> None:
    endpoint = VLLM(model="acme/chat").at("https://llm.example.com/v1", api_key="secret")
    assert (endpoint.url, endpoint.protocol, endpoint.model) == (
        "https://llm.example.com",
        "openai",
        "acme/chat",
    )
    assert endpoint.health_url == "https://llm.example.com/health"
    assert "secret" not in repr(endpoint)
