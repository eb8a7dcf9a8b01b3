"""Which start a task gets whose description does not say: by `task_config=`, by `pod_template=`."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from flytekit import task
from flytekit.configuration import ImageConfig, SerializationSettings

from flytekitplugins.inference import (
    VLLM,
    InferenceWarning,
    ModelInferenceTemplate,
    ModelServers,
    Probe,
    Probes,
)

SETTINGS = SerializationSettings(ImageConfig.auto(img_name="registry.example.com/default:1"))
SERVER: dict[str, Any] = {"image": "s:1", "command": ["serve"], "health_endpoint": "/h", "gpu": 0}
GATE, PROBE = "gate", "probe"
# what the description says → the start by `task_config=`, by `pod_template=`
STARTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "nothing": ({}, GATE, PROBE),
    "auto": ({"startup_timeout": "auto"}, GATE, GATE),
    "a time": ({"startup_timeout": 60}, GATE, GATE),
    "None": ({"startup_timeout": None}, PROBE, PROBE),
    "a startup probe": ({"probes": Probes(startup=Probe(failure_threshold=300))}, PROBE, PROBE),
    "another probe": ({"probes": Probes(liveness=Probe())}, GATE, PROBE),
}


def _start(spec: dict[str, Any]) -> str:
    containers = {container["name"]: container for container in spec["initContainers"]}
    has_gate = any(name.startswith("server-gate") for name in containers)
    server = next(one for name, one in containers.items() if name.startswith("model-server"))
    assert has_gate != ("startupProbe" in server)
    return GATE if has_gate else PROBE


def _by_task_config(description: Any) -> dict[str, Any]:
    @task(task_config=description, container_image="registry.example.com/task:1")
    def described() -> str:
        return ""

    spec: dict[str, Any] = described.get_k8s_pod(SETTINGS).pod_spec
    return spec


@pytest.mark.parametrize("what", STARTS)
def test_of_one_server(what: str) -> None:
    options, by_task, by_template = STARTS[what]
    template = ModelInferenceTemplate(**SERVER, **options)
    assert _start(_by_task_config(template)) == by_task
    assert _start(template.manifest["spec"]) == by_template


@pytest.mark.parametrize("what", STARTS)
def test_of_several_servers(what: str) -> None:
    options, by_task, by_template = STARTS[what]
    servers = ModelServers(
        {
            name: ModelInferenceTemplate(**SERVER, port=port, **options)
            for name, port in (("a", 8000), ("b", 8001))
        }
    )
    assert _start(_by_task_config(servers)) == by_task
    assert _start(servers.manifest["spec"]) == by_template


def test_one_server_that_wants_its_probe_decides_for_all() -> None:
    servers = ModelServers(
        {
            "a": ModelInferenceTemplate(**SERVER),
            "b": ModelInferenceTemplate(**SERVER, port=8001, startup_timeout=None),
        }
    )
    assert _start(_by_task_config(servers)) == PROBE


def test_the_budget_follows_the_models_size_and_nothing_is_warned_of_twice() -> None:
    with pytest.warns(InferenceWarning, match="no model is named"):
        template = VLLM(gpu=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spec = _by_task_config(template)
    gate = spec["initContainers"][-1]
    assert gate["args"][gate["args"].index("--timeout") + 1] == "1800"
    assert template.startup_seconds is None, "the user's own object stays as it is"
