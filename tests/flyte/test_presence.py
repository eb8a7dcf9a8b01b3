"""A function without its server fails at once, on a machine where nobody starts one."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flytekit import task

from flytekitplugins.inference import (
    VLLM,
    APIKeySecret,
    ConfigError,
    ModelInferenceTemplate,
    ServerError,
    ServerNotReadyError,
)
from flytekitplugins.inference.client import health
from flytekitplugins.inference.client.batch import chat
from flytekitplugins.inference.client.presence import is_in_a_cluster


@pytest.fixture(autouse=True)
def a_laptop(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KUBERNETES_SERVICE_HOST", "FLYTE_INTERNAL_EXECUTION_ID", "INFERENCE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Yield a port on which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@contextmanager
def server(body: Any, *, status: int = 200, key: str = "") -> Iterator[int]:
    """Answer every request with `body`; with `key` only requests that bring it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = not key or self.headers.get("Authorization") == f"Bearer {key}"
            text = json.dumps(body).encode() if allowed else b"{}"
            self.send_response(status if allowed else 401)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *args: object) -> None:
            pass

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield listening.server_port
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


def models(*names: str) -> dict[str, Any]:
    return {"data": [{"id": name} for name in names]}


def vllm(port: int, **options: Any) -> VLLM:
    return VLLM(arg_dict={"model": "org/model"}, port=port, **options)


@pytest.mark.parametrize("call", ["client", "async_client", "batch"])
def test_a_forgotten_task_config_is_named(silent_port: int, call: str) -> None:
    template = vllm(silent_port)
    options = {"work": chat()} if call == "batch" else {}
    rows = [["a"]] if call == "batch" else []
    with pytest.raises(ServerNotReadyError) as error:
        getattr(template, call)(*rows, **options)
    text = str(error.value)
    assert "No server of this VLLM runs on this machine" in text
    assert str(silent_port) in text
    assert "task_config=" in text
    assert "pod_template=" in text


@pytest.mark.parametrize("attach", ["nothing", "pod_template"])
def test_the_tasks_that_start_no_server_here_fail_with_the_cause(
    silent_port: int, attach: str
) -> None:
    template = vllm(silent_port)
    options = {"pod_template": template.pod_template} if attach == "pod_template" else {}

    @task(**options)
    def ask() -> str:
        return str(template.client())

    with pytest.raises(Exception, match="No server of this VLLM runs on this machine"):
        ask()


def test_a_variable_that_names_no_server_is_named(
    silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERENCE_URL", f"http://127.0.0.1:{silent_port}")
    with pytest.raises(ServerNotReadyError, match="INFERENCE_URL names a server that does not"):
        vllm(8000).client()


@pytest.mark.parametrize("variable", ["KUBERNETES_SERVICE_HOST", "FLYTE_INTERNAL_EXECUTION_ID"])
def test_in_a_cluster_a_client_waits_as_before(
    silent_port: int, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "x")
    assert is_in_a_cluster()
    vllm(silent_port).client().close()


def test_a_stranger_on_the_port_is_refused() -> None:
    with server(models("their/model")) as port:
        with pytest.raises(ServerError) as error:
            vllm(port).client()
        assert not isinstance(error.value, ServerNotReadyError)
        assert "it lists 'their/model', not 'org/model'" in str(error.value)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (models("org/model"), 200),
        (models("adapter", "org/model"), 200),
        # an answer that is no list says nothing
        ({"detail": "not found"}, 404),
        (["something"], 200),
        ({}, 500),
    ],
)
def test_the_described_server_is_taken(body: Any, status: int) -> None:
    with server(body, status=status) as port:
        vllm(port).client().close()


def test_a_server_elsewhere_may_have_other_models(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(models("their/model")) as port:
        monkeypatch.setenv("INFERENCE_URL", f"http://127.0.0.1:{port}")
        vllm(8000).client().close()


def test_an_image_without_a_list_needs_an_open_port_only() -> None:
    with server({}) as port:
        template = ModelInferenceTemplate(image="a/b:1", port=port)
        assert health.ask(template.base_url).is_there
        template.client().close()


def test_an_endpoint_can_be_made_without_a_server(silent_port: int) -> None:
    template = vllm(silent_port)
    assert template.base_url == f"http://localhost:{silent_port}"
    assert template.endpoint.at("http://elsewhere.invalid").client()


# API keys


KEY = APIKeySecret(group="llm", key="key")


@pytest.mark.parametrize("variable", ["VLLM_API_KEY", "_FSEC_LLM_KEY"])
def test_the_client_gets_the_key_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "k")
    with server(models("their/model"), key="k") as port:
        template = vllm(port, api_key_secret=KEY)
        assert template.endpoint.api_key == "k"
        # the list was read with the key
        with pytest.raises(ServerError, match="lists 'their/model'"):
            template.client()


def test_the_platforms_variable_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "mine")
    monkeypatch.setenv("_FSEC_LLM_KEY", "platform")
    assert vllm(8000, api_key_secret=KEY).endpoint.api_key == "platform"


def test_without_a_key_a_gated_start_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VLLM_API_KEY", "_FSEC_LLM_KEY"):
        monkeypatch.delenv(name, raising=False)
    template = vllm(8000, api_key_secret=KEY, startup_timeout=30)
    with pytest.raises(ConfigError, match="export VLLM_API_KEY=…") as error, template.run_locally():
        pass
    assert "namespace" not in str(error.value)
