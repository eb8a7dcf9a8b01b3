"""Flyte's part without Flyte: what propeller does to a pod, and what it reads from its status.

`Platform.admit` turns a compiled pod into the one that a real execution submits, and `read_status`
says what the console shows. Both follow Flyte 1.16.8: `flyteplugins/go/tasks` (`plugins/k8s/pod`,
`pluginmachinery/flytek8s/{pod_helper,container_helper,k8s_resource_adds}.go`) and
`flytepropeller/pkg/webhook`; what those files leave open was observed on a real 1.16.8 above
Kubernetes 1.36.3. Flyte's versions differ: a change here is a claim about a version, to be cited.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

Pod = dict[str, Any]

PRIMARY = "primary_container_name"
"""The annotation that tells propeller which container's end is the task's."""
SUFFIXES = {"m": Decimal("0.001"), "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "k": 10**3, "M": 10**6}
KILLED = (137, 247)
"""The exit codes that propeller takes for SIGKILL (`pod_helper.go`, SIGKILL, unsignedSIGKILL)."""


@dataclass(frozen=True)
class Platform:
    """A cluster's configuration of Flyte.

    Args:
        environ: `plugins.k8s.default-env-vars`, appended to every container.
        defaults: Requests of containers that name none (`task_resources.defaults`).
        limits: What requests and limits are cut to, silently (`task_resources.limits`); a resource
            that is missing here has no limit.
        gpu_resource: What the neutral key `gpu` becomes (`gpu-resource-name`).
        secrets: Group and key of each secret that the task requests: what the webhook injects.
    """

    environ: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=lambda: {"cpu": "50m", "memory": "64Mi"})
    limits: Mapping[str, str] = field(default_factory=dict)
    gpu_resource: str = "nvidia.com/gpu"
    secrets: tuple[tuple[str, str], ...] = ()

    def admit(self, pod: Mapping[str, Any], variables: Mapping[str, str] | None = None) -> Pod:
        """Return the pod that Flyte submits.

        Args:
            pod: What the plugin compiled, with the primary's image and command.
            variables: Flyte's template variables, such as `input`.
        """
        result = copy.deepcopy(dict(pod))
        spec = result["spec"]
        metadata = result.setdefault("metadata", {})
        primary = spec["containers"][0]["name"]
        metadata["annotations"] = {
            **(metadata.get("annotations") or {}),
            # only with one container; with more of them, all have to succeed (plugin.go)
            **({PRIMARY: primary} if len(spec["containers"]) == 1 else {}),
            "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        }
        for container in _containers(result):
            self._render(container, variables or {})
            self._fit(container)
            container["env"] = [*container.get("env", ()), *self._environment(container)]
        spec.setdefault("restartPolicy", "Never")
        return result

    def _render(self, container: Pod, variables: Mapping[str, str]) -> None:
        """Replace `{{.name}}` in command and args, and nowhere else (`core/template`)."""
        for place in ("command", "args"):
            if container.get(place):
                container[place] = [_rendered(word, variables) for word in container[place]]

    def _fit(self, container: Pod) -> None:
        """Complete and cut the resources (`container_helper.go`, ApplyResourceOverrides)."""
        resources = container.setdefault("resources", {})
        requests = {
            self._key(key): value for key, value in (resources.get("requests") or {}).items()
        }
        limits = {self._key(key): value for key, value in (resources.get("limits") or {}).items()}
        for key in {*requests, *limits, "cpu", "memory"}:
            request = requests.get(key) or limits.get(key) or self.defaults.get(key)
            if request is None:
                continue
            limit = limits.get(key) or request
            most = self.limits.get(key)
            limits[key] = limit if most is None else min(str(limit), most, key=quantity)
            requests[key] = min(str(request), str(limits[key]), key=quantity)
        container["resources"] = {"requests": requests, "limits": limits}

    def _key(self, name: str) -> str:
        """Return the configured name for `gpu` (SanitizeGPUResourceRequirements)."""
        return self.gpu_resource if name == "gpu" else name

    def _environment(self, container: Pod) -> Iterator[Pod]:
        """Return what is appended: Flyte's variables, the cluster's, the webhook's."""
        present = {variable["name"] for variable in container.get("env", ())}
        for name, value in {**_EXECUTION, **self.environ}.items():
            yield {"name": name, "value": value}
        for group, key in self.secrets:
            name = f"_FSEC_{group}_{key}".upper()
            if name not in present:
                reference = {"name": group, "key": key, "optional": True}
                yield {"name": name, "valueFrom": {"secretKeyRef": reference}}
        if self.secrets:
            yield {"name": "FLYTE_SECRETS_ENV_PREFIX", "value": "_FSEC_"}


_EXECUTION = {
    "FLYTE_INTERNAL_EXECUTION_WORKFLOW": "flytesnacks:development:wf",
    "FLYTE_INTERNAL_EXECUTION_ID": "a1b2c3",
    "FLYTE_INTERNAL_EXECUTION_PROJECT": "flytesnacks",
    "FLYTE_INTERNAL_EXECUTION_DOMAIN": "development",
    "FLYTE_ATTEMPT_NUMBER": "0",
    "FLYTE_INTERNAL_TASK_PROJECT": "flytesnacks",
    "FLYTE_INTERNAL_TASK_DOMAIN": "development",
    "FLYTE_INTERNAL_TASK_NAME": "task",
    "FLYTE_INTERNAL_TASK_VERSION": "v1",
    "_F_L_MIN_SIZE_MB": "10",
    "_F_L_MAX_SIZE_MB": "1000",
}


@dataclass(frozen=True)
class Reading:
    """What the console shows of a pod.

    Args:
        phase: `QUEUED`, `INITIALIZING`, `RUNNING`, `SUCCEEDED` or `FAILED`.
        code: Flyte's error code, of a failure.
        kind: `USER` (counted by `retries=`) or `SYSTEM` (retried by Flyte's own three).
        message: The text below the error.
    """

    phase: str
    code: str = ""
    kind: str = ""
    message: str = ""


def read_status(pod: Mapping[str, Any]) -> Reading:
    """Return what propeller makes of a pod's status (`plugins/k8s/pod/plugin.go`)."""
    status = pod["status"]
    phase = status.get("phase", "Pending")
    if phase == "Succeeded":
        if any(_reason(each) == "OOMKilled" for each in status.get("initContainerStatuses", ())):
            return Reading("FAILED", "OOMKilled", "USER", _message(status))
        return Reading("SUCCEEDED")
    if phase == "Failed":
        return _failure(pod)
    if phase == "Running":
        return _running(pod)
    return _pending(status)


def _running(pod: Mapping[str, Any]) -> Reading:
    """Look at the primary alone: its end is the task's, whatever the sidecars do."""
    name = pod["metadata"].get("annotations", {}).get(PRIMARY)
    for each in pod["status"].get("containerStatuses", ()):
        end = each.get("state", {}).get("terminated")
        if each["name"] != name or end is None:
            continue
        if end["exitCode"] == 0:
            return Reading("SUCCEEDED")
        kind = "SYSTEM" if end["exitCode"] in KILLED else "USER"
        return Reading("FAILED", end.get("reason", ""), kind, _message(pod["status"]))
    return Reading("RUNNING")


def _failure(pod: Mapping[str, Any]) -> Reading:
    """Class a failed pod (`pod_helper.go`, DemystifyFailure)."""
    status = pod["status"]
    if status.get("reason") == "Evicted":
        return Reading("FAILED", "Interrupted", "SYSTEM", status.get("message", ""))
    primary = pod["metadata"].get("annotations", {}).get(PRIMARY)
    statuses = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    code = status.get("reason") or "Interrupted"
    kind = "SYSTEM"
    for each in statuses:
        end = _end(each) or {}
        if end.get("reason") == "OOMKilled":
            code, kind = "OOMKilled", "USER"
        elif end.get("exitCode") in KILLED and each["name"] != primary:
            kind = "USER"
    return Reading("FAILED", code, kind, _message(status))


def _pending(status: Mapping[str, Any]) -> Reading:
    """Look at the conditions and at app containers; init containers are not looked at.

    (`pod_helper.go`, demystifyPendingHelper: it loops over ContainerStatuses only.)
    """
    conditions = {each["type"]: each for each in status.get("conditions", ())}
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        text = f"{scheduled.get('reason')}: {scheduled.get('message')}"
        return Reading("QUEUED", message=text)
    ready = conditions.get("ContainersReady") or conditions.get("Ready") or {}
    waiting = [
        each["state"]["waiting"].get("reason", "")
        for each in status.get("containerStatuses", ())
        if "waiting" in each.get("state", {})
    ]
    reason = waiting[0] if waiting else ""
    text = f"[{ready.get('reason', '')}|{reason}]: {ready.get('message', '')}|"
    if reason in ("ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError"):
        return Reading("FAILED", reason, "USER", text)
    return Reading("INITIALIZING", message=text)


def _end(status: Mapping[str, Any]) -> Pod | None:
    """Return how a container ended; its end before that, if there was one (DemystifyFailure)."""
    before = status.get("lastState", {}).get("terminated")
    return before or status.get("state", {}).get("terminated")


def _message(status: Mapping[str, Any]) -> str:
    """Return the text of an error: what every ended container left as its message."""
    parts = [status.get("message", "")]
    for each in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        end = _end(each)
        if end:
            parts.append(
                f"[{each['name']}] terminated with exit code ({end['exitCode']}). Reason "
                f"[{end.get('reason', '')}]. Message: \n{end.get('message', '')}."
            )
    return "\n".join(part for part in parts if part)


def quantity(text: str) -> Decimal:
    """Return a quantity of Kubernetes as a number."""
    for suffix, factor in SUFFIXES.items():
        if str(text).endswith(suffix):
            return Decimal(str(text).removesuffix(suffix)) * factor
    return Decimal(str(text))


def _containers(pod: Mapping[str, Any]) -> Iterator[Pod]:
    yield from pod["spec"].get("initContainers", ())
    yield from pod["spec"]["containers"]


def _rendered(word: str, variables: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        return variables.get(match[1].lower(), match[0])

    return re.sub(r"\{\{\s*[.$](\w+)\s*\}\}", value, word)


def _reason(status: Mapping[str, Any]) -> str:
    return str((status.get("state", {}).get("terminated") or {}).get("reason", ""))
