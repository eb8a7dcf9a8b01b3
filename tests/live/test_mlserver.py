"""MLServer as its template describes it: bare models and folders with settings, updated live."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import requests

from flytekitplugins.inference import MLServer
from flytekitplugins.inference.facts.metric_names import names_of
from patience import patient, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from flytekitplugins.inference.flyte.local_run import LocalServer

pytestmark = pytest.mark.live

PROGRAMS = "flytekitplugins.inference.programs"

MAKE = """
import sys, joblib, numpy as np
from sklearn.linear_model import LinearRegression
x = np.arange(4.0).reshape(-1, 1)
joblib.dump(LinearRegression().fit(x, float(sys.argv[2]) * x[:, 0]), sys.argv[1])
"""

MAKE_FOR_MLFLOW = """
import sys, mlflow, numpy as np
from sklearn.linear_model import LinearRegression
x = np.arange(4.0).reshape(-1, 1)
model = LinearRegression().fit(x, float(sys.argv[2]) * x[:, 0])
signature = mlflow.models.infer_signature(x, model.predict(x))
mlflow.sklearn.save_model(model, sys.argv[1], signature=signature)
"""


def make_model(servers: Any, directory: Path, factor: float) -> Path:
    """Return a directory with a regression of scikit-learn that multiplies, and nothing else."""
    directory.mkdir(parents=True)
    python = servers.environment("mlserver") / "bin" / "python"
    command = [str(python), "-c", MAKE, str(directory / "model.joblib"), str(factor)]
    subprocess.run(command, check=True, capture_output=True)
    return directory


def with_settings(directory: Path, **settings: Any) -> Path:
    described = {"implementation": "mlserver_sklearn.SKLearnModel", **settings}
    (directory / "model-settings.json").write_text(json.dumps(described))
    return directory


def release(model: Path, to: Path) -> None:
    """Make `to` what lies in the store, in one step."""
    link = to.with_name("next")
    link.symlink_to(model)
    link.replace(to)


def describe(store: Path, reserve_port: Any, **options: Any) -> MLServer:
    ports = {"port": reserve_port(), "grpc_port": reserve_port(), "metrics_port": reserve_port()}
    return MLServer(model=f"file://{store}", **{"startup_timeout": 120, **ports, **options})


def answer(server: LocalServer, model: str) -> float:
    body = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP64", "data": [10.0]}]}
    told = requests.post(
        f"{server.base_url}/v2/models/{model}/infer", json=body, timeout=patient(60)
    )
    assert told.status_code == 200, told.text
    return round(float(told.json()["outputs"][0]["data"][0]), 6)


def test_a_bare_model_is_replaced_while_it_is_served(
    servers: Any, reserve_port: Any, tmp_path: Path, metric_names: Any, saved_metrics: Any
) -> None:
    first, second = (make_model(servers, tmp_path / str(factor), factor) for factor in (2, 20))
    release(first, tmp_path / "fraud")
    template = describe(
        tmp_path / "fraud",
        reserve_port,
        implementation="mlserver_sklearn.SKLearnModel",
        update_interval=1,
    )
    with servers.running("mlserver", template) as server:
        assert answer(server, "fraud") == 20
        release(second, tmp_path / "fraud")
        wait_for(lambda: answer(server, "fraud") == 200)
        release(first, tmp_path / "fraud")
        wait_for(lambda: answer(server, "fraud") == 20)
        page = requests.get(
            f"http://127.0.0.1:{template.metrics_port}/metrics", timeout=patient(10)
        ).text
        assert metric_names(saved_metrics("mlserver")) <= metric_names(page)
        names = template.server().metric_names
        assert names
        assert all(metric_names(page) & {*names_of(names, quantity)} for quantity in names)


def test_folders_are_served_by_the_names_in_their_settings(
    servers: Any, reserve_port: Any, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    with_settings(
        make_model(servers, store / "one", 2), name="double", parameters={"uri": "./model.joblib"}
    )
    with_settings(make_model(servers, store / "triple", 3))  # called as its folder is
    template = describe(
        store,
        reserve_port,
        model_names=["double", "triple"],
        env={"MLSERVER_PARALLEL_WORKERS": "0"},
    )
    with servers.running("mlserver", template) as server:
        assert (answer(server, "double"), answer(server, "triple")) == (20, 30)


def test_a_model_that_is_not_there_is_told(servers: Any, reserve_port: Any, tmp_path: Path) -> None:
    """The gate's own words, asked of a server that is ready: its budget starts when it does."""
    store = with_settings(make_model(servers, tmp_path / "store", 2), name="double")
    template = describe(store, reserve_port, model_names=["double"])
    gate = (sys.executable, "-m", f"{PROGRAMS}.wait_for_server", "--timeout", "2", "--api", "v2")
    with servers.running("mlserver", template) as server:
        ended = subprocess.run(
            [*gate, f"{server.base_url}/v2/health/ready", "--model", "triple"],
            capture_output=True,
            text=True,
            check=False,
        )
    assert ended.returncode == 69, ended.stderr
    assert "triple" in json.loads(ended.stderr.splitlines()[-1])["message"]


def test_a_registered_model_follows_its_alias(
    servers: Any, reserve_port: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real registry, in a sqlite file.

    MLflow's runtime is large and may be missing in MLServer's environment.
    """
    environment = servers.environment("mlserver")
    if not list(environment.glob("lib/python*/site-packages/mlserver_mlflow")):
        pytest.skip("mlserver-mlflow is not installed in MLServer's environment")
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("GIT_PYTHON_REFRESH", "quiet")
    registry = mlflow.MlflowClient()
    registry.create_registered_model("fraud")

    def register(factor: float) -> None:
        directory = tmp_path / f"times-{factor}"
        command = [
            str(environment / "bin" / "python"),
            "-c",
            MAKE_FOR_MLFLOW,
            str(directory),
            str(factor),
        ]
        subprocess.run(command, check=True, capture_output=True)
        version = registry.create_model_version("fraud", source=directory.as_uri()).version
        registry.set_registered_model_alias("fraud", "champion", version)

    register(2)
    ports = {"port": reserve_port(), "grpc_port": reserve_port(), "metrics_port": reserve_port()}
    template = MLServer(
        model="models:/fraud@champion",
        startup_timeout=round(patient(75)),
        update_interval=1,
        **ports,
    )
    with servers.running("mlserver", template) as server:
        assert answer(server, "fraud") == 20
        register(20)
        wait_for(lambda: answer(server, "fraud") == 200, seconds=120)
        registry.set_registered_model_alias("fraud", "champion", "1")
        wait_for(lambda: answer(server, "fraud") == 20, seconds=120)
