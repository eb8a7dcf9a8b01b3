"""The level of the Pod Security Standards that a pod meets."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from flytekitplugins.inference.pod.pod_security import pod_security

STRICT = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def spec(context: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Return a pod of the level restricted, changed."""
    inner = {**copy.deepcopy(STRICT), **(context or {})}
    inner = {key: value for key, value in inner.items() if value is not None}
    return {"containers": [{"name": "task", "securityContext": inner}], **more}


@pytest.mark.parametrize(
    "pod",
    [
        spec(),
        spec({"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}),
        spec({"seccompProfile": {"type": "Localhost", "localhostProfile": "x"}}),
        # the pod's own context stands for what a container leaves out
        spec(
            {"runAsNonRoot": None, "seccompProfile": None},
            securityContext={"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        ),
        spec(volumes=[{"name": "v", "emptyDir": {}}, {"name": "c", "persistentVolumeClaim": {}}]),
        spec(securityContext={"sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]}),
    ],
)
def test_restricted_pods(pod: dict[str, Any]) -> None:
    assert pod_security(pod).level == "restricted"
    assert pod_security(pod).obstacles == ()


@pytest.mark.parametrize(
    ("pod", "obstacle"),
    [
        (spec({"allowPrivilegeEscalation": None}), "task lacks allowPrivilegeEscalation: false"),
        (spec({"runAsNonRoot": None}), "task lacks runAsNonRoot: true"),
        (spec({"runAsUser": 0}), "task sets runAsUser 0"),
        (spec({"seccompProfile": None}), "task lacks a seccompProfile of RuntimeDefault"),
        (spec({"capabilities": None}), "task does not drop all capabilities"),
        (
            spec({"capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}}),
            "task adds the capabilities CHOWN",
        ),
        (spec(securityContext={"runAsUser": 0}), "the pod sets runAsUser 0"),
        (spec(securityContext={"runAsNonRoot": False}), "the pod sets runAsNonRoot: false"),
        (spec(volumes=[{"name": "n", "nfs": {}}]), "the volume n is of the kind nfs"),
        (spec(volumes=[{"name": "i", "image": {}}]), "the volume i is of the kind image"),
    ],
)
def test_baseline_pods_and_what_keeps_them_from_restricted(
    pod: dict[str, Any], obstacle: str
) -> None:
    security = pod_security(pod)
    assert security.level == "baseline"
    assert security.obstacles == (obstacle,)


@pytest.mark.parametrize(
    ("pod", "obstacle"),
    [
        (spec(hostNetwork=True), "the pod sets hostNetwork"),
        (spec(hostPID=True), "the pod sets hostPID"),
        (spec(hostIPC=True), "the pod sets hostIPC"),
        (spec(volumes=[{"name": "h", "hostPath": {"path": "/"}}]), "the volume h is a hostPath"),
        (spec({"privileged": True}), "task is privileged"),
        (
            spec({"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}}),
            "task adds the capabilities SYS_ADMIN",
        ),
        (spec({"procMount": "Unmasked"}), "task unmasks /proc"),
        (
            spec({"seccompProfile": {"type": "Unconfined"}}),
            "task has the seccompProfile Unconfined",
        ),
        (
            spec({"appArmorProfile": {"type": "Unconfined"}}),
            "task has the appArmorProfile Unconfined",
        ),
        (spec({"seLinuxOptions": {"type": "spc_t"}}), "task sets seLinuxOptions"),
        (spec({"windowsOptions": {"hostProcess": True}}), "task is a hostProcess"),
        (
            spec(securityContext={"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}),
            "the pod sets the sysctl kernel.msgmax",
        ),
        (
            {
                "containers": [
                    {"name": "task", "securityContext": STRICT, "ports": [{"hostPort": 80}]}
                ]
            },
            "task has a hostPort",
        ),
        (
            {
                "initContainers": [{"name": "server", "securityContext": {"privileged": True}}],
                "containers": [],
            },
            "server is privileged",
        ),
    ],
)
def test_privileged_pods_and_what_keeps_them_from_baseline(
    pod: dict[str, Any], obstacle: str
) -> None:
    security = pod_security(pod)
    assert security.level == "privileged"
    assert security.obstacles == (obstacle,)
