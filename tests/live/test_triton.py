"""Triton, by its real command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import requests

from flytekitplugins.inference import ModelInferenceTemplate
from flytekitplugins.inference.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from flytekitplugins.inference.flyte.local import LocalServer

pytestmark = pytest.mark.live


def describe(repository: Path, startup: Any, free_port: Any, **env: str) -> ModelInferenceTemplate:
    ports = ["--http-port=8000", f"--grpc-port={free_port()}", f"--metrics-port={free_port()}"]
    addresses = [f"--{name}-address=127.0.0.1" for name in ("http", "grpc", "metrics")]
    return ModelInferenceTemplate(
        image="tritonserver",
        command=["tritonserver", f"--model-repository={repository}", *ports, *addresses],
        env=env,
        gpu=0,
        health_endpoint="/v2/health/ready",
        probes=startup("/v2/health/ready"),
        termination_grace_period=45,  # longer than the 30 s that it waits for a client that stays connected
    )


@pytest.fixture(scope="module")
def server(servers: Any, startup: Any, free_port: Any) -> Iterator[LocalServer]:
    repository = servers.model("triton", "triton-repository")
    with servers.running("triton", describe(repository, startup, free_port)) as running:
        yield running


def infer(server: LocalServer, version: int, x: list[float]) -> requests.Response:
    body = {"inputs": [{"name": "x", "shape": [len(x)], "datatype": "FP32", "data": x}]}
    return requests.post(f"{server.base_url}/v2/models/affine/versions/{version}/infer", json=body, timeout=60)


def test_it_is_ready_and_names_its_models(server: LocalServer) -> None:
    assert requests.get(f"{server.base_url}/v2/health/ready", timeout=10).status_code == 200
    index = requests.post(f"{server.base_url}/v2/repository/index", json={"ready": True}, timeout=10).json()
    assert sorted((entry["name"], entry["version"]) for entry in index) == [("affine", "1"), ("affine", "2")]


@pytest.mark.parametrize(("version", "expected"), [(1, [4.0, -1.0]), (2, [7.0, -3.0])])
def test_each_version_answers_for_itself(server: LocalServer, version: int, expected: list[float]) -> None:
    (output,) = infer(server, version, [3.0, -2.0]).json()["outputs"]
    assert (output["name"], output["shape"], output["data"]) == ("y", [2], expected)


def test_an_unknown_version_is_an_error(server: LocalServer) -> None:
    answer = infer(server, 3, [1.0])
    assert answer.status_code == 404
    assert "version 3 is not" in answer.json()["error"]


def test_its_metrics_are_on_a_port_of_their_own(
    server: LocalServer, metric_names: Callable[[str], set[str]], saved_metrics: Callable[[str], str]
) -> None:
    infer(server, 1, [1.0])
    (option,) = (word for word in server.template.command or () if word.startswith("--metrics-port="))
    page = requests.get(f"http://127.0.0.1:{option.partition('=')[2]}/metrics", timeout=10).text
    assert metric_names(saved_metrics("triton")) <= metric_names(page)
    (line,) = (line for line in page.splitlines() if line.startswith('nv_inference_count{model="affine",version="1"}'))
    assert float(line.split()[1]) >= 1


def test_a_model_that_does_not_load_ends_it(servers: Any, startup: Any, free_port: Any, tmp_path: Path) -> None:
    (tmp_path / "broken" / "1").mkdir(parents=True)
    (tmp_path / "broken" / "1" / "model.py").write_text("raise RuntimeError('this model is broken')\n")
    (tmp_path / "broken" / "config.pbtxt").write_text('backend: "python"\n')
    template = describe(tmp_path, startup, free_port)
    with (
        servers.on_path("triton"),
        pytest.raises(ServerError, match="failed to load all models"),
        template.run_locally(),
    ):
        pytest.fail("it started")
