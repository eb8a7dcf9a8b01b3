"""The published documentation's examples run exactly as they are printed (tests/documents)."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections import OrderedDict
from types import ModuleType
from typing import Any

import pytest
from flytekit.configuration import Image, ImageConfig, SerializationSettings
from flytekit.tools.translator import get_serializable

from flytekitplugins.inference import HFSecret, InferenceWarning


def _run(name: str) -> ModuleType:
    """Run one example as the module it would be in a user's project."""
    sys.modules.pop(f"documents.{name}", None)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", InferenceWarning
        )  # secrets without a group, adapters not downloaded yet
        return importlib.import_module(f"documents.{name}")


def _names(containers: list[Any]) -> list[str]:
    return [container.name for container in containers]


def test_000_custom_sidecar(capsys: pytest.CaptureFixture[str]) -> None:
    template = _run("custom_sidecar").model_sidecar
    printed = capsys.readouterr().out
    assert "'name': 'model-server'" in printed
    pod_spec = template.pod_template.pod_spec
    assert _names(pod_spec.init_containers) == ["input-downloader", "model-server"]
    downloader, server = pod_spec.init_containers
    assert server.image == "my-model-server:latest"
    assert server.restart_policy == "Always"
    assert server.startup_probe.http_get.path == "/health"
    assert server.startup_probe.http_get.port == 8080
    assert server.startup_probe.failure_threshold == 100
    expected = {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "1"}
    assert server.resources.requests == server.resources.limits == expected
    assert downloader.resources.limits == {"cpu": "1", "memory": "1Gi"}
    assert "{{.input}}" in downloader.args
    assert {variable.name: variable.value for variable in server.env}[
        "MODEL_PATH"
    ] == "/shared/my_model.pt"
    mounts = {"shared-data": "/shared", "tmp": "/tmp"}
    for container in (downloader, server, pod_spec.containers[0]):
        assert {mount.name: mount.mount_path for mount in container.volume_mounts} == mounts
    assert {volume.name: volume.empty_dir.size_limit for volume in pod_spec.volumes} == {
        "shared-data": None,
        "tmp": None,
    }
    assert template.base_url == "http://localhost:8080"


def test_001_secrets() -> None:
    secrets = _run("nim_secrets").nim_secrets
    assert secrets.ngc_secret_key == "ngc_api_key"
    assert secrets.hugging_face().variable == "_FSEC_HF_TOKEN"


def test_001_nim_with_lora_goes_through_flytekit() -> None:
    module = _run("nim_lora")
    primary = module.nim_config.pod_template.pod_spec.containers[0]
    assert primary.resources.requests is None
    assert primary.resources.limits is None
    assert module.nim_config.base_url == "http://localhost:8000"
    pod = _serialise(module.deploy_nim_inference_service)
    server = pod["initContainers"][-1]
    environment = {variable["name"]: variable.get("value") for variable in server["env"]}
    assert environment["NGC_API_KEY"] == "$(_FSEC_NGC_API_KEY)"
    assert environment["NIM_PEFT_SOURCE"] == "/opt/nim/lora_adapters"
    mounts = {mount["mountPath"] for mount in server["volumeMounts"]}
    assert {"/dev/shm", "/opt/nim/.cache", "/opt/nim/lora_adapters"} <= mounts
    assert pod["imagePullSecrets"] == [{"name": "my-ngc-image-pull-secret"}]
    assert pod["containers"][0]["name"] == "primary"
    assert pod["containers"][0]["image"] == "ghcr.io/flyteorg/flytekit:py3.12-latest"


def test_001_the_task_itself_runs() -> None:
    assert _run("nim_lora").nim_deployment_workflow() == "http://localhost:8000"


def test_002_vllm() -> None:
    pod_spec = _run("vllm_mistral").vllm_config.pod_template.pod_spec
    (server,) = pod_spec.init_containers
    assert server.image == "vllm/vllm-openai:latest"
    assert server.args[0] == "mistralai/Mistral-7B-Instruct-v0.2"
    assert server.args[-4:] == ["--tensor-parallel-size", "1", "--max-model-len", "4096"]
    variable = "MY-SECRETS-PREFIXMY-HF-GROUP_HF_TOKEN"
    values = {each.name: each.value for each in server.env}
    assert values["HF_TOKEN"] == values["HUGGING_FACE_HUB_TOKEN"] == f"$({variable})"
    names = [each.name for each in server.env]
    assert names.index(variable) < names.index("HF_TOKEN")


def test_002_secrets() -> None:
    module = _run("hf_secrets")
    assert isinstance(module.hf_secret_grouped, HFSecret)
    assert module.hf_secret_grouped.reference().variable == "_FSEC_MY_GROUP_MY_HF_TOKEN"
    assert module.hf_secret_ungrouped.reference().variable == "_UNION_HF_TOKEN"


def _serialise(task: Any) -> dict[str, Any]:
    image = Image(name="default", fqn="registry.example.com/task", tag="1")
    settings = SerializationSettings(
        ImageConfig(default_image=image), project="p", domain="d", version="v"
    )
    pod: dict[str, Any] = get_serializable(OrderedDict(), settings, task).template.k8s_pod.pod_spec
    return pod
