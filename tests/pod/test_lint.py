"""What Kubernetes would refuse, or accept and then hang on, is found in the manifest."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from flytekitplugins.inference.pod.lint import lint

POD: dict[str, Any] = {
    "spec": {
        "initContainers": [
            {
                "name": "server",
                "image": "s:1",
                "restartPolicy": "Always",
                "ports": [{"containerPort": 8000}],
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)/$$(B)"}],
                "resources": {"requests": {"memory": "4Gi"}, "limits": {"memory": "4Gi"}},
                "volumeMounts": [
                    {"name": "data", "mountPath": "/data"},
                    {"name": "shm", "mountPath": "/dev/shm"},
                ],
                "startupProbe": {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 10},
            },
            {"name": "fetch", "image": "f:1"},
        ],
        "containers": [{"name": "primary", "resources": {}}],
        "volumes": [
            {"name": "data", "emptyDir": {}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
        ],
    }
}


def test_a_good_pod_has_no_problems() -> None:
    assert lint(POD) == []


def _server(pod: dict[str, Any]) -> dict[str, Any]:
    return pod["spec"]["initContainers"][0]


CHANGES: dict[str, tuple[Any, str]] = {
    "container name": (
        lambda pod: _server(pod).update(name="Model_Server"),
        "'Model_Server' is not a DNS-1123 label",
    ),
    "container twice": (
        lambda pod: pod["spec"]["containers"].append({"name": "fetch"}),
        "'fetch' is there 2 times",
    ),
    "reserved name": (
        lambda pod: _server(pod).update(name="default-init"),
        "has a meaning of its own in Flyte",
    ),
    "volume twice": (
        lambda pod: pod["spec"]["volumes"].append({"name": "data", "emptyDir": {}}),
        "volume 'data' is there 2 times",
    ),
    "volume without source": (
        lambda pod: pod["spec"]["volumes"][0].pop("emptyDir"),
        "needs exactly one source",
    ),
    "volume with two sources": (
        lambda pod: pod["spec"]["volumes"][0].update(hostPath={"path": "/x"}),
        "needs exactly one source, not ['emptyDir', 'hostPath']",
    ),
    "mount without volume": (
        lambda pod: pod["spec"]["volumes"].pop(0),
        "mounts 'data', which is no volume of the pod",
    ),
    "mount path": (
        lambda pod: _server(pod)["volumeMounts"][0].update(mountPath="data"),
        "'data' is not an absolute",
    ),
    "mount path twice": (
        lambda pod: _server(pod)["volumeMounts"][0].update(mountPath="/dev/shm"),
        "'/dev/shm' is mounted 2 times",
    ),
    "port": (
        lambda pod: pod["spec"]["containers"][0].update(ports=[{"containerPort": 99999}]),
        "99999 is not a port",
    ),
    "port taken": (
        lambda pod: pod["spec"]["containers"][0].update(ports=[{"containerPort": 8000}]),
        "port 8000 is wanted by 'server' and 'primary'",
    ),
    "request above limit": (
        lambda pod: _server(pod)["resources"]["requests"].update(memory="5Gi"),
        "the request of 5Gi memory is above the limit of 4Gi",
    ),
    "quantity": (
        lambda pod: _server(pod)["resources"]["limits"].update(cpu="two"),
        "limit cpu: 'two' is not",
    ),
    "quantity as number": (
        lambda pod: _server(pod)["resources"]["limits"].update(cpu=2),
        "limit cpu: 2 is not",
    ),
    "negative": (
        lambda pod: _server(pod)["resources"]["limits"].update(cpu="-1"),
        "limit cpu: '-1' is negative",
    ),
    "shm above memory": (
        lambda pod: pod["spec"]["volumes"][1]["emptyDir"].update(sizeLimit="4Gi"),
        "its memory limit of 4Gi cannot hold /dev/shm of 4Gi",
    ),
    "variable name": (
        lambda pod: _server(pod)["env"].append({"name": "1A", "value": ""}),
        "'1A' is not an environment",
    ),
    "variable twice": (
        lambda pod: _server(pod)["env"].append({"name": "A", "value": ""}),
        "'A' is there 2 times",
    ),
    "variable as number": (
        lambda pod: _server(pod)["env"].append({"name": "N", "value": 1}),
        "write '1'",
    ),
    "variable refers ahead": (
        lambda pod: _server(pod)["env"].insert(0, {"name": "URL", "value": "x/$(B)"}),
        "'URL' refers to $(B), which must come before it",
    ),
    "variable refers to itself": (
        lambda pod: _server(pod)["env"].append({"name": "PATH", "value": "/x:$(PATH)"}),
        "'PATH' refers to $(PATH)",
    ),
    "token": (
        lambda pod: _server(pod)["env"].append({"name": "HF_TOKEN", "value": "hf_" + "a1B2" * 8}),
        "'HF_TOKEN' holds what looks like a token",
    ),
    "probe on a plain init container": (
        lambda pod: pod["spec"]["initContainers"][1].update(
            readinessProbe={"tcpSocket": {"port": 8000}}
        ),
        "readinessProbe: only sidecars",
    ),
    "probe of an undeclared port": (
        lambda pod: _server(pod)["startupProbe"]["httpGet"].update(port=8001),
        "startupProbe asks port 8001, which no container declares that runs by then",
    ),
    "probe with odd numbers": (
        lambda pod: _server(pod)["startupProbe"].update(timeoutSeconds=0),
        "timeoutSeconds must be a whole number of at least 1, not 0",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_problem(what: str) -> None:
    change, words = CHANGES[what]
    pod = copy.deepcopy(POD)
    change(pod)
    problems = lint(pod)
    assert len(problems) == 1, problems
    assert words in problems[0]


def test_a_token_is_not_repeated_in_the_message() -> None:
    pod = copy.deepcopy(POD)
    token = "hf_" + "a1B2" * 8
    _server(pod)["env"].append({"name": "HF_TOKEN", "value": token})
    assert token not in lint(pod)[0]


def test_all_problems_are_found_at_once() -> None:
    pod = copy.deepcopy(POD)
    for what in ("container name", "port", "request above limit", "variable name"):
        CHANGES[what][0](pod)
    assert len(lint(pod)) == 4
