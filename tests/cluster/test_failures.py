"""What a person sees when a pod does not start, or breaks: on a real kubelet, word for word."""

from __future__ import annotations

import json
import random
import time
from typing import TYPE_CHECKING, Any

import pytest

from cluster.api import Namespace, RefusedError, ended, statuses
from cluster.flyte_platform import Platform, Reading, read_status
from cluster.images import SERVER, TASK
from cluster.pods import create_claim, fit
from flytekitplugins.inference import ModelInferenceTemplate, ObjectStoreModel
from golden.write import HELPER

if TYPE_CHECKING:
    Pod = dict[str, Any]

PORT = 8000
BIG = "s3://models/big"


def server(*faults: str, **options: Any) -> ModelInferenceTemplate:
    """Return a template of the stand-in, with what shall go wrong."""
    settings = {
        "image": SERVER,
        "port": PORT,
        "health_endpoint": "/health",
        "mem": "64Mi",
        "gpu": 0,
    }
    return ModelInferenceTemplate(**{**settings, "env": {"STANDIN": " ".join(faults)}, **options})


def submitted(
    platform: Platform,
    template: ModelInferenceTemplate,
    primary: str = "true",
    *,
    name: str = "pod",
) -> Pod:
    """Return a template's pod as Flyte submits it; `primary` is a shell's line."""
    pod = dict(template.compile(HELPER))
    pod.setdefault("metadata", {})["name"] = name
    pod["spec"]["containers"][0] |= {"image": TASK, "command": ["bash", "-c", primary]}
    return fit(platform.admit(pod, {"input": "s3://flyte/inputs.pb"}))


def verdict(pod: Pod, container: str) -> dict[str, Any]:
    """Return the line of JSON that a helper left as its message, and what it ended with."""
    end = ended(pod, container)
    assert end is not None, statuses(pod)[container]
    return {**json.loads(end["message"].strip().splitlines()[-1]), "ended_with": end["exitCode"]}


@pytest.mark.parametrize(
    ("faults", "error", "words"),
    [
        ("silent", "ServerNotReadyError", ["not ready after 8 s", "port never opened"]),
        ("loading:600", "ServerNotReadyError", ["not ready after 8 s", "answered 503"]),
        ("crash", "ServerNotReadyError", ["not ready after 8 s", "port never opened"]),
        ("memory:100", "ServerNotReadyError", ["not ready after 8 s", "port never opened"]),
    ],
)
def test_a_server_that_does_not_come_up_ends_the_pod(
    namespace: Namespace, platform: Platform, faults: str, error: str, words: list[str]
) -> None:
    template = server(*faults.split(), startup_timeout=8)
    namespace.create("pods", submitted(platform, template))
    pod = namespace.wait_for_end("pod", 40)
    message = verdict(pod, "server-gate")
    assert (message["error"], message["exit_code"], message["ended_with"]) == (error, 69, 247)
    assert all(word in message["message"] for word in words), message
    reading = read_status(pod)
    assert (reading.phase, reading.kind) == ("FAILED", "USER")
    assert message["message"] in reading.message
    if faults == "memory:100":
        assert reading.code == "OOMKilled"


def test_a_server_that_runs_out_of_memory_while_it_serves_is_started_again(
    namespace: Namespace, platform: Platform
) -> None:
    ask = "python3 -c 'import urllib.request as u; u.urlopen(\"http://localhost:8000/grow\")'"
    template = server("memory-later:100", startup_timeout=30)
    namespace.create(
        "pods", submitted(platform, template, f"{ask}; sleep 8; {ask.replace('grow', 'health')}")
    )
    pod = namespace.wait_for_end("pod", 60)
    assert pod["status"]["phase"] == "Succeeded", namespace.describe("pod")
    restarted = statuses(pod)["model-server"]
    assert restarted["restartCount"] == 1
    assert restarted["lastState"]["terminated"]["reason"] == "OOMKilled"


def test_an_image_that_cannot_be_pulled_is_seen_by_nobody(
    namespace: Namespace, platform: Platform
) -> None:
    """Flyte 1.x looks at no init container: what the documentation warns of."""
    template = server(image="registry.invalid/missing:1", startup_timeout=5)
    namespace.create("pods", submitted(platform, template))

    def cannot_pull(pod: Pod) -> bool:
        waiting = statuses(pod).get("model-server", {}).get("state", {}).get("waiting", {})
        return waiting.get("reason") in ("ErrImagePull", "ImagePullBackOff")

    pod = namespace.wait("pod", cannot_pull, 30)
    reading = read_status(pod)
    assert reading.phase == "INITIALIZING"
    assert "registry.invalid" not in reading.message
    assert any("registry.invalid/missing:1" in event for event in namespace.events("pod"))


def test_an_input_that_is_missing_is_named(namespace: Namespace, platform: Platform) -> None:
    template = server(download_inputs=True)
    pod = submitted(platform, template)
    for container in pod["spec"]["initContainers"]:
        args = [word.replace("inputs.pb", "no.pb") for word in container.get("args", ())]
        container["args"] = args
    namespace.create("pods", pod)
    pod = namespace.wait_for_end("pod", 40)
    message = verdict(pod, "input-downloader")
    assert (message["exit_code"], message["ended_with"]) == (66, 247), message
    assert "s3://flyte/no.pb" in message["message"]
    assert read_status(pod).kind == "USER"


@pytest.mark.parametrize("is_optional", [True, False])
def test_a_missing_secret(namespace: Namespace, platform: Platform, is_optional: bool) -> None:
    template = server(startup_timeout=30)
    pod = submitted(platform, template)
    reference = {"name": "nobody", "key": "token", "optional": is_optional}
    for container in pod["spec"]["initContainers"]:
        if container["name"] == "model-server":
            container["env"].append({"name": "TOKEN", "valueFrom": {"secretKeyRef": reference}})
    namespace.create("pods", pod)
    if is_optional:
        assert namespace.wait_for_end("pod", 40)["status"]["phase"] == "Succeeded"
        return

    def is_stuck(pod: Pod) -> bool:
        waiting = statuses(pod).get("model-server", {}).get("state", {}).get("waiting", {})
        return waiting.get("reason") == "CreateContainerConfigError"

    pod = namespace.wait("pod", is_stuck, 30)
    assert read_status(pod) == Reading(
        "INITIALIZING",
        message="[ContainersNotReady|PodInitializing]: containers with unready status: "
        "[model-server primary]|",
    )


def test_a_cache_that_grows_beyond_its_limit_evicts_the_pod(
    namespace: Namespace, platform: Platform
) -> None:
    template = server(model=ObjectStoreModel(uri=BIG), startup_timeout=120)
    pod = submitted(platform, template, "sleep 60")
    for volume in pod["spec"]["volumes"]:
        if volume["name"] == "inference-model-cache":
            volume["emptyDir"] = {"sizeLimit": "8Mi"}
    namespace.create("pods", pod)
    pod = namespace.wait_for_end("pod", 90)
    assert pod["status"]["reason"] == "Evicted", namespace.describe("pod")
    assert 'Usage of EmptyDir volume "inference-model-cache" exceeds' in pod["status"]["message"]


def test_a_pod_deleted_while_it_loads_leaves_a_cache_that_the_next_one_can_use(
    namespace: Namespace, platform: Platform
) -> None:
    """At moments of a fixed sequence, with the grace period and without."""
    create_claim(namespace, "model-cache")
    template = server(
        model=ObjectStoreModel(uri=BIG),
        model_cache={"persistentVolumeClaim": {"claimName": "model-cache"}},
        startup_timeout=120,
    )
    moments = random.Random(7)
    for number in range(4):
        name = f"pod-{number}"
        namespace.create("pods", submitted(platform, template, name=name))
        namespace.wait(
            name,
            lambda pod: "running" in statuses(pod).get("model-loader", {}).get("state", {}),
            30,
        )
        time.sleep(moments.uniform(0, 2))
        namespace.delete("pods", name, grace_seconds=0 if number % 2 else None)
    namespace.create("pods", submitted(platform, template, name="last"))
    pod = namespace.wait_for_end("last", 90)
    assert pod["status"]["phase"] == "Succeeded", namespace.describe("last")


def test_a_limit_range_is_named_by_the_api_server(namespace: Namespace, platform: Platform) -> None:
    limit = {"type": "Container", "max": {"memory": "32Mi"}}
    namespace.create("limitranges", {"metadata": {"name": "small"}, "spec": {"limits": [limit]}})
    with pytest.raises(RefusedError, match=r"maximum memory usage per Container is 32Mi"):
        namespace.create("pods", submitted(platform, server()))


def test_a_quota_counts_sidecars(namespace: Namespace, platform: Platform) -> None:
    quota = {"hard": {"limits.memory": "96Mi", "limits.cpu": "8", "requests.cpu": "8"}}
    namespace.create("resourcequotas", {"metadata": {"name": "small"}, "spec": quota})
    with pytest.raises(RefusedError, match=r"exceeded quota: small, requested: limits\.memory"):
        namespace.create("pods", submitted(platform, server()))
