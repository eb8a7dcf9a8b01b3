"""What becomes of an `MLServer(…)`. Facts about the server: SeldonIO/MLServer 1.7.1."""

from __future__ import annotations

import os
import shutil
import subprocess
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from flytekitplugins.inference import (
    ConfigError,
    InferenceWarning,
    MLServer,
    RegisteredModel,
    TaskInputModel,
    VolumeModel,
)
from flytekitplugins.inference.pod.compile import Manifest
from flytekitplugins.inference.pod.parts import Helper
from patience import patient

HELPER = Helper(image="helper:1", bundled=False)


def containers(template: MLServer) -> dict[str, Manifest]:
    return {
        container["name"]: container
        for container in template.compile(HELPER)["spec"]["initContainers"]
    }


def environment(template: MLServer) -> dict[str, str]:
    return {
        variable["name"]: variable["value"]
        for variable in containers(template)["model-server"]["env"]
    }


def model_variables(template: MLServer) -> dict[str, str]:
    prefix = "MLSERVER_MODEL_"
    return {
        name.removeprefix(prefix): value
        for name, value in environment(template).items()
        if prefix in name
    }


def following(words: list[str], flag: str) -> list[str]:
    return [word for before, word in pairwise(words) if before == flag]


def problems(**fields: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        MLServer(**fields)
    return str(caught.value)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("models:/fraud/3", "fraud"),
        ("models:/fraud detector@champion", "fraud detector"),
        (RegisteredModel(name="main.risk.fraud", version=3), "main.risk.fraud"),
    ],
)
def test_a_registered_model_just_works(model: Any, name: str) -> None:
    template = MLServer(model=model)
    assert model_variables(template) == {
        "IMPLEMENTATION": "mlserver_mlflow.MLflowRuntime",
        # MLflow would follow the link "current" out of "/models", and refuse to
        "URI": "/models/current/",
        "NAME": name,
    }
    assert template.endpoint.model == name


@pytest.mark.parametrize(
    ("model", "uri", "name"),
    [
        ("acme/fraud", "/models/current/", "fraud"),
        ("s3://models/fraud", "/models/current/", "fraud"),
        (
            VolumeModel(volume={"persistentVolumeClaim": {"claimName": "x"}}, path="a/fraud"),
            "/models/a/fraud/",
            "fraud",
        ),
        (TaskInputModel(input="fraud"), "/models/current/", "fraud"),
    ],
)
def test_bare_files_get_a_runtime_and_a_name(model: Any, uri: str, name: str) -> None:
    template = MLServer(
        model=model, implementation="mlserver_sklearn.SKLearnModel", download_inputs=True
    )
    assert model_variables(template) == {
        "IMPLEMENTATION": "mlserver_sklearn.SKLearnModel",
        "URI": uri,
        "NAME": name,
    }
    named = MLServer(
        model=model, implementation="mine.Runtime", model_names=["other"], download_inputs=True
    )
    assert (model_variables(named)["NAME"], named.endpoint.model) == ("other", "other")


def test_folders_with_settings_get_no_variables_of_a_model() -> None:
    """`ModelParameters` reads `uri` from MLSERVER_MODEL_URI: every model would be the same one."""
    template = MLServer(
        model="s3://models/tabular", model_names=["fraud", "churn"], startup_timeout=60
    )
    assert model_variables(template) == {}
    assert containers(template)["model-server"]["args"] == ["/models/current"]
    gate = containers(template)["server-gate"]["args"]
    assert (following(gate, "--api"), following(gate, "--model")) == (["v2"], ["fraud", "churn"])


def test_one_model_is_asked_for_by_the_startup_probe_too() -> None:
    def asked(**fields: Any) -> str:
        return str(
            containers(MLServer(**fields))["model-server"]["startupProbe"]["httpGet"]["path"]
        )

    assert asked(model="models:/fraud detector/3") == "/v2/models/fraud%20detector/ready"
    assert asked(model="s3://m/x", model_names=["a", "b"]) == "/v2/health/ready"
    with pytest.warns(InferenceWarning, match="ready even if it finds no model"):
        assert asked(model="s3://m/x") == "/v2/health/ready"


def test_ports_are_variables_of_the_templates() -> None:
    template = MLServer(model="models:/fraud/3", port=9000, grpc_port=9001, metrics_port=9002)
    given = environment(template)
    assert [given[f"MLSERVER_{name}_PORT"] for name in ("HTTP", "GRPC", "METRICS")] == [
        "9000",
        "9001",
        "9002",
    ]
    declared = containers(template)["model-server"]["ports"]
    assert [port["containerPort"] for port in declared] == [9000, 9001, 9002]
    assert template.endpoint.metrics_url == "http://localhost:9002/metrics"


def test_what_it_writes_lies_on_a_volume_of_its_user() -> None:
    template = MLServer(model="models:/fraud/3")
    spec, given = template.compile(HELPER)["spec"], environment(template)
    (mount,) = (
        mount["mountPath"]
        for mount in containers(template)["model-server"]["volumeMounts"]
        if mount["name"] == "inference-cache"
    )
    for name in ("MLSERVER_METRICS_DIR", "MLSERVER_ENVIRONMENTS_DIR", "HF_HOME"):
        assert given[name].startswith(mount + "/")
    assert spec["securityContext"]["fsGroup"] == 1000
    assert containers(template)["model-server"]["securityContext"]["runAsUser"] == 1000


def test_a_newer_version_is_loaded_again() -> None:
    template = MLServer(model="models:/fraud@champion", update_interval=60, port=9000)
    loader = containers(template)["model-loader"]["args"]
    assert following(loader, "--notify") == ["mlserver=http://localhost:9000"]
    assert following(loader, "--model-name") == ["fraud"]


@pytest.mark.parametrize("gpu", [0, 1, 4])
def test_gpus_are_there_when_asked_for(gpu: int) -> None:
    limits = containers(MLServer(model="models:/fraud/3", gpu=gpu))["model-server"]["resources"][
        "limits"
    ]
    assert limits.get("nvidia.com/gpu") == (str(gpu) if gpu else None)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"env": {"MLSERVER_HTTP_PORT": "1"}},
            "env['MLSERVER_HTTP_PORT'] is set by the template; give port= instead",
        ),
        (
            {"env": {"MLSERVER_GRPC_PORT": "1"}},
            "env['MLSERVER_GRPC_PORT'] is set by the template; give grpc_port=",
        ),
        (
            {"env": {"MLSERVER_METRICS_PORT": "1"}},
            "is set by the template; give metrics_port= instead",
        ),
        ({"port": 8081}, "port and grpc_port are both 8081"),
        ({"metrics_port": "http"}, "metrics_port: 'http' is not a port"),
        ({"model_names": "fraud"}, "model_names must be a list of names, not the text 'fraud'"),
        ({"model_repository": "models"}, "model_repository: 'models' is not an absolute path"),
        ({"model": "s3://m/x", "model_repository": "/m"}, "MLServer has one repository"),
        (
            {"implementation": "SKLearnModel", "model": "s3://m/x"},
            "implementation='SKLearnModel' is not a class",
        ),
        ({"implementation": "a.B"}, "implementation is for the files of a model: give model="),
        ({"implementation": "a.B", "model_repository": "/m"}, "model_names is missing"),
        (
            {"implementation": "a.B", "model": "s3://m/x", "model_names": ["a", "b"]},
            "model_names has 2",
        ),
        ({"model": "s3://m/x", "update_interval": 60}, "update_interval needs model_names="),
        (
            {"args": ["--port", "1"]},
            "MLServer takes no options, only variables (MLSERVER_…); give env=",
        ),
    ],
)
def test_what_is_wrong_is_told(fields: Any, words: str) -> None:
    assert words in problems(**fields)


def test_a_model_of_the_hub_needs_a_runtime_or_settings() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InferenceWarning)
        MLServer(model="acme/bert")
    assert ["model-settings.json" in str(warning.message) for warning in caught] == [False, True]


@pytest.fixture
def image(tmp_path: Path) -> dict[str, str]:
    """What the image's Dockerfile leaves: conda's profile, a script to activate, the server."""
    bash = Path(shutil.which("bash") or "/bin/bash")
    for name, text in {
        "conda/etc/profile.d/conda.sh": "export ACTIVATED=conda\n",
        "mlserver/hack/activate-env.sh": 'set -o nounset -o errexit\nexport ACTIVATED="$ACTIVATED '
        '$1"\n',
        "bin/mlserver": f'#!{bash}\necho "$$ $ACTIVATED $*"\n',
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "bin/mlserver").chmod(0o755)
    return {
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}{bash.parent}",
        "CONDA_PATH": str(tmp_path / "conda"),
        "MLSERVER_PATH": str(tmp_path / "mlserver"),
        "MLSERVER_ENV_TARBALL": "/models/current/environment.tar.gz",
        "MLSERVER_MODELS_DIR": "/mnt/models",
    }


def test_the_command_activates_what_the_image_activates_and_becomes_the_server(
    image: dict[str, str],
) -> None:
    """It is the process that gets SIGTERM, as the image's own `CMD` is not."""
    server = containers(MLServer(model="models:/fraud/3"))["model-server"]
    process = subprocess.Popen(
        [*server["command"], *server["args"]], env=image, stdout=subprocess.PIPE, text=True
    )
    told, _ = process.communicate(timeout=patient(30))
    assert told.split() == [
        *(str(process.pid), "conda", "/models/current/environment.tar.gz"),
        *("start", "/models/current"),
    ]


def test_without_a_repository_it_is_the_images_own(image: dict[str, str]) -> None:
    with pytest.warns(InferenceWarning, match="finds no model"):
        command = containers(MLServer(image="acme/fraud:7"))["model-server"]["command"]
    for environ, directory in (
        (image, "/mnt/models"),
        ({"PATH": image["PATH"], "ACTIVATED": "-"}, "/mnt/models"),
    ):
        told = subprocess.run(
            command, env=environ, capture_output=True, text=True, check=True
        ).stdout
        assert told.split()[-2:] == ["start", directory]
