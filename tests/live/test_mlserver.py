"""MLServer with scikit-learn, by its real command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import requests

from flytekitplugins.inference import ModelInferenceTemplate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flytekitplugins.inference.flyte.local import LocalServer

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def server(servers: Any, startup: Any, free_port: Any, tmp_path_factory: Any) -> Iterator[LocalServer]:
    template = ModelInferenceTemplate(
        image="mlserver",
        command=["mlserver", "start", str(servers.model("mlserver", "mlserver-folder"))],
        env={
            "MLSERVER_HOST": "127.0.0.1",
            "MLSERVER_HTTP_PORT": "8080",
            "MLSERVER_GRPC_PORT": str(free_port()),
            "MLSERVER_METRICS_PORT": str(free_port()),
            "MLSERVER_METRICS_DIR": str(tmp_path_factory.mktemp("metrics")),
        },
        port=8080,
        gpu=0,
        health_endpoint="/v2/health/ready",
        probes=startup("/v2/health/ready"),
        termination_grace_period=30,
    )
    with servers.running("mlserver", template) as running:
        yield running


def infer(server: LocalServer, x: list[float], *, model: str = "affine") -> requests.Response:
    body = {"inputs": [{"name": "x", "shape": [len(x), 1], "datatype": "FP64", "data": x}]}
    return requests.post(f"{server.base_url}/v2/models/{model}/infer", json=body, timeout=60)


def test_it_is_ready_and_names_its_models(server: LocalServer) -> None:
    assert requests.get(f"{server.base_url}/v2/health/ready", timeout=10).status_code == 200
    index = requests.post(f"{server.base_url}/v2/repository/index", json={}, timeout=10).json()
    assert [(entry["name"], entry["version"], entry["state"]) for entry in index] == [("affine", "1", "READY")]


def test_it_predicts(server: LocalServer) -> None:
    (output,) = infer(server, [3.0, -2.0]).json()["outputs"]
    assert output["data"] == pytest.approx([7.0, -3.0])


def test_an_unknown_model_is_an_error(server: LocalServer) -> None:
    answer = infer(server, [1.0], model="none")
    assert answer.status_code == 404
    assert "none" in answer.json()["error"]


def test_its_metrics_are_on_a_port_of_their_own(
    server: LocalServer, metric_names: Callable[[str], set[str]], saved_metrics: Callable[[str], str]
) -> None:
    infer(server, [1.0])
    port = (server.template.env or {})["MLSERVER_METRICS_PORT"]
    page = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
    assert metric_names(saved_metrics("mlserver")) <= metric_names(page)
    answered = [line for line in page.splitlines() if line.startswith("model_infer_request_success_total{")]
    assert sum(float(line.split()[-1]) for line in answered) >= 1
