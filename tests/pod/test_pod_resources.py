"""What the scheduler reserves for a pod, and the pod's quality of service."""

from __future__ import annotations

from typing import Any

import pytest

from flytekitplugins.inference.pod.pod_resources import pod_resources, quality_of_service
from flytekitplugins.inference.pod.quantity import parse_quantity

Manifest = dict[str, Any]


def container(
    name: str, requests: Manifest | None = None, limits: Manifest | None = None, **more: Any
) -> Manifest:
    resources = {"requests": requests or {}, "limits": limits or {}}
    return {"name": name, "resources": {k: v for k, v in resources.items() if v}, **more}


def sidecar(name: str, cpu: str) -> Manifest:
    return container(name, {"cpu": cpu}, {"cpu": cpu}, restartPolicy="Always")


def once(name: str, cpu: str) -> Manifest:
    return container(name, {"cpu": cpu}, {"cpu": cpu})


@pytest.mark.parametrize(
    ("init", "containers", "cpu"),
    [
        ([], [once("task", "1")], "1"),
        ([], [once("task", "1"), once("other", "500m")], "1500m"),
        # a sidecar runs as long as the task
        ([sidecar("server", "2")], [once("task", "1")], "3"),
        # an init container ends before the task starts, so only the larger one counts
        ([once("init", "4")], [once("task", "1")], "4"),
        ([once("init", "4"), once("second", "3")], [once("task", "1")], "4"),
        # … with the sidecars before it, not with those behind it
        ([sidecar("server", "2"), once("gate", "4")], [once("task", "1")], "6"),
        ([once("download", "4"), sidecar("server", "2")], [once("task", "1")], "4"),
        ([sidecar("a", "1"), once("i", "1"), sidecar("b", "5")], [once("task", "1")], "7"),
    ],
)
def test_requests_count_sidecars_beside_the_task_and_init_containers_at_their_peak(
    init: list[Manifest], containers: list[Manifest], cpu: str
) -> None:
    total = pod_resources({"initContainers": init, "containers": containers})
    assert total.requests == total.limits == {"cpu": parse_quantity(cpu)}


@pytest.mark.parametrize(
    ("spec", "requests", "limits"),
    [
        ({"containers": [container("task")]}, {}, {}),
        # the API server fills in a missing request by the limit
        (
            {"containers": [container("t", None, {"memory": "1Gi"})]},
            {"memory": "1Gi"},
            {"memory": "1Gi"},
        ),
        ({"containers": [container("t", {"cpu": "1"})]}, {"cpu": "1"}, {}),
        # a limit of no GPU, which only lets Flyte see the key, reserves nothing
        ({"containers": [container("t", None, {"gpu": "0"})]}, {}, {}),
        # each resource has its own peak
        (
            {
                "initContainers": [container("i", {"cpu": "3", "memory": "1Gi"})],
                "containers": [container("t", {"cpu": "1", "memory": "2Gi"})],
            },
            {"cpu": "3", "memory": "2Gi"},
            {},
        ),
        # an overhead comes on top, but alone it is no limit
        (
            {
                "containers": [container("t", {"cpu": "1"}, {"cpu": "2"})],
                "overhead": {"cpu": "250m", "memory": "1Gi"},
            },
            {"cpu": "1250m", "memory": "1Gi"},
            {"cpu": "2250m"},
        ),
        # resources of the pod as a whole replace the sums
        (
            {"containers": [container("t", {"cpu": "1"})], "resources": {"requests": {"cpu": "8"}}},
            {"cpu": "8"},
            {},
        ),
    ],
)
def test_sums_of_a_pod(spec: Manifest, requests: Manifest, limits: Manifest) -> None:
    total = pod_resources(spec)
    assert total.requests == {name: parse_quantity(text) for name, text in requests.items()}
    assert total.limits == {name: parse_quantity(text) for name, text in limits.items()}


EQUAL = {"cpu": "1", "memory": "1Gi"}


@pytest.mark.parametrize(
    ("spec", "name", "part"),
    [
        ({"containers": [container("t", EQUAL, EQUAL)]}, "Guaranteed", "equal"),
        # limits alone are enough: the requests become the same
        ({"containers": [container("t", None, EQUAL)]}, "Guaranteed", "equal"),
        # quantities, not texts, are compared
        (
            {"containers": [container("t", {"cpu": "1000m", "memory": "1024Mi"}, EQUAL)]},
            "Guaranteed",
            "equal",
        ),
        ({"containers": [container("t")]}, "BestEffort", "no container"),
        # a GPU does not count
        ({"containers": [container("t", None, {"nvidia.com/gpu": "1"})]}, "BestEffort", "no"),
        ({"containers": [container("t", EQUAL)]}, "Burstable", "t has no cpu limit"),
        (
            {"containers": [container("t", {**EQUAL, "cpu": "500m"}, EQUAL)]},
            "Burstable",
            "t requests less cpu than its limit",
        ),
        # init containers count as well
        (
            {
                "initContainers": [container("i", {"cpu": "1"}, {"cpu": "1"})],
                "containers": [container("t", EQUAL, EQUAL)],
            },
            "Burstable",
            "i has no memory limit",
        ),
        (
            {"containers": [container("t")], "resources": {"limits": EQUAL}},
            "Guaranteed",
            "equal",
        ),
    ],
)
def test_quality_of_service_and_its_reason(spec: Manifest, name: str, part: str) -> None:
    quality = quality_of_service(spec)
    assert quality.name == name
    assert part in quality.reason
