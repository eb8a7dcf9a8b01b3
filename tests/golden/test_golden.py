"""Every golden pod: clean, valid in the oldest and newest Kubernetes, and unharmed by flytekit."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from typing import Any

import kubernetes_validate
import pytest
import yaml
from flytekit import task
from flytekit.configuration import Image, ImageConfig, SerializationSettings
from flytekit.tools.translator import get_serializable

from flytekitplugins.inference import InferenceWarning
from flytekitplugins.inference.flyte.kubernetes_models import from_pod_spec, to_pod_spec
from flytekitplugins.inference.pod.lint import lint
from flytekitplugins.inference.pod.parts import Helper

from .cases import CASES, make
from .cases import OLDEST as NEEDED
from .write import DIRECTORY, compiled, to_yaml

OLDEST, NEWEST = "1.29", kubernetes_validate.latest_version()
SETTINGS = SerializationSettings(
    image_config=ImageConfig(
        default_image=Image(name="default", fqn="registry.example.com/task", tag="1")
    ),
    project="p",
    domain="d",
    version="v",
)


def _golden(name: str) -> dict[str, Any]:
    pod: dict[str, Any] = yaml.safe_load((DIRECTORY / f"{name}.yaml").read_text(encoding="utf-8"))
    return pod


def test_no_file_is_left_over() -> None:
    assert {path.stem for path in DIRECTORY.glob("*.yaml")} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_as_written(name: str) -> None:
    assert to_yaml(compiled(name)) == (DIRECTORY / f"{name}.yaml").read_text(encoding="utf-8"), (
        "run dev/golden"
    )


@pytest.mark.parametrize("name", CASES)
def test_clean(name: str) -> None:
    assert lint(_golden(name)) == []


@pytest.mark.parametrize("name", CASES)
def test_with_a_read_only_root_file_system_our_programs_can_write(name: str) -> None:
    containers = _golden(name)["spec"]["initContainers"]
    programs = [
        container
        for container in containers
        if any("inference.programs" in word for word in container.get("command", ()))
    ]
    assert programs or not any(
        container["name"].startswith(("model-loader", "server-gate", "input-downloader"))
        for container in containers
    )
    for container in programs:
        paths = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert "/tmp" in paths, container["name"]


@pytest.mark.parametrize("name", CASES)
def test_no_server_writes_where_only_root_may(name: str) -> None:
    server = next(
        container
        for container in _golden(name)["spec"]["initContainers"]
        if container["name"].startswith("model-server")
    )
    paths = [mount["mountPath"] for mount in server.get("volumeMounts", ())]
    values = [variable.get("value", "") for variable in server.get("env", ())]
    assert not [path for path in (*paths, *values) if path.startswith("/root")]


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("name", CASES)
def test_valid(name: str, version: str) -> None:
    pod = _golden(name)
    pod["metadata"]["name"] = "golden"
    if version == OLDEST:
        version = NEEDED.get(name, OLDEST)
    kubernetes_validate.validate(pod, version, strict=True)


@pytest.mark.parametrize("name", CASES)
def test_survives_the_kubernetes_client(name: str) -> None:
    spec = _golden(name)["spec"]
    assert from_pod_spec(to_pod_spec(spec)) == spec


@pytest.mark.parametrize("name", CASES)
def test_survives_flytekit(name: str) -> None:
    """Attached the explicit way: only the primary container may differ from the template's pod."""
    template = make(name)

    @task(pod_template=template.pod_template)
    def infer() -> str:
        return ""

    serialised = get_serializable(OrderedDict(), SETTINGS, infer).template
    pod, expected = serialised.k8s_pod.pod_spec, template.manifest["spec"]
    primary = serialised.config["primary_container_name"]
    assert pod["containers"][0]["name"] == primary
    assert pod["containers"][0]["image"] == "registry.example.com/task:1"
    assert pod["containers"][0]["args"][0] == "pyflyte-execute"
    for ours in ("image", "command", "args", "env"):
        pod["containers"][0].pop(ours, None)
    assert pod == expected


@pytest.mark.parametrize("name", CASES)
def test_survives_flytekit_with_task_config(name: str) -> None:
    """With `task_config`: helpers on the task's image, the primary's GPU key, the secrets."""
    template = make(name)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", InferenceWarning
        )  # a secret without a group, tested elsewhere

        @task(task_config=template)
        def infer() -> str:
            return ""

    serialised = get_serializable(OrderedDict(), SETTINGS, infer).template
    pod = serialised.k8s_pod.pod_spec
    helper = Helper(image="registry.example.com/task:1", bundled=False)
    expected = template.bounded().compile(helper)["spec"]
    policy = pod["containers"][0].pop("terminationMessagePolicy")
    assert policy == "FallbackToLogsOnError"
    limits = pod["containers"][0].get("resources", {}).get("limits", {})
    assert limits.pop("gpu", None) == (
        "0" if any(server.gpu for server in template.servers.values()) else None
    )
    for ours in ("image", "command", "args", "env", "resources"):
        pod["containers"][0].pop(ours, None)
        expected["containers"][0].pop(ours, None)
    assert pod == expected
    requested = serialised.security_context.secrets if serialised.security_context else []
    assert {(secret.group, secret.key) for secret in requested or []} == {
        (secret.group, secret.key) for secret in template.secret_references if secret.group
    }
