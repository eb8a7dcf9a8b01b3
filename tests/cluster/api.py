"""Talks to the API server of `dev/cluster` through `kubectl proxy`, in plain JSON."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from dev.kubernetes import build

from patience import patient

Manifest = dict[str, Any]
FINAL = ("Succeeded", "Failed")
ACCEPTED_WARNINGS = ('duplicate port name \\"inf-metrics\\"',)
"""A `PodMonitor` finds the exporters of all servers of a pod by this one name of their ports."""


class RefusedError(Exception):
    """The API server refused something; its words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Cluster:
    """The API of a cluster, as its administrator.

    Args:
        url: Where `kubectl proxy` listens.
        kubeconfig: Whose.
    """

    url: str
    kubeconfig: Path
    session: requests.Session = field(default_factory=requests.Session)

    def call(
        self, method: str, path: str, body: object = None, **query: str
    ) -> tuple[Any, list[str]]:
        """Return the answer and the API server's warnings.

        Raises:
            RefusedError: Any status that is an error.
        """
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        answer = self.session.request(
            method,
            f"{self.url}{path}",
            data=None if body is None else json.dumps(body),
            params=query,
            headers={"Content-Type": kind},
            timeout=patient(30),
        )
        if answer.status_code >= 400:
            raise RefusedError(answer.status_code, _refusal(answer))
        # https://www.rfc-editor.org/rfc/rfc7234#section-5.5: code, agent, text
        warnings = re.findall(r'\b299 - "((?:[^"\\]|\\.)*)"', answer.headers.get("Warning", ""))
        is_json = "json" in answer.headers.get("Content-Type", "")
        return (answer.json() if is_json else answer.text), warnings

    def namespace(self, name: str, labels: Mapping[str, str] | None = None) -> Namespace:
        """Make a namespace, in which pods may be created when this returns."""
        metadata = {"name": name, "labels": dict(labels or {})}
        self.call("POST", "/api/v1/namespaces", {"metadata": metadata})
        namespace = Namespace(self, name)
        wait_until(lambda: namespace.find("serviceaccounts", "default"), 20)
        return namespace


@dataclass(frozen=True)
class Namespace:
    """A namespace, and what tests do in it."""

    cluster: Cluster
    name: str

    @property
    def path(self) -> str:
        return f"/api/v1/namespaces/{self.name}"

    def create(self, kind: str, manifest: Mapping[str, Any], **query: str) -> Manifest:
        """Create a core resource, `pods` for example; strictly, as `kubectl apply` does."""
        body, warnings = self.cluster.call(
            "POST", f"{self.path}/{kind}", manifest, fieldValidation="Strict", **query
        )
        unknown = [each for each in warnings if not any(word in each for word in ACCEPTED_WARNINGS)]
        assert unknown == [], unknown
        return dict(body)

    def find(self, kind: str, name: str) -> Manifest | None:
        """Return a resource, or nothing when there is none of that name."""
        try:
            return dict(self.cluster.call("GET", f"{self.path}/{kind}/{name}")[0])
        except RefusedError as error:
            if error.status != 404:
                raise
            return None

    def pod(self, name: str) -> Manifest:
        pod = self.find("pods", name)
        assert pod is not None, f"the pod {name} is gone"
        return pod

    def log(self, pod: str, container: str, *, previous: bool = False) -> str:
        """Return what a container has printed, or why that cannot be had."""
        try:
            path = f"{self.path}/pods/{pod}/log"
            query = {"container": container, "previous": str(previous).lower()}
            return str(self.cluster.call("GET", path, **query)[0])
        except RefusedError as error:
            return f"no log: {error}"

    def events(self, pod: str) -> list[str]:
        """Return reason and message of each event of a pod."""
        selector = f"involvedObject.name={pod}"
        listed, _ = self.cluster.call("GET", f"{self.path}/events", fieldSelector=selector)
        return [f"{each['reason']}: {each.get('message', '')}" for each in listed["items"]]

    def delete(self, kind: str, name: str, grace_seconds: int | None = None) -> None:
        """Delete a resource; nothing when it is gone."""
        body = None if grace_seconds is None else {"gracePeriodSeconds": grace_seconds}
        with contextlib.suppress(RefusedError):
            self.cluster.call("DELETE", f"{self.path}/{kind}/{name}", body)

    def wait(
        self,
        pod: str,
        condition: Callable[[Manifest], object],
        seconds: float = 60,
    ) -> Manifest:
        """Return the pod as soon as `condition` holds of it.

        Args:
            seconds: What a quiet machine needs at most.
        """
        wait_until(lambda: condition(self.pod(pod)), seconds, lambda: self.describe(pod))
        return self.pod(pod)

    def wait_for_end(self, pod: str, seconds: float = 120) -> Manifest:
        """Return the pod when all of it has ended."""
        return self.wait(pod, lambda each: each["status"].get("phase") in FINAL, seconds)

    def describe(self, pod: str) -> str:
        """Return what a person would look at: states, events and the last lines of each log."""
        found = self.find("pods", pod)
        if found is None:
            return f"the pod {pod} is gone"
        lines = [f"phase {found['status'].get('phase')} {found['status'].get('message', '')}"]
        for status in statuses(found).values():
            lines.append(f"{status['name']}: {json.dumps(status.get('state'))}")
            log = self.log(pod, status["name"]).strip().splitlines()[-5:]
            lines += [f"    {line[:300]}" for line in log]
        return "\n".join([*lines, *self.events(pod)])

    def remove(self) -> None:
        """Delete the namespace with all that is in it; not waited for."""
        with contextlib.suppress(RefusedError):
            self.cluster.call("DELETE", f"/api/v1/namespaces/{self.name}")


def statuses(pod: Mapping[str, Any]) -> dict[str, Manifest]:
    """Return the status of each container by its name, init containers first."""
    status = pod["status"]
    listed = (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ()))
    return {each["name"]: each for each in listed}


def ended(pod: Mapping[str, Any], container: str) -> Manifest | None:
    """Return how a container ended, or nothing while it has not."""
    state = statuses(pod).get(container, {}).get("state", {})
    return state.get("terminated")


def wait_until(
    condition: Callable[[], object],
    seconds: float,
    otherwise: Callable[[], object] = lambda: "waited in vain",
) -> None:
    """Return as soon as `condition` holds; it is asked a few times a second."""
    end = time.monotonic() + patient(seconds)
    while not condition():
        assert time.monotonic() < end, otherwise()
        time.sleep(0.3)


@contextlib.contextmanager
def connected(kubeconfig: Path) -> Iterator[Cluster]:
    """Give the API of the cluster as long as the block lasts."""
    kubectl = build.directory() / "kubectl"
    program = str(kubectl) if kubectl.exists() else shutil.which("kubectl")
    assert program, "there is no kubectl"
    command = [program, f"--kubeconfig={kubeconfig}", "proxy", "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
        try:
            assert proxy.stdout is not None
            line = proxy.stdout.readline()
            assert "Starting to serve on" in line, line
            yield Cluster(f"http://{line.split()[-1]}", kubeconfig)
        finally:
            proxy.terminate()


def _refusal(answer: requests.Response) -> str:
    try:
        return str(answer.json().get("message", answer.text))
    except ValueError:
        return answer.text
