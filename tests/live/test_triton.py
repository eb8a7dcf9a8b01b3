"""Triton as its template describes it: models loaded by name, updated live, and rolled back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import requests

from flytekitplugins.inference import Triton
from flytekitplugins.inference.errors import ServerError
from flytekitplugins.inference.facts.metric_names import names_of
from patience import patient, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from flytekitplugins.inference.flyte.local_run import LocalServer

pytestmark = pytest.mark.live

CONFIG = """\
backend: "python"
max_batch_size: 0
input [ { name: "x" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ -1 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
"""
MODEL = """\
import triton_python_backend_utils as utils


class TritonPythonModel:
    def initialize(self, args):
        self.factor = float({factor!r})

    def execute(self, requests):
        inputs = [utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        results = [(self.factor * x).astype("float32") for x in inputs]
        return [utils.InferenceResponse([utils.Tensor("y", y)]) for y in results]
"""


def make_repository(directory: Path, **factors: object) -> Path:
    """Return a repository whose models multiply by their factor.

    A model whose factor is not a number fails to load.
    """
    for name, factor in factors.items():
        (directory / name / "1").mkdir(parents=True)
        (directory / name / "1" / "model.py").write_text(MODEL.format(factor=str(factor)))
        (directory / name / "config.pbtxt").write_text(CONFIG)
    return directory


def release(repository: Path, to: Path) -> None:
    """Make `to` what lies in the store, in one step."""
    link = to.with_name("next")
    link.symlink_to(repository)
    link.replace(to)


def describe(store: Path, reserve_port: Any, **options: Any) -> Triton:
    ports = {"grpc_port": reserve_port(), "metrics_port": reserve_port()}
    given: dict[str, Any] = {
        "gpu": 0,
        "startup_timeout": 120,
        "model_names": ["double", "triple"],
        **ports,
        **options,
    }
    return Triton(model=f"file://{store}", **given)


def answer(server: LocalServer, model: str) -> float:
    body = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [10.0]}]}
    told = requests.post(
        f"{server.base_url}/v2/models/{model}/infer", json=body, timeout=patient(60)
    )
    assert told.status_code == 200, told.text
    return float(told.json()["outputs"][0]["data"][0])


def answers(server: LocalServer) -> tuple[float, float]:
    return answer(server, "double"), answer(server, "triple")


def test_a_repository_is_replaced_while_it_is_served(
    servers: Any, reserve_port: Any, tmp_path: Path, metric_names: Any, saved_metrics: Any
) -> None:
    first = make_repository(tmp_path / "first", double=2, triple=3, unwanted=9)
    second = make_repository(tmp_path / "second", double=20, triple=30, unwanted=90)
    release(first, tmp_path / "store")
    template = describe(tmp_path / "store", reserve_port, update_interval=1)
    with servers.running("triton", template) as server:
        assert answers(server) == (20, 30)
        index = requests.post(
            f"{server.base_url}/v2/repository/index", json={"ready": True}, timeout=10
        ).json()
        assert sorted(entry["name"] for entry in index) == [
            "double",
            "triple",
        ]  # "unwanted" is not loaded
        release(second, tmp_path / "store")
        wait_for(lambda: answers(server) == (200, 300))
        release(
            first, tmp_path / "store"
        )  # whose files are older than all that the server has loaded since
        wait_for(lambda: answers(server) == (20, 30))
        page = requests.get(
            f"http://127.0.0.1:{template.metrics_port}/metrics", timeout=patient(10)
        ).text
        assert metric_names(saved_metrics("triton")) <= metric_names(page)
        names = {**template.server().metric_names}
        assert names
        del names["time_to_first_token"]  # only with --metrics-config histogram_latencies=true
        assert all(metric_names(page) & {*names_of(names, quantity)} for quantity in names)


def test_a_refused_repository_leaves_no_mixture(
    servers: Any, reserve_port: Any, tmp_path: Path
) -> None:
    good = make_repository(tmp_path / "good", double=2, triple=3)
    half = make_repository(tmp_path / "half", double=20, triple="no number")
    better = make_repository(tmp_path / "better", double=4, triple=6)
    release(good, tmp_path / "store")
    # after a load that failed, Triton 2.51 does not end before this time is over
    template = describe(
        tmp_path / "store", reserve_port, update_interval=1, arg_dict={"exit_timeout_secs": 3}
    )
    with servers.running("triton", template) as server:
        release(half, tmp_path / "store")
        wait_for(
            lambda: answers(server) == (200, 30)
        )  # the first model is new, the second is refused
        wait_for(lambda: answers(server) == (20, 30))
        assert (
            requests.get(f"{server.base_url}/v2/health/ready", timeout=patient(10)).status_code
            == 200
        )
        release(better, tmp_path / "store")
        wait_for(lambda: answers(server) == (40, 60))


def test_models_may_be_loaded_by_the_task(servers: Any, reserve_port: Any, tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "store", double=2, triple=3)
    template = describe(repository, reserve_port, model_names=[], model_control_mode="explicit")
    with servers.running("triton", template) as server:
        assert (
            requests.get(
                f"{server.base_url}/v2/models/double/ready", timeout=patient(10)
            ).status_code
            == 400
        )
        load = f"{server.base_url}/v2/repository/models/double/load"
        assert requests.post(load, json={}, timeout=patient(60)).status_code == 200
        assert answer(server, "double") == 20


def test_a_model_that_is_not_there_ends_the_start(
    servers: Any, reserve_port: Any, tmp_path: Path
) -> None:
    template = describe(
        make_repository(tmp_path / "store", double=2),
        reserve_port,
        startup_timeout=round(patient(15)),
    )
    with (
        servers.on_path("triton"),
        pytest.raises(ServerError, match="triple"),
        template.run_locally(),
    ):
        pytest.fail("it started")


def test_its_options_are_taken(servers: Any, reserve_port: Any, tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "store", double=2, triple=3)
    options = {
        "log-verbose": 1,
        "strict_readiness": True,
        "disable_auto_complete_config": True,
        "backend_config": [
            "python,shm-default-byte-size=1048576",
            "python,shm-growth-byte-size=1048576",
        ],
        "metrics_config": "histogram_latencies=true",
        "allow_grpc": False,
        "model_load_thread_count": os.cpu_count() or 1,
    }
    with servers.running("triton", describe(repository, reserve_port, arg_dict=options)) as server:
        assert answers(server) == (20, 30)
