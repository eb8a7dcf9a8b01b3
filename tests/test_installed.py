"""Servers of other distributions: found, held to the same questions, harmless when broken."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from flytekitplugins.inference import (
    NIM,
    TEI,
    VLLM,
    InferenceWarning,
    LlamaCpp,
    MLServer,
    ModelInferenceTemplate,
    NIMSecrets,
    Ollama,
    Server,
    SGLang,
    Triton,
    installed_servers,
)
from flytekitplugins.inference.testing import unanswered

EXAMPLE = Path(__file__).parent.parent / "examples" / "custom_server"
ASK = """
import json
from flytekit import task
from flytekitplugins.inference import installed_servers
from flytekitplugins.inference.pod.parts import Helper
from flytekitplugins.inference.testing import unanswered

BentoML = installed_servers()["bentoml"]
template = BentoML(
    image="registry.example.com/fraud:3", model="models:/fraud/3", startup_timeout=60, gpu=0
)

@task(task_config=template)
def infer() -> str:
    return ""

pod = template.compile(Helper(image="helper:1", bundled=False))
print(json.dumps({
    "servers": sorted(installed_servers()),
    "unanswered": unanswered(BentoML, image="registry.example.com/fraud:3", model="s3://models/fraud"),
    "containers": [container["name"] for container in pod["spec"]["initContainers"]],
    "task": type(infer).__name__,
}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory into which the example's wheel is installed."""
    wheels, target = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("site")
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(wheels)], cwd=EXAMPLE, check=True)
    (wheel,) = wheels.iterdir()
    with zipfile.ZipFile(
        wheel
    ) as archive:  # what an installer does with a wheel of pure Python without scripts
        archive.extractall(target)
    return target


def test_another_distribution_adds_a_server_with_everything_ours_have(
    installed: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    (tmp_path / "ask.py").write_text(ASK)
    command = [sys.executable, "ask.py"]
    answer = subprocess.run(
        command, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
    said = json.loads(answer.stdout.splitlines()[-1])
    assert "bentoml" in said["servers"]
    assert "vllm" in said["servers"]
    assert said["unanswered"] == []
    assert said["containers"] == ["preflight", "model-loader", "model-server", "server-gate"]
    assert said["task"] == "InferenceTask"


def _distribution(directory: Path, name: str, entries: str, module: str = "") -> None:
    info = directory / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[flytekitplugins.inference.servers]\n{entries}\n")
    (directory / f"{name}.py").write_text(module)


@pytest.mark.parametrize(
    ("entries", "module", "why"),
    [
        (
            "x = broken_x:Server",
            "raise OSError('no licence')",
            "'x' of broken_x is left out: OSError: no licence.",
        ),
        ("x = broken_x:Server", "", "'x' of broken_x is left out: AttributeError"),
        (
            "x = broken_x:Server",
            "Server = 3",
            "broken_x:Server is not a subclass of ModelInferenceTemplate",
        ),
        (
            "vllm = broken_x:Server",
            "from flytekitplugins.inference import NIM as Server",
            "flytekitplugins-inference already has a server of this name",
        ),
    ],
)
def test_a_broken_one_is_left_out_with_a_warning(
    entries: str, module: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _distribution(tmp_path, "broken_x", entries, module)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("broken_x", None)
    with pytest.warns(InferenceWarning) as caught:
        found = installed_servers()
    assert [why in str(warning.message) for warning in caught] == [True]
    assert found["vllm"] is VLLM
    assert "x" not in found


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Silent(ModelInferenceTemplate):
    """A server whose author has answered nothing."""

    @property
    def default_image(self) -> str:
        return "acme/server"

    def server(self) -> Server:
        names = {"queue": "acme_queue", "requests_waiting": ()}
        return Server(model_api="openai", metric_names=names, metrics_port=9999)


def test_every_open_question_is_named() -> None:
    found = "\n".join(unanswered(_Silent, model="s3://models/x"))
    for question in (
        "'acme/server' (gpu=0) has no fixed tag",
        "port=23456 reaches neither",
        "the template sets neither a command nor a variable for the port",
        "the startup probe (health_endpoint) is missing",
        "model= is loaded to /models/current, but the server does not get that path",
        "the server speaks 'openai', but its model has no name",
        "the server has metric_names but no metrics_path",
        "the metrics' port 9999 is not among the server's ports",
        "metric_names: 'queue' is not a quantity",
        "metric_names['requests_waiting']=() is neither a name nor a tuple of names",
    ):
        assert question in found
    assert "the server writes to no volume" in "\n".join(unanswered(_Silent))


ANSWERED: list[tuple[Any, dict[str, Any]]] = [
    (VLLM, {"model": "s3://models/x"}),
    (VLLM, {"arg_dict": {"model": "a/b"}}),
    (Triton, {"model": "s3://models/repository", "model_names": ["ranker"]}),
    (Triton, {"model_repository": "s3://models/repository"}),
    (MLServer, {"model": "models:/fraud/3"}),
    (MLServer, {"model_repository": "/opt/models", "model_names": ["fraud"]}),
    (
        NIM,
        {
            "secrets": NIMSecrets(ngc_secret_group="ngc", ngc_secret_key="key"),
            "model": "s3://models/x",
        },
    ),
    (Ollama, {"model": "llama3.2:1b"}),
    (Ollama, {"model": "s3://models/x"}),
    (TEI, {"model": "s3://models/x", "arg_dict": {"auto_truncate": False}}),
    (SGLang, {"model": "s3://models/x"}),
    (SGLang, {"arg_dict": {"model_path": "a/b"}}),
    (LlamaCpp, {"model": "s3://models/x", "model_file": "x.gguf"}),
]


@pytest.mark.parametrize(("make", "options"), ANSWERED)
def test_ours_answer_every_question(make: Any, options: dict[str, Any]) -> None:
    assert unanswered(make, **options) == []
