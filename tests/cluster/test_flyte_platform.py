"""What is taken for Flyte's part, case by case; no cluster is needed.

The rows are what a real Flyte 1.16.8 did above Kubernetes 1.36.3, and what its sources say
(`flyte_platform` names the files).
"""

from __future__ import annotations

from typing import Any

import pytest

from cluster.flyte_platform import Platform, Reading, read_status

Pod = dict[str, Any]


def pod(*init: Pod, **primary: Any) -> Pod:
    return {"spec": {"initContainers": list(init), "containers": [{"name": "primary", **primary}]}}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {},
            {
                "requests": {"cpu": "50m", "memory": "64Mi"},
                "limits": {"cpu": "50m", "memory": "64Mi"},
            },
        ),
        (
            {"limits": {"cpu": "2"}},
            {"requests": {"cpu": "2", "memory": "64Mi"}, "limits": {"cpu": "2", "memory": "64Mi"}},
        ),
        (
            {"requests": {"memory": "40Gi"}, "limits": {"memory": "40Gi"}},
            {
                "requests": {"cpu": "50m", "memory": "1Gi"},
                "limits": {"cpu": "50m", "memory": "1Gi"},
            },
        ),
        (
            {"requests": {"gpu": "1"}, "limits": {"gpu": "1"}},
            {
                "requests": {"cpu": "50m", "memory": "64Mi", "nvidia.com/gpu": "1"},
                "limits": {"cpu": "50m", "memory": "64Mi", "nvidia.com/gpu": "1"},
            },
        ),
    ],
    ids=["nothing", "limit becomes request", "cut in silence", "the neutral key is renamed"],
)
def test_resources_are_completed_and_cut(given: Pod, expected: Pod) -> None:
    platform = Platform(limits={"memory": "1Gi"})
    admitted = platform.admit(pod(resources=given))
    assert admitted["spec"]["containers"][0]["resources"] == expected


def test_variables_are_appended_to_every_container() -> None:
    server = {"name": "server", "env": [{"name": "A", "value": "1"}]}
    admitted = Platform(environ={"FLYTE_AWS_ENDPOINT": "http://s3"}).admit(pod(server))
    names = [
        [variable["name"] for variable in container["env"]]
        for container in (*admitted["spec"]["initContainers"], *admitted["spec"]["containers"])
    ]
    assert names[0][0] == "A"
    assert all(listed[-1] == "FLYTE_AWS_ENDPOINT" for listed in names)
    assert all("FLYTE_INTERNAL_EXECUTION_ID" in listed for listed in names)


def test_a_secret_comes_last_unless_it_is_there() -> None:
    declared = {"name": "_FSEC_HF_TOKEN", "value": "mine"}
    platform = Platform(environ={"X": "1"}, secrets=(("hf", "token"), ("ngc", "key")))
    admitted = platform.admit(pod({"name": "server", "env": [declared]}))
    server, primary = admitted["spec"]["initContainers"][0], admitted["spec"]["containers"][0]
    named = [[each["name"] for each in container["env"]] for container in (server, primary)]
    assert [listed.count("_FSEC_HF_TOKEN") for listed in named] == [1, 1]
    assert named[0][0] == "_FSEC_HF_TOKEN"
    assert named[1][-3:] == ["_FSEC_HF_TOKEN", "_FSEC_NGC_KEY", "FLYTE_SECRETS_ENV_PREFIX"]


def test_templates_are_rendered_in_commands_and_nowhere_else() -> None:
    container = {
        "name": "server",
        "args": ["{{.input}}", "{{ .Input }}", "{{ messages }}", "{{$other}}"],
        "env": [{"name": "A", "value": "{{.input}}"}],
    }
    admitted = Platform().admit(pod(container), {"input": "s3://b/inputs.pb"})
    server = admitted["spec"]["initContainers"][0]
    assert server["args"] == [
        "s3://b/inputs.pb",
        "s3://b/inputs.pb",
        "{{ messages }}",
        "{{$other}}",
    ]
    assert server["env"][0]["value"] == "{{.input}}"


def test_only_a_pod_with_one_container_names_its_primary() -> None:
    one, two = pod(), pod()
    two["spec"]["containers"].append({"name": "proxy"})
    named = [Platform().admit(each)["metadata"]["annotations"] for each in (one, two)]
    assert [("primary_container_name" in each) for each in named] == [True, False]


def status(phase: str, **containers: Pod) -> Pod:
    """Return a pod; `main` is its primary, the others are init containers."""
    init = [{"name": name, "state": state} for name, state in containers.items() if name != "main"]
    app = [{"name": "main", "state": containers["main"]}] if "main" in containers else []
    return {
        "metadata": {"annotations": {"primary_container_name": "main"}},
        "status": {"phase": phase, "initContainerStatuses": init, "containerStatuses": app},
    }


def ended(code: int, reason: str = "Error", message: str = "") -> Pod:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


@pytest.mark.parametrize(
    ("seen", "phase", "code", "kind"),
    [
        (status("Succeeded", main=ended(0, "Completed")), "SUCCEEDED", "", ""),
        (status("Running", main=ended(0, "Completed")), "SUCCEEDED", "", ""),
        (status("Running", main={"running": {}}), "RUNNING", "", ""),
        (status("Running", main=ended(1)), "FAILED", "Error", "USER"),
        (status("Running", main=ended(137)), "FAILED", "Error", "SYSTEM"),
        (status("Failed", gate=ended(69), main={"waiting": {}}), "FAILED", "Interrupted", "SYSTEM"),
        (status("Failed", gate=ended(247), main={"waiting": {}}), "FAILED", "Interrupted", "USER"),
        (
            status("Failed", server=ended(137), gate=ended(69), main={"waiting": {}}),
            "FAILED",
            "Interrupted",
            "USER",
        ),
        (
            status("Failed", server=ended(137, "OOMKilled"), gate=ended(69), main={"waiting": {}}),
            "FAILED",
            "OOMKilled",
            "USER",
        ),
        (status("Failed", main=ended(137)), "FAILED", "Interrupted", "SYSTEM"),
        (
            status("Succeeded", server=ended(137, "OOMKilled"), main=ended(0)),
            "FAILED",
            "OOMKilled",
            "USER",
        ),
        (
            status(
                "Pending",
                server={"waiting": {"reason": "ImagePullBackOff"}},
                main={"waiting": {"reason": "PodInitializing"}},
            ),
            "INITIALIZING",
            "",
            "",
        ),
        (
            status("Pending", main={"waiting": {"reason": "ImagePullBackOff"}}),
            "FAILED",
            "ImagePullBackOff",
            "USER",
        ),
    ],
)
def test_a_status_is_read_as_propeller_reads_it(
    seen: Pod, phase: str, code: str, kind: str
) -> None:
    reading = read_status(seen)
    assert (reading.phase, reading.code, reading.kind) == (phase, code, kind)


def test_a_message_names_every_container_that_ended() -> None:
    seen = status("Failed", gate=ended(69, message='{"error": "X"}'), main={"waiting": {}})
    assert read_status(seen) == Reading(
        "FAILED",
        "Interrupted",
        "SYSTEM",
        '[gate] terminated with exit code (69). Reason [Error]. Message: \n{"error": "X"}.',
    )
