"""Every golden pod on a real Kubernetes: accepted, started in its order, and ended as designed."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import pytest

from cluster.api import Namespace, statuses
from cluster.flyte_platform import Platform, read_status
from cluster.pods import prepare_namespace, prepare_node, runnable, sidecars
from golden.cases import CASES, make
from golden.write import HELPER

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.api import Cluster

    Pod = dict[str, Any]

UNREADY = {"generic-gpu-neutral": "the key `gpu` is Flyte's own, which renames it"}
"""Pods that the API server refuses as they are compiled, and why that is right."""
ENDS = {0, 143}
"""How sidecars end: by themselves after SIGTERM, or by it."""


def compiled(name: str) -> Pod:
    """Return a golden pod with its bundles, runnable."""
    return runnable(make(name).compile(HELPER), name)


@pytest.fixture(scope="session")
def prepared(cluster: Cluster, make_namespace: Callable[..., Namespace]) -> Namespace:
    pods = [compiled(name) for name in CASES]
    prepare_node(cluster, pods)
    namespace = make_namespace()
    prepare_namespace(namespace, pods)
    return namespace


@pytest.mark.parametrize("name", sorted({*CASES} - {*UNREADY}))
def test_the_api_server_accepts_it(prepared: Namespace, name: str) -> None:
    """As it is compiled, without what Flyte adds."""
    prepared.create("pods", compiled(name), dryRun="All")


@pytest.mark.parametrize("name", sorted(CASES))
def test_it_runs_from_start_to_end(
    prepared: Namespace, platform: Platform, name: str, record_property: Any
) -> None:
    pod = platform.admit(compiled(name), {"input": "s3://flyte/inputs.pb"})
    prepared.create("pods", pod)
    ended = prepared.wait_for_end(name, 60)
    try:
        assert ended["status"]["phase"] == "Succeeded", prepared.describe(name)
        assert read_status(ended).phase == "SUCCEEDED"
        assert_started_in_order(pod, ended)
        assert_ended_as_designed(pod, ended)
        for key, seconds in durations(ended).items():
            record_property(key, seconds)
    finally:
        prepared.delete("pods", name, grace_seconds=0)


def assert_started_in_order(pod: Pod, ended: Pod) -> None:
    """Each init container starts after the one before it, and the primary last."""
    began = [began_at(statuses(ended)[container["name"]]) for container in _in_order(pod)]
    assert began == sorted(began), dict(zip(_names(pod), began, strict=True))


def assert_ended_as_designed(pod: Pod, ended: Pod) -> None:
    """What has work to do ends with 0; sidecars end on SIGTERM, in time, without a restart."""
    serving = {*sidecars(pod)}
    for name, status in statuses(ended).items():
        end = status["state"]["terminated"]
        wanted = ENDS if name in serving else {0}
        assert end["exitCode"] in wanted, (name, end)
        assert status["restartCount"] == 0, (name, status)


def durations(ended: Pod) -> dict[str, float]:
    """Return the seconds from the pod's creation to the primary, and from its end to the pod's."""
    created = _time(ended["metadata"]["creationTimestamp"])
    primary = ended["status"]["containerStatuses"][0]
    end = primary["state"]["terminated"]
    ends = [_time(each["state"]["terminated"]["finishedAt"]) for each in statuses(ended).values()]
    return {
        "create to primary": began_at(primary) - created,
        "primary's end to pod's": max(ends) - _time(end["finishedAt"]),
    }


def began_at(status: Pod) -> float:
    state = status["state"]
    return _time((state.get("terminated") or state.get("running"))["startedAt"])


def _in_order(pod: Pod) -> list[Pod]:
    return [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]


def _names(pod: Pod) -> list[str]:
    return [container["name"] for container in _in_order(pod)]


def _time(text: str) -> float:
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
