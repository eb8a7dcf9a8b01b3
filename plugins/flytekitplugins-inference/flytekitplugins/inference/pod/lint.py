"""Manifest → problems: what Kubernetes would refuse, or accept and then hang on.

Each check is a generator of sentences over the whole pod; `lint` runs them all. Schema validation does not see any of
this (bad names, port 99999, requests above limits, a probe of an undeclared port).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from ..errors import QuantityError
from .compile import Manifest
from .names import env_name_problem, label_problem, path_problem, port_problem
from .quantity import parse_quantity

__all__ = ["lint"]

_RESERVED_NAMES = frozenset(
    {
        "default",
        "primary-init",
        "default-init",
        "flyte-shared-memory",
        "flyte-copilot-sidecar",
        "flyte-copilot-downloader",
    }
)
"""Names that Flyte gives a meaning of its own (flyteorg/flyte v1.16.8, `pod_helper.go`, `copilot.go`)."""
_TOKEN = re.compile(r"(hf_[A-Za-z0-9]{20,}|nvapi-[\w-]{20,}|sk-[\w-]{20,}|AKIA[0-9A-Z]{16})\Z")
_REFERENCE = re.compile(r"(?<!\$)\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)")
_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def lint(manifest: Manifest) -> list[str]:
    """Return one sentence for each problem of the pod; an empty list when there is none."""
    spec = manifest["spec"]
    checks = (_names, _volumes, _ports, *(_each_container(check) for check in _CONTAINER_CHECKS))
    return [problem for check in checks for problem in check(spec)]


def _containers(spec: Manifest) -> list[Manifest]:
    return [*spec.get("initContainers", ()), *spec.get("containers", ())]


def _is_sidecar(container: Manifest) -> bool:
    return container.get("restartPolicy") == "Always"


def _names(spec: Manifest) -> Iterator[str]:
    for kind, items in (("container", _containers(spec)), ("volume", spec.get("volumes", ()))):
        names = [item.get("name") for item in items]
        for name, count in Counter(names).items():
            if problem := label_problem(name):
                yield f"{kind}: {problem}"
            elif name in _RESERVED_NAMES:
                yield f"{kind} {name!r}: this name has a meaning of its own in Flyte; choose another"
            if count > 1:
                yield f"{kind} {name!r} is there {count} times"


def _volumes(spec: Manifest) -> Iterator[str]:
    known = {volume.get("name") for volume in spec.get("volumes", ())}
    for volume in spec.get("volumes", ()):
        sources = [key for key in volume if key != "name"]
        if len(sources) != 1:
            yield f"volume {volume.get('name')!r} needs exactly one source, not {sources or 'none'}"
    for container in _containers(spec):
        for mount in container.get("volumeMounts", ()):
            if mount["name"] not in known:
                yield f"container {container['name']!r} mounts {mount['name']!r}, which is no volume of the pod"


def _ports(spec: Manifest) -> Iterator[str]:
    """All containers of a pod share one network: a port belongs to one of them."""
    owners: dict[Any, str] = {}
    for container in _containers(spec):
        for port in container.get("ports", ()):
            number = port.get("containerPort")
            if problem := port_problem(number):
                yield f"container {container['name']!r}: {problem}"
            elif number in owners:
                yield f"port {number} is wanted by {owners[number]!r} and {container['name']!r}; a pod has one network"
            owners[number] = container["name"]


def _each_container(check: Any) -> Any:
    def check_all(spec: Manifest) -> Iterator[str]:
        for container in _containers(spec):
            for problem in check(container, spec):
                yield f"container {container['name']!r}: {problem}"

    return check_all


def _mounts(container: Manifest, spec: Manifest) -> Iterator[str]:
    paths = [mount.get("mountPath") for mount in container.get("volumeMounts", ())]
    yield from (problem for path in paths if (problem := path_problem(path)))
    yield from (f"{path!r} is mounted {count} times" for path, count in Counter(paths).items() if count > 1)


def _resources(container: Manifest, spec: Manifest) -> Iterator[str]:
    resources = container.get("resources") or {}
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for kind, quantities in (("request", requests), ("limit", limits)):
        for name, text in quantities.items():
            value = _quantity(text)
            if value is None:
                yield f"{kind} {name}: {text!r} is not a quantity"
            elif value < 0:
                yield f"{kind} {name}: {text!r} is negative"
    for name in requests.keys() & limits.keys():
        request, limit = _quantity(requests[name]), _quantity(limits[name])
        if request is not None and limit is not None and request > limit:
            yield f"the request of {requests[name]} {name} is above the limit of {limits[name]}"


def _memory_volumes(container: Manifest, spec: Manifest) -> Iterator[str]:
    """Pages of a memory-backed volume count against the memory limit of the container that writes them."""
    limit = _quantity(((container.get("resources") or {}).get("limits") or {}).get("memory"))
    sizes = {volume.get("name"): (volume.get("emptyDir") or {}) for volume in spec.get("volumes", ())}
    for mount in container.get("volumeMounts", ()):
        source = sizes.get(mount["name"]) or {}
        size = _quantity(source.get("sizeLimit")) if source.get("medium") == "Memory" else None
        if size is not None and limit is not None and size >= limit:
            yield (
                f"its memory limit of {container['resources']['limits']['memory']} cannot hold "
                f"{mount['mountPath']} of {source['sizeLimit']} in memory and the program beside it; "
                f"raise mem above {source['sizeLimit']} or lower shm_size"
            )


def _environment(container: Manifest, spec: Manifest) -> Iterator[str]:
    names = [variable.get("name") for variable in container.get("env", ())]
    yield from (problem for name in names if (problem := env_name_problem(name)))
    yield from (f"variable {name!r} is there {count} times" for name, count in Counter(names).items() if count > 1)
    for index, variable in enumerate(container.get("env", ())):
        value = variable.get("value")
        if value is None:
            continue
        if not isinstance(value, str):
            yield f"variable {variable['name']!r} is the {type(value).__name__} {value!r}; write {str(value)!r}"
        elif _TOKEN.match(value):
            yield f"variable {variable['name']!r} holds what looks like a token; name a secret instead of its value"
        else:
            yield from _late_references(variable["name"], value, names, index)


def _late_references(name: str, value: str, names: list[Any], index: int) -> Iterator[str]:
    """Kubernetes expands `$(X)` in a value only when X comes earlier in the list (kubernetes#90466)."""
    for reference in _REFERENCE.findall(value):
        if reference in names[index:] and reference not in names[:index]:
            yield f"variable {name!r} refers to $({reference}), which must come before it; put it first"


def _probes(container: Manifest, spec: Manifest) -> Iterator[str]:
    declared = {port.get("containerPort") for owner in _containers(spec) for port in owner.get("ports", ())}
    is_init = any(container is candidate for candidate in spec.get("initContainers", ()))
    for kind in _PROBES:
        probe = container.get(kind)
        if probe is None:
            continue
        if is_init and not _is_sidecar(container):
            yield f"{kind}: only sidecars (restartPolicy: Always) among the init containers may have probes"
        port = (probe.get("httpGet") or probe.get("tcpSocket") or {}).get("port")
        if isinstance(port, int) and port not in declared:
            yield f"{kind} asks port {port}, which no container declares"
        yield from _probe_numbers(kind, probe)


def _probe_numbers(kind: str, probe: Manifest) -> Iterator[str]:
    lowest = {"initialDelaySeconds": 0, "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 1}
    for name, least in lowest.items():
        value = probe.get(name, least)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            yield f"{kind}: {name} must be a whole number of at least {least}, not {value!r}"


def _quantity(text: Any) -> Fraction | None:
    if not isinstance(text, str):
        return None
    try:
        return parse_quantity(text)
    except QuantityError:
        return None


_CONTAINER_CHECKS = (_mounts, _resources, _memory_volumes, _environment, _probes)
