"""flytekit's own ways to a task template: packaging, fast registration, map tasks, dynamic."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import warnings
from pathlib import Path
from typing import Any

import pytest
from flyteidl.admin.task_pb2 import TaskSpec
from flytekit import FlyteContextManager, task
from flytekit.configuration import Image, ImageConfig, SerializationSettings
from flytekit.core.context_manager import ExecutionState
from google.protobuf.json_format import MessageToDict

from flytekitplugins.inference import InferenceWarning, LlamaCpp
from users import map_and_dynamic

MODULE = Path(__file__).parent.parent / "users" / "map_and_dynamic.py"


@pytest.fixture(scope="module", params=[[], ["--fast"]], ids=["baked", "fast"])
def tasks(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """The tasks of MODULE as `pyflyte package` writes them, by name."""
    folder = tmp_path_factory.mktemp("package")
    package = folder / "inferences"
    package.mkdir()
    (package / "__init__.py").touch()
    shutil.copy(MODULE, package / "map_and_dynamic.py")
    pyflyte = str(Path(sys.executable).parent / "pyflyte")
    command = [
        pyflyte,
        "--pkgs",
        "inferences",
        "package",
        "--image",
        "registry.example.com/task:1",
        "-o",
        "out.tgz",
        "-f",
    ]
    done = subprocess.run(
        [*command, *request.param], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with tarfile.open(folder / "out.tgz") as archive:
        archive.extractall(folder / "out", filter="data")
    found = {}
    for path in (folder / "out").glob("*_1.pb"):
        spec = TaskSpec()
        spec.ParseFromString(path.read_bytes())
        found[spec.template.id.name.split(".")[-1].split("_")[0]] = MessageToDict(spec.template)
        found[spec.template.id.name.split(".")[-1]] = MessageToDict(spec.template)
    return found


def _container(task: dict[str, Any], name: str) -> dict[str, Any]:
    spec = task["k8sPod"]["podSpec"]
    return next(c for c in [*spec["initContainers"], *spec["containers"]] if c["name"] == name)


def test_a_task_with_task_config(tasks: dict[str, dict[str, Any]]) -> None:
    task = tasks["score"]
    downloader = _container(task, "input-downloader")
    assert downloader["image"] == "registry.example.com/own:1"
    assert downloader["command"] == [
        "python",
        "-m",
        "flytekitplugins.inference.programs.download_inputs",
    ]
    assert downloader["args"][0] == "{{.input}}"
    assert "--bound" not in downloader["args"]
    primary = _container(task, "primary")
    assert primary["resources"]["limits"] == {"gpu": "0"}
    assert "pyflyte-execute" in primary["args"]
    assert task["config"]["primary_container_name"] == "primary"


def test_a_mapped_task_tells_the_downloader_what_is_not_mapped(
    tasks: dict[str, dict[str, Any]],
) -> None:
    (name,) = [name for name in tasks if name.startswith("map_score")]
    arguments = _container(tasks[name], "input-downloader")["args"]
    assert arguments[-4:] == ["--bound", "limits", "--bound", "model"]
    assert "pyflyte-map-execute" in _container(tasks[name], "primary")["args"]


def test_a_mapped_task_with_a_pod_template(tasks: dict[str, dict[str, Any]]) -> None:
    (name,) = [name for name in tasks if name.startswith("map_count")]
    task = tasks[name]
    assert _container(task, "model-server")["restartPolicy"] == "Always"
    assert "pyflyte-map-execute" in _container(task, "primary")["args"]
    assert task["securityContext"]["secrets"] == [
        {"group": "hf", "key": "token", "mountRequirement": "ENV_VAR"}
    ]


def test_an_async_task(tasks: dict[str, dict[str, Any]]) -> None:
    assert _container(tasks["later"], "model-server")["image"] == "server:1"


def test_a_dynamic_task_serialises_the_pods_of_its_calls() -> None:
    """In a dynamic task's container, where the tasks that it calls are serialised as it runs."""
    context = FlyteContextManager.current_context()
    image = Image(name="default", fqn="registry.example.com/task", tag="1")
    settings = SerializationSettings(
        ImageConfig(default_image=image), project="p", domain="d", version="v"
    )
    state = context.new_execution_state().with_params(mode=ExecutionState.Mode.TASK_EXECUTION)
    builder = context.with_execution_state(state).with_serialization_settings(settings)
    with FlyteContextManager.with_context(builder):
        job = map_and_dynamic.fan_out.execute(texts=["a", "b"])
    (spec,) = [task.k8s_pod.pod_spec for task in job.tasks]
    assert spec["initContainers"] == map_and_dynamic.by_template.manifest["spec"]["initContainers"]


@pytest.mark.parametrize(
    ("model", "warns"),
    [
        ("file:///data/model.gguf", True),
        ("/data/model.gguf", True),
        ("s3://bucket/model.gguf", False),
    ],
)
def test_a_model_of_this_machine_is_warned_of_when_it_is_packaged_for_a_cluster(
    model: str, warns: bool
) -> None:
    template = LlamaCpp(model=model, gpu=0)

    @task(task_config=template)
    def ask() -> str:
        return ""

    image = Image(name="default", fqn="registry.example.com/task", tag="1")
    settings = SerializationSettings(image_config=ImageConfig(default_image=image))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ask.get_k8s_pod(settings)
    texts = [str(one.message) for one in caught if issubclass(one.category, InferenceWarning)]
    assert any("/data/model.gguf" in text and "VolumeModel" in text for text in texts) is warns
