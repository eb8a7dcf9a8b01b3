"""What a container runtime is told of a container of a manifest. Pure: no runtime is asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from docker.types import HostConfig

from flytekitplugins.inference.errors import UnsupportedError
from flytekitplugins.inference.local.containers.create_request import create_arguments
from flytekitplugins.inference.local.containers.docker_api import RuntimeFacts
from flytekitplugins.inference.local.plan.sandbox import Sandbox

PODMAN = RuntimeFacts(
    name="podman 5.4.2",
    is_podman=True,
    cpus=4,
    memory_bytes=16 * 2**30,
    has_selinux=False,
    may_hide_network=False,
    ignores_gpu_requests=False,
)
DOCKER = replace(PODMAN, name="docker 28.5.1", is_podman=False)


def compiled(manifests: Any, **fields: Any) -> Any:
    spec = {
        key: fields.pop(key)
        for key in ("securityContext_of_pod", "volumes_of_pod")
        if key in fields
    }
    manifest = manifests.pod({"name": "server", "image": "server:1", **fields})
    manifest["spec"]["securityContext"] = spec.get("securityContext_of_pod", {})
    manifest["spec"]["volumes"] += spec.get("volumes_of_pod", [])
    return manifests.plan(manifest, runs_image=bool)


def arguments(manifests: Any, facts: RuntimeFacts = PODMAN, **fields: Any) -> dict[str, Any]:
    plan = compiled(manifests, **fields)
    return create_arguments(plan, plan.containers[0], facts)


def test_a_container_that_asks_for_nothing(manifests: Any) -> None:
    assert compiled(manifests).containers[0].sandbox == Sandbox()
    host = arguments(manifests)["host"]
    assert {key: value for key, value in host.items() if value} == {
        "network_mode": "host",
        "binds": ["/here/termination/server:/dev/termination-log:rw"],
    }


def test_least_privilege(manifests: Any) -> None:
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
        "seccompProfile": {"type": "RuntimeDefault"},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "runAsGroup": 2000,
    }
    made = arguments(
        manifests,
        securityContext=security,
        securityContext_of_pod={"fsGroup": 3000, "runAsUser": 7},
    )
    host = made["host"]
    assert made["user"] == "1000:2000"
    assert (host["cap_drop"], host["cap_add"], host["group_add"]) == (
        ["ALL"],
        ["NET_BIND_SERVICE"],
        ["3000"],
    )
    assert (host["security_opt"], host["read_only"], host["privileged"]) == (
        ["no-new-privileges"],
        True,
        False,
    )


def test_what_a_container_does_not_say_is_the_pods(manifests: Any) -> None:
    security = {
        "runAsUser": 1000,
        "seccompProfile": {"type": "Unconfined"},
        "supplementalGroups": [5, 5],
    }
    made = arguments(
        manifests,
        replace(PODMAN, has_selinux=True),
        securityContext={"runAsUser": None},
        securityContext_of_pod=security,
    )
    assert (made["user"], made["host"]["group_add"]) == ("1000", ["5"])
    assert made["host"]["security_opt"] == ["seccomp=unconfined", "label=disable"]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (
            {"memory": "1Gi", "cpu": "500m"},
            {"mem_limit": 2**30, "memswap_limit": 2**30, "cpu_quota": 50_000},
        ),
        (
            {"memory": "64Gi", "cpu": 8},
            {},
        ),  # more than there is: no limit, and no error of the runtime
        ({"cpu": "4"}, {}),
        ({"memory": "100M"}, {"mem_limit": 10**8, "memswap_limit": 10**8}),
    ],
)
def test_limits(manifests: Any, limits: dict[str, Any], expected: dict[str, int]) -> None:
    host = arguments(manifests, resources={"limits": limits, "requests": {"memory": "1Ki"}})["host"]
    found = {key: host[key] for key in ("mem_limit", "memswap_limit", "cpu_quota") if key in host}
    assert found == expected


@pytest.mark.parametrize("resource", ["nvidia.com/gpu", "nvidia.com/mig-1g.5gb", "gpu"])
def test_gpus_are_asked_for_in_the_runtimes_own_way(manifests: Any, resource: str) -> None:
    """That a GPU arrives cannot be tested without one: this is the request that is made."""
    resources = {"limits": {resource: "2"}}
    cdi = {"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=all"], "Capabilities": [["gpu"]]}
    docker = {"Driver": "", "Count": 2, "DeviceIDs": [], "Capabilities": [["gpu"]], "Options": {}}
    for facts, expected in ((PODMAN, {**docker, **cdi, "Count": 0}), (DOCKER, docker)):
        host = arguments(manifests, facts, resources=resources)["host"]
        assert HostConfig("1.41", **host)["DeviceRequests"] == [expected]


def test_other_devices_are_noted(manifests: Any) -> None:
    plan = compiled(manifests, resources={"limits": {"amd.com/gpu": 1, "ephemeral-storage": "1Gi"}})
    assert plan.notes == (("server", "amd.com/gpu is not passed to containers here"),)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"medium": "Memory", "sizeLimit": "2Gi"}, 2 * 2**30),
        ({"medium": "Memory"}, 8 * 2**30),  # half of the machine's
        ({}, None),
    ],
)
def test_shared_memory(manifests: Any, source: dict[str, Any], expected: int | None) -> None:
    volumes = [{"name": "shm", "emptyDir": source}]
    mounts = [{"name": "shm", "mountPath": "/dev/shm"}]
    host = arguments(manifests, volumeMounts=mounts, volumes_of_pod=volumes)["host"]
    assert host["shm_size"] == expected
    is_mounted = any(bind.endswith(":/dev/shm:rw") for bind in host["binds"])
    assert is_mounted is (expected is None)


def test_volumes_are_mounted_at_their_own_paths_too_but_directories_of_the_node_are_not(
    manifests: Any,
) -> None:
    volumes = [
        {"name": "shared", "emptyDir": {}},
        {"name": "node", "hostPath": {"path": "/opt/models"}},
    ]
    mounts = [
        {"name": "shared", "mountPath": "/shared", "readOnly": True},
        {"name": "shared", "mountPath": "/shared/x", "subPath": "x"},
        {"name": "node", "mountPath": "/models"},
    ]
    host = arguments(
        manifests, volumeMounts=mounts, volumes_of_pod=volumes, terminationMessagePath="/shared/end"
    )["host"]
    assert sorted(host["binds"]) == [
        "/here/termination/server:/shared/end:rw",
        "/here/volumes/shared/x:/here/volumes/shared/x:rw",
        "/here/volumes/shared/x:/shared/x:rw",
        "/here/volumes/shared:/here/volumes/shared:ro",
        "/here/volumes/shared:/shared:ro",
        "/opt/models:/models:rw",
    ]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {}),
        ({"command": ["serve"]}, {"entrypoint": ["serve"], "command": []}),
        ({"command": ["serve"], "args": ["-v"]}, {"entrypoint": ["serve"], "command": ["-v"]}),
        ({"args": ["-v"]}, {"command": ["-v"]}),
    ],
)
def test_the_images_entry_point_stays_unless_there_is_a_command(
    manifests: Any, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    made = arguments(manifests, **fields)
    assert {key: made[key] for key in ("entrypoint", "command") if key in made} == expected


def test_what_a_process_would_inherit_is_given_to_a_container(manifests: Any) -> None:
    env = [{"name": "HF_TOKEN", "value": "$(_FSEC_HF_TOKEN)"}, {"name": "A", "value": "/shared/a"}]
    manifest = manifests.pod({"name": "server", "image": "server:1", "env": env})
    plan = manifests.plan(manifest, environ={"HF_TOKEN": "secret", "OTHER": "x"}, runs_image=bool)
    assert plan.containers[0].env == {"HF_TOKEN": "secret", "A": "/shared/a"}
    assert "secret" not in repr(plan)


def test_what_cannot_be_read_is_told_at_once(manifests: Any) -> None:
    with pytest.raises(UnsupportedError) as caught:
        compiled(
            manifests,
            resources={"limits": {"memory": "1GB", "cpu": "many"}},
            imagePullPolicy="Sometimes",
        )
    assert len(caught.value.problems) == 3
    for word in ("server.limits.memory: '1GB'", "'many'", "'Sometimes'", "IfNotPresent"):
        assert word in str(caught.value)


def test_a_process_beside_has_no_sandbox(manifests: Any) -> None:
    helper = {
        "name": "helper",
        "image": "this-machine",
        "command": ["python"],
        "args": ["/shared/x"],
    }
    mounts = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
    server = {
        "name": "server",
        "image": "server:1",
        "args": ["/shared/x"],
        "resources": {"limits": {"cpu": 1}},
    }
    manifest = manifests.pod({**helper, **mounts}, {**server, **mounts}, volumes=["shared"])
    plan = manifests.plan(manifest, runs_image=lambda image: image != "this-machine")
    first, second = plan.containers
    assert (first.own_filesystem, first.args, first.sandbox) == (
        False,
        ("/here/volumes/shared/x",),
        Sandbox(),
    )
    assert (second.own_filesystem, second.args, second.sandbox.cpus) == (True, ("/shared/x",), 1.0)
    assert first.mounts[0].directory == second.mounts[0].directory == Path("/here/volumes/shared")
