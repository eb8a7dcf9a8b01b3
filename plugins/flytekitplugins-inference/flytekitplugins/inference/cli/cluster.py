"""What a cluster lacks for a pod: sidecars, secrets, quota, and a node that is large enough.

Only reads, and every call is bounded. What this account may not read becomes a note: a task's own
service account, and the person who registers it, often see little of a namespace.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any

from ..errors import ConfigError, QuantityError, SourceUnavailableError
from ..pod.pod_security import LEVELS, pod_security
from ..pod.quantity import parse_quantity
from .findings import PodCheck, PodFinding, display_amount

__all__ = ["check_cluster"]

SECONDS = 10
"""What one answer may take."""
FIRST_WITH_SIDECARS = (1, 29)
"""Kubernetes has native sidecars since 1.29 (SidecarContainers, beta and on by default)."""
ENFORCE = "pod-security.kubernetes.io/enforce"
Read = Callable[..., Any]
_NOTHING = Fraction(0)


def check_cluster(check: PodCheck, *, context: str | None, namespace: str) -> Iterator[PodFinding]:
    """Yield what a cluster says of a pod.

    Args:
        check: The pod.
        context: The context of the kubeconfig; `None` is the current one.
        namespace: Where the pod would run, such as `flytesnacks-development`.

    Raises:
        ConfigError: If there is no such context.
        SourceUnavailableError: If the cluster does not answer.
    """
    cluster = _Cluster(context)
    yield from _version(cluster)
    yield from _namespace(cluster, check, namespace)
    yield from _secrets(cluster, check, namespace)
    yield from _quotas(cluster, check, namespace)
    yield from _limit_ranges(cluster, check, namespace)
    yield from _nodes(cluster, check)


class _Cluster:
    """A cluster's API as plain dictionaries, asked with bounds.

    Args:
        context: The context of the kubeconfig.
    """

    def __init__(self, context: str | None) -> None:
        from kubernetes import client, config

        try:
            api = config.new_client_from_config(context=context)  # type: ignore[no-untyped-call]
        except config.ConfigException as error:
            raise ConfigError(
                f"The kubeconfig has no usable context {context or 'by default'}: {error}",
                hint="kubectl config get-contexts lists them.",
            ) from error
        # no retries: a cluster that does not answer is told at once
        api.configuration.retries = False
        self._client = client
        self._api = api
        self.core = client.CoreV1Api(api)

    def version(self) -> tuple[int, int]:
        """Return the major and minor number of the API server's version."""
        code = self.ask(self._client.VersionApi(self._api).get_code)
        return int(code["major"]), int("".join(filter(str.isdigit, code["minor"])))

    def ask(self, read: Read, *args: str) -> Any:
        """Return an answer as dictionaries; `None` if the object does not exist.

        Raises:
            PermissionError: If this account may not read it.
            SourceUnavailableError: If the cluster does not answer.
        """
        import urllib3

        try:
            # the text: the models of some clients refuse what a newer cluster answers
            response = read(*args, _request_timeout=SECONDS, _preload_content=False)
            return json.loads(response.data)
        except self._client.ApiException as error:
            if error.status == 404:
                return None
            if error.status in (401, 403):
                raise PermissionError(error.reason) from error
            raise SourceUnavailableError(f"The cluster answered {error.status}.") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise SourceUnavailableError(
                f"The cluster does not answer: {error}", hint="Check the context and the network."
            ) from error


def _problem(check: str, text: str) -> PodFinding:
    return PodFinding(check=check, status="problem", text=text)


def _note(check: str, text: str) -> PodFinding:
    return PodFinding(check=check, status="note", text=text)


def _good(check: str, text: str) -> PodFinding:
    return PodFinding(check=check, status="ok", text=text)


def _unreadable(check: str, what: str) -> PodFinding:
    return _note(check, f"This account may not read {what}, so that is not checked.")


def _version(cluster: _Cluster) -> Iterator[PodFinding]:
    try:
        major, minor = cluster.version()
    except PermissionError:
        yield _unreadable("sidecars", "the cluster's version")
        return
    if (major, minor) >= FIRST_WITH_SIDECARS:
        yield _good("sidecars", f"Kubernetes {major}.{minor} has native sidecars.")
    else:
        yield _problem(
            "sidecars",
            f"Kubernetes {major}.{minor} has no native sidecars: the pod would never start. "
            f"It needs {'.'.join(map(str, FIRST_WITH_SIDECARS))} or newer.",
        )


def _namespace(cluster: _Cluster, check: PodCheck, namespace: str) -> Iterator[PodFinding]:
    try:
        answer = cluster.ask(cluster.core.read_namespace, namespace)
    except PermissionError:
        yield _unreadable("namespace", f"the namespace {namespace}")
        return
    if answer is None:
        yield _problem("namespace", f"There is no namespace {namespace}.")
        return
    enforced = (answer["metadata"].get("labels") or {}).get(ENFORCE, "privileged")
    security = pod_security(check.target.manifest["spec"])
    if enforced in LEVELS and LEVELS.index(security.level) < LEVELS.index(enforced):
        yield _problem(
            "pod security",
            f"{namespace} enforces {enforced}, and the pod is {security.level}: "
            f"{'; '.join(security.obstacles)}.",
        )
    else:
        yield _good("pod security", f"{namespace} enforces {enforced}, which the pod meets.")


def _secrets(cluster: _Cluster, check: PodCheck, namespace: str) -> Iterator[PodFinding]:
    for secret in check.secrets:
        try:
            answer = cluster.ask(cluster.core.read_namespaced_secret, secret.name, namespace)
        except PermissionError:
            yield _unreadable("secrets", f"the secret {secret.name}")
            continue
        missing = [key for key in secret.keys if key not in ((answer or {}).get("data") or {})]
        if answer is None:
            yield _problem(
                "secrets",
                f"{namespace} has no secret {secret.name}: {secret.command} -n {namespace}",
            )
        elif missing:
            yield _problem("secrets", f"The secret {secret.name} lacks {', '.join(missing)}.")
        else:
            yield _good("secrets", f"The secret {secret.name} exists.")


def _quotas(cluster: _Cluster, check: PodCheck, namespace: str) -> Iterator[PodFinding]:
    try:
        quotas = cluster.ask(cluster.core.list_namespaced_resource_quota, namespace)
    except PermissionError:
        yield _unreadable("quota", f"the quotas of {namespace}")
        return
    for quota in quotas["items"]:
        name, status = quota["metadata"]["name"], quota.get("status") or {}
        shortages = list(
            _shortages(status.get("hard") or {}, status.get("used") or {}, _counted(check))
        )
        yield from (_problem("quota", f"Quota {name}: {text}") for text in shortages)
        if not shortages:
            yield _good("quota", f"The quota {name} has room for the pod.")


def _counted(check: PodCheck) -> dict[str, Fraction]:
    """Return what quotas count of the pod, by the names that they have for it."""
    counted = {"pods": Fraction(1), "count/pods": Fraction(1)}
    counted |= {f"requests.{name}": amount for name, amount in check.requests.items()}
    counted |= {f"limits.{name}": amount for name, amount in check.limits.items()}
    # the bare names are those of requests
    return counted | dict(check.requests)


def _shortages(
    hard: Mapping[str, str], used: Mapping[str, str], counted: Mapping[str, Fraction]
) -> Iterator[str]:
    for name, text in hard.items():
        need, whole = counted.get(name, _NOTHING), _amount(text)
        rest = whole - _amount(used.get(name, "0"))
        resource = name.partition(".")[2] or name
        shown = display_amount(resource, need)
        if need > whole:
            yield f"the pod needs {shown} {name}, the whole quota is {text}."
        elif need > rest:
            left = display_amount(resource, max(rest, _NOTHING))
            yield f"the pod needs {shown} {name}, {left} of {text} is left now."


def _limit_ranges(cluster: _Cluster, check: PodCheck, namespace: str) -> Iterator[PodFinding]:
    try:
        ranges = cluster.ask(cluster.core.list_namespaced_limit_range, namespace)
    except PermissionError:
        yield _unreadable("limit range", f"the limit ranges of {namespace}")
        return
    spec = check.target.manifest["spec"]
    containers = [*spec.get("initContainers", ()), *spec["containers"]]
    for limit_range in ranges["items"]:
        for entry in limit_range["spec"].get("limits") or ():
            if entry.get("type") != "Container":
                continue
            for container in containers:
                yield from (
                    _problem("limit range", f"{limit_range['metadata']['name']}: {text}")
                    for text in _outside(container, entry)
                )


def _outside(container: Any, entry: Any) -> Iterator[str]:
    resources = container.get("resources") or {}
    # the least and the most, each with the amount that the API server compares
    bounds = (("min", "requests", "less than the least of"), ("max", "limits", "more than"))
    for bound, kind, relation in bounds:
        for name, text in (entry.get(bound) or {}).items():
            given = (resources.get(kind) or {}).get(name)
            if given is None:
                continue
            is_outside = (
                _amount(given) < _amount(text) if bound == "min" else _amount(given) > _amount(text)
            )
            if is_outside:
                yield f"{container['name']} has {given} {name}, {relation} {text}."


def _nodes(cluster: _Cluster, check: PodCheck) -> Iterator[PodFinding]:
    try:
        nodes = cluster.ask(cluster.core.list_node)["items"]
    except PermissionError:
        yield _unreadable("nodes", "the nodes")
        return
    lacking = {
        node["metadata"]["name"]: _lacks(node["status"].get("allocatable") or {}, check.requests)
        for node in nodes
    }
    if any(not lacks for lacks in lacking.values()):
        yield _good("nodes", "A node is large enough for the pod, apart from what runs there.")
    elif lacking:
        # the nodes that come closest say most
        name, lacks = min(lacking.items(), key=lambda item: len(item[1]))
        yield _problem(
            "nodes",
            f"None of {len(lacking)} nodes is large enough; {name} lacks {', '.join(lacks)}. "
            "An autoscaler may bring a larger one.",
        )


def _lacks(allocatable: Mapping[str, str], requests: Mapping[str, Fraction]) -> list[str]:
    return [
        f"{display_amount(name, amount)} {name} (has {allocatable.get(name, '0')})"
        for name, amount in requests.items()
        # Flyte renames its neutral `gpu` on the cluster
        if name != "gpu" and amount > _amount(allocatable.get(name, "0"))
    ]


def _amount(text: str) -> Fraction:
    try:
        return parse_quantity(str(text))
    except QuantityError:
        return _NOTHING
