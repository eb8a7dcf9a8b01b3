"""`base=` and `@task(pod_template=…)` beside any `model=`: on every way from a task to its pod."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from flytekit import FlyteContextManager, ImageSpec, PodTemplate, dynamic, map_task, task
from flytekit.configuration import Image, ImageConfig, SerializationSettings
from flytekit.core.context_manager import ExecutionState
from flytekit.models.task import K8sPod
from kubernetes.client import V1PodSpec

from flytekitplugins.inference import (
    NIM,
    VLLM,
    ConfigError,
    HuggingFaceModel,
    MLServer,
    ModelServers,
    NIMSecrets,
    PodDescription,
    RegisteredModel,
    VolumeModel,
)
from flytekitplugins.inference.flyte import local_run as local_edge

IMAGE = "registry.example.com/task:1"
LABELS = {"team": "nlp"}
ANNOTATIONS = {"example.com/owner": "nlp"}
NODES = {"pool": "gpu"}
SETTINGS = SerializationSettings(
    ImageConfig(default_image=Image(name="default", fqn="registry.example.com/default", tag="1")),
    project="p",
    domain="d",
    version="v",
)
SPEC = ImageSpec(
    name="task", registry="registry.example.com", packages=["flytekitplugins-inference"]
)
VOLUME = VolumeModel(volume={"persistentVolumeClaim": {"claimName": "models"}})
SERVERS: dict[str, PodDescription] = {
    "hub": VLLM(model="meta-llama/x"),
    "hub-gated": VLLM(model=HuggingFaceModel(repo="a/b"), startup_timeout=60, download_inputs=True),
    "hub-adapters": VLLM(model=VOLUME, lora_adapters={"sql": "c/d"}),
    "registry": MLServer(model=RegisteredModel(name="fraud", version=3)),
    "store": VLLM(model="s3://bucket/prefix"),
    "input": VLLM(model="input:model", download_inputs=True),
    "volume": VLLM(model=VOLUME),
    "nim": NIM(
        secrets=NIMSecrets(ngc_secret_group="ngc", ngc_secret_key="k"),
        hf_repo_ids=["a/b"],
        lora_adapter_mem="2Gi",
        env={"NIM_PEFT_SOURCE": "/adapters"},
    ),
    "several": ModelServers(
        {"llm": VLLM(model="meta-llama/x"), "fraud": MLServer(model="models:/fraud/3")}
    ),
}


def _pod_template() -> PodTemplate:
    spec = V1PodSpec(containers=[], node_selector=dict(NODES))
    return PodTemplate(pod_spec=spec, labels=dict(LABELS), annotations=dict(ANNOTATIONS))


def _manifest() -> dict[str, Any]:
    metadata = {"labels": dict(LABELS), "annotations": dict(ANNOTATIONS)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"nodeSelector": dict(NODES)},
    }


def _function(element: int) -> int:
    return element


BASES: dict[str, Callable[[PodDescription], dict[str, Any]]] = {
    "base, a PodTemplate": lambda server: {"task_config": replace(server, base=_pod_template())},
    "base, a manifest": lambda server: {"task_config": replace(server, base=_manifest())},
    "pod_template of the task": lambda server: {
        "task_config": server,
        "pod_template": _pod_template(),
    },
}


def _pod(made: Any) -> K8sPod:
    return made.get_k8s_pod(SETTINGS)


def _mapped_pod(made: Any) -> K8sPod:
    return map_task(functools.partial(made)).get_k8s_pod(SETTINGS)


def _dynamic_pod(made: Any) -> K8sPod:
    """Return the pod that is serialised while a dynamic task runs in its container."""

    @dynamic
    def all_of_them(count: int) -> list[int]:
        return [made(element=element) for element in range(count)]

    context = FlyteContextManager.current_context()
    state = context.new_execution_state().with_params(mode=ExecutionState.Mode.TASK_EXECUTION)
    builder = context.with_execution_state(state).with_serialization_settings(SETTINGS)
    with FlyteContextManager.with_context(builder):
        job = all_of_them.execute(count=1)
    (template,) = job.tasks
    return template.k8s_pod


WAYS = {"a task": _pod, "map_task": _mapped_pod, "dynamic": _dynamic_pod}


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
@pytest.mark.parametrize("base", BASES.values(), ids=list(BASES))
@pytest.mark.parametrize("server", SERVERS.values(), ids=list(SERVERS))
def test_what_the_base_says_reaches_the_registered_pod(
    server: PodDescription,
    base: Callable[[PodDescription], dict[str, Any]],
    way: Callable[[Any], K8sPod],
) -> None:
    pod = way(task(**base(server), container_image=IMAGE)(_function))
    assert (pod.metadata.labels, pod.metadata.annotations) == (LABELS, ANNOTATIONS)
    assert pod.pod_spec["nodeSelector"] == NODES
    names = [container["name"] for container in pod.pod_spec["initContainers"]]
    assert [name for name in names if name.startswith("model-server")]
    for container in pod.pod_spec["initContainers"]:
        if container["name"].partition("-")[0] in ("input", "model") and not container[
            "name"
        ].startswith("model-s"):
            assert container["image"] == IMAGE


@pytest.mark.parametrize("base", BASES.values(), ids=list(BASES))
@pytest.mark.parametrize("server", SERVERS.values(), ids=list(SERVERS))
def test_flytekit_may_read_the_tasks_own_pod(
    server: PodDescription, base: Callable[[PodDescription], dict[str, Any]]
) -> None:
    """As `pyflyte register` does, which takes the pod's hash into the version that it computes."""
    made, again = (task(**base(server), container_image=IMAGE)(_function) for _ in range(2))
    assert (made.pod_template.labels, made.pod_template.annotations) == (LABELS, ANNOTATIONS)
    assert made.pod_template.version_hash() == again.pod_template.version_hash()
    described = made.template.compile(local_edge.LOCAL_HELPER)
    assert described["metadata"] == {"labels": LABELS, "annotations": ANNOTATIONS}


@pytest.mark.parametrize("server", SERVERS.values(), ids=list(SERVERS))
@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (IMAGE, IMAGE),
        (SPEC, SPEC.image_name()),
        (None, None),
    ],
    ids=["text", "ImageSpec", "default"],
)
def test_the_tasks_own_pod_has_the_helpers_that_will_be_registered(
    server: PodDescription, image: Any, expected: str | None
) -> None:
    made = task(task_config=server, container_image=image)(_function)
    for container in made.pod_template.pod_spec.init_containers:
        if container.name.startswith(("model-loader", "input-downloader")):
            assert expected in (None, container.image)
            assert container.command[-3:-1] == ["python", "-m"], (
                "the programs are in the image, not in the pod"
            )


@pytest.mark.parametrize(
    "base", [None, *(make() for make in (_pod_template, _manifest))], ids=["none", "pt", "dict"]
)
@pytest.mark.parametrize("name", ["hub", "hub-gated", "registry", "several"])
def test_a_pod_template_whose_helper_cannot_bring_the_model_is_refused_when_its_pod_is_made(
    name: str, base: Any
) -> None:
    server = replace(SERVERS[name], base=base)
    made = server.pod_template
    assert made.labels == (None if base is None else LABELS)
    with pytest.raises(ConfigError, match="Give helper_image="):
        made.pod_spec  # noqa: B018
    with pytest.raises(ConfigError, match="needs a helper image with this package"):
        task(pod_template=made)(_function).get_k8s_pod(SETTINGS)
    with pytest.raises(ConfigError, match="Give helper_image="):
        server.manifest  # noqa: B018
    able = server.with_servers(lambda one: replace(one, helper_image=IMAGE))
    assert able.pod_template.pod_spec.init_containers


def test_the_image_that_the_base_gives_the_task_is_the_helpers() -> None:
    base = {"spec": {"containers": [{"name": "primary", "image": "registry.example.com/base:1"}]}}
    made = task(task_config=VLLM(model="a/b", base=base), container_image=IMAGE)(_function)
    loaders = [c for c in made.pod_template.pod_spec.init_containers if c.name == "model-loader"]
    assert [loader.image for loader in loaders] == ["registry.example.com/base:1"]
