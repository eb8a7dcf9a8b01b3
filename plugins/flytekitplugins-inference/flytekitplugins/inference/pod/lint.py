"""Finds problems of a manifest that Kubernetes would refuse, or accept and then hang on.

Each check is a generator of sentences over the whole pod; `lint` runs them all. Schema validation
does not see any of this (bad names, port 99999, requests above limits, a probe of an undeclared
port).
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from fractions import Fraction
from typing import Any

from ..errors import QuantityError
from .api_rules import api_problems
from .compile import Manifest
from .names import env_name_problem, label_problem, path_problem, port_problem
from .plain_secrets import secrets_in_variable, secrets_in_words
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
"""Names that Flyte gives a meaning of its own (flyteorg/flyte v1.16.8, `pod_helper.go`,
`copilot.go`)."""
_REFERENCE = re.compile(r"(?<!\$)\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)")
_HANDLERS = {"httpGet", "tcpSocket", "exec", "grpc"}
_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def lint(manifest: Manifest, *, ours: Collection[str] | None = None) -> list[str]:
    """Return one sentence for each problem of the pod; an empty list when there is none.

    Args:
        manifest: A `v1/Pod`.
        ours: The containers to look into; the others are their authors' own. `None` looks into all.
    """
    spec = manifest["spec"]
    problems = [problem for check in (_names, _volumes, _ports) for problem in check(spec)]
    # of every container: one is enough to have the whole pod refused
    problems += api_problems(manifest)
    for container in _containers(spec):
        name = container.get("name")
        if ours is None or name in ours:
            problems += [
                f"container {name!r}: {problem}"
                for check in _CONTAINER_CHECKS
                for problem in check(container, spec)
            ]
    return problems


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
                yield (
                    f"{kind} {name!r}: this name has a meaning of its own in Flyte; choose another"
                )
            if count > 1:
                yield f"{kind} {name!r} is there {count} times"


def _volumes(spec: Manifest) -> Iterator[str]:
    names = {volume.get("name") for volume in spec.get("volumes", ())}
    for volume in spec.get("volumes", ()):
        sources = [key for key in volume if key != "name"]
        if len(sources) != 1:
            yield f"volume {volume.get('name')!r} needs exactly one source, not {sources or 'none'}"
    for container in _containers(spec):
        for mount in container.get("volumeMounts", ()):
            if mount["name"] not in names:
                yield (
                    f"container {container['name']!r} mounts {mount['name']!r}, which is no "
                    "volume of the pod"
                )


def _ports(spec: Manifest) -> Iterator[str]:
    """Find ports that two containers want: all containers of a pod share one network."""
    owners: dict[Any, str] = {}
    for container in _containers(spec):
        for port in container.get("ports", ()):
            number = port.get("containerPort")
            # TCP and UDP count their ports separately
            place = (port.get("containerPort"), port.get("protocol", "TCP"))
            if problem := port_problem(number):
                yield f"container {container['name']!r}: {problem}"
            elif place in owners:
                yield (
                    f"port {number} is wanted by {owners[place]!r} and {container['name']!r}; a "
                    "pod has one network"
                )
            owners[place] = container["name"]


def _mounts(container: Manifest, spec: Manifest) -> Iterator[str]:
    mount_paths = [mount.get("mountPath") for mount in container.get("volumeMounts", ())]
    yield from (problem for path in mount_paths if (problem := path_problem(path)))
    # `/a` and `/a/` are one place, though they differ as texts
    paths = [posixpath.normpath(path) for path in mount_paths if isinstance(path, str)]
    yield from (
        f"{path!r} is mounted {count} times" for path, count in Counter(paths).items() if count > 1
    )


def _resources(container: Manifest, spec: Manifest) -> Iterator[str]:
    resources = container.get("resources") or {}
    requests = resources.get("requests") or {}
    limits = resources.get("limits") or {}
    for kind, quantities in (("request", requests), ("limit", limits)):
        for name, text in quantities.items():
            value = _quantity(text)
            if value is None:
                yield f"{kind} {name}: {text!r} is not a quantity"
            elif value < 0:
                yield f"{kind} {name}: {text!r} is negative"
    for name in requests.keys() & limits.keys():
        request = _quantity(requests[name])
        limit = _quantity(limits[name])
        if request is not None and limit is not None and request > limit:
            yield f"the request of {requests[name]} {name} is above the limit of {limits[name]}"


def _memory_volumes(container: Manifest, spec: Manifest) -> Iterator[str]:
    """Find volumes in memory that do not fit: their pages count against the writer's limit."""
    limit_text = ((container.get("resources") or {}).get("limits") or {}).get("memory")
    limit = _quantity(limit_text)
    volumes = {
        volume.get("name"): volume.get("emptyDir") or {} for volume in spec.get("volumes", ())
    }
    mounts = [
        (mount["mountPath"], volumes.get(mount["name"]) or {})
        for mount in container.get("volumeMounts", ())
    ]
    in_memory = [(path, source["sizeLimit"]) for path, source in mounts if _is_in_memory(source)]
    total = sum((_quantity(size) or Fraction(0) for _, size in in_memory), Fraction(0))
    if limit is not None and in_memory and total >= limit:
        places = " and ".join(f"{path} of {size}" for path, size in in_memory)
        yield (
            f"its memory limit of {limit_text} cannot hold {places} in memory and the program "
            "beside it; raise mem above that or lower shm_size"
        )


def _is_in_memory(source: Manifest) -> bool:
    return source.get("medium") == "Memory" and _quantity(source.get("sizeLimit")) is not None


def _environment(container: Manifest, spec: Manifest) -> Iterator[str]:
    names = [variable.get("name") for variable in container.get("env", ())]
    yield from (problem for name in names if (problem := env_name_problem(name)))
    yield from (
        f"variable {name!r} is there {count} times"
        for name, count in Counter(names).items()
        if count > 1
    )
    for index, variable in enumerate(container.get("env", ())):
        value, source = variable.get("value"), variable.get("valueFrom")
        if source is not None and (value is not None or len(source) != 1):
            yield (
                f"variable {variable['name']!r} needs either a value or one source of it, not "
                f"{_kinds(variable)}"
            )
        if value is None:
            continue
        if not isinstance(value, str):
            yield (
                f"variable {variable['name']!r} is the {type(value).__name__} {value!r}; write "
                f"{str(value)!r}"
            )
        elif problems := list(secrets_in_variable(str(variable["name"]), value)):
            yield from problems
        else:
            yield from _late_references(variable["name"], value, names, index)


def _late_references(name: str, value: str, names: list[Any], index: int) -> Iterator[str]:
    """Find `$(X)` before X, where Kubernetes does not expand it (kubernetes#90466)."""
    for reference in _REFERENCE.findall(value):
        # a name that is nowhere in the list stays as it is; Flyte may add that variable
        if reference in names[index:] and reference not in names[:index]:
            yield (
                f"variable {name!r} refers to $({reference}), which must come before it; put it "
                "first"
            )


def _kinds(variable: Manifest) -> str:
    return " and ".join(
        [*(["value"] if "value" in variable else []), *(variable.get("valueFrom") or ())]
    )


def _words(container: Manifest, spec: Manifest) -> Iterator[str]:
    words = (*container.get("command", ()), *container.get("args", ()))
    yield from secrets_in_words(map(str, words))


def _security(container: Manifest, spec: Manifest) -> Iterator[str]:
    context = container.get("securityContext") or {}
    if context.get("runAsNonRoot") and context.get("runAsUser") == 0:
        yield (
            "securityContext: runAsUser 0 is root, but runAsNonRoot is true; set that to False "
            "as well"
        )
    if context.get("privileged") and context.get("allowPrivilegeEscalation") is False:
        yield "securityContext: privileged needs allowPrivilegeEscalation=True as well"


def _probes(container: Manifest, spec: Manifest) -> Iterator[str]:
    init = spec.get("initContainers", ())
    position = next((index for index, candidate in enumerate(init) if candidate is container), None)
    for kind in _PROBES:
        probe = container.get(kind)
        if probe is None:
            continue
        handlers = sorted(_HANDLERS & probe.keys())
        if len(handlers) != 1:
            yield (
                f"{kind} needs exactly one of {', '.join(sorted(_HANDLERS))}, not "
                f"{' and '.join(handlers) or 'none'}"
            )
        # the API server refuses probes of a container that is expected to end
        if position is not None and not _is_sidecar(container):
            yield (
                f"{kind}: only sidecars (restartPolicy: Always) among the init containers may "
                "have probes"
            )
        # during a startup probe, no later container runs, so only earlier ones can answer
        answering = (
            init[: position + 1]
            if kind == "startupProbe" and position is not None
            else _containers(spec)
        )
        yield from _probe_port(kind, probe, container, answering)
        yield from _probe_numbers(kind, probe)


def _probe_port(
    kind: str, probe: Manifest, container: Manifest, answering: Iterable[Manifest]
) -> Iterator[str]:
    port = (probe.get("httpGet") or probe.get("tcpSocket") or {}).get("port")
    if isinstance(port, int) and port not in {
        own.get("containerPort") for one in answering for own in one.get("ports", ())
    }:
        yield f"{kind} asks port {port}, which no container declares that runs by then"
    if isinstance(port, str) and port not in {
        own.get("name") for own in container.get("ports", ())
    }:
        yield f"{kind} asks the port {port!r}, which is no name of a port of this container"


def _probe_numbers(kind: str, probe: Manifest) -> Iterator[str]:
    lowest = {
        "initialDelaySeconds": 0,
        "periodSeconds": 1,
        "timeoutSeconds": 1,
        "failureThreshold": 1,
    }
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


_CONTAINER_CHECKS = (_mounts, _resources, _memory_volumes, _environment, _words, _security, _probes)
