"""What the API server refuses in a pod although its schema allows it.

`flytekit` registers such a pod, and Flyte tells of it only when the task runs. Each rule is a
generator of sentences over one part of the pod. The rules are those of Kubernetes 1.36,
`pkg/apis/core/validation/validation.go`; of what depends on a cluster (quotas, admission), none is
here. What has another type than the schema demands is left to the schema.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any

from ..errors import QuantityError
from .compile import Manifest
from .names import (
    label_problem,
    label_value_problem,
    port_name_problem,
    port_problem,
    qualified_name_problem,
    relative_path_problem,
    subdomain_problem,
)
from .quantity import parse_quantity

__all__ = ["api_problems"]

LARGEST = 2**31 - 1
"""The largest number of Kubernetes' `int32` fields, and the largest user and group."""
MAX_ANNOTATION_BYTES = 256 * 1024
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}\Z")
_HEADER = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+\Z")
_STANDARD_RESOURCES = frozenset({"cpu", "memory", "ephemeral-storage"})
_NEUTRAL_GPU = "gpu"
"""Flyte renames it before the API server sees it."""
_MEDIA = re.compile(r"(Memory|HugePages(-\w+)?)?\Z")
_HOST_PATH_TYPES = (
    *("", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket"),
    *("CharDevice", "BlockDevice"),
)
_PROFILES = ("Localhost", "RuntimeDefault", "Unconfined")
_DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_EFFECTS = ("", "NoSchedule", "PreferNoSchedule", "NoExecute")
_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
_PROBE_NUMBERS = (
    "initialDelaySeconds",
    "periodSeconds",
    "timeoutSeconds",
    "failureThreshold",
    "successThreshold",
)
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "imagePullPolicy": ("Always", "Never", "IfNotPresent"),
    "terminationMessagePolicy": ("File", "FallbackToLogsOnError"),
}


def api_problems(manifest: Manifest) -> Iterator[str]:
    """Yield one sentence for each thing that the API server refuses.

    Args:
        manifest: A `v1/Pod`.
    """
    spec = _mapping(manifest.get("spec"))
    metadata = _mapping(manifest.get("metadata"))
    yield from _labels("label", metadata.get("labels"))
    yield from _annotations(_mapping(metadata.get("annotations")))
    for rule in (_numbers, _dns, _node_selector, _tolerations, _object_names, _host_aliases):
        yield from rule(spec)
    yield from _security(_mapping(spec.get("securityContext")))
    for volume in _mappings(spec.get("volumes")):
        yield from _prefixed(f"volume {volume.get('name')!r}", _volume(volume))
    for kind in ("initContainers", "containers"):
        for container in _mappings(spec.get(kind)):
            yield from _prefixed(f"container {container.get('name')!r}", _container(container))


def _container(container: Manifest) -> Iterator[str]:
    for field, allowed in _CHOICES.items():
        yield from _choice(field, container.get(field), allowed)
    image = container.get("image")
    if isinstance(image, str) and image != image.strip():
        yield f"image {image!r} has spaces around it"
    for rule in (_port_names, _resources, _mounts, _sources_of_variables):
        yield from rule(container)
    yield from _security(_mapping(container.get("securityContext")))
    for kind in _PROBES:
        if kind in container:
            yield from _prefixed(kind, _probe(kind, _mapping(container[kind])))


# The pod


def _labels(kind: str, labels: Any) -> Iterator[str]:
    for key, value in _mapping(labels).items():
        for problem in (qualified_name_problem(key), label_value_problem(value)):
            if problem:
                yield f"{kind} {key!r}: {problem}"


def _annotations(annotations: Manifest) -> Iterator[str]:
    for key, value in annotations.items():
        # the API server compares keys in lower case
        if problem := qualified_name_problem(key.lower() if isinstance(key, str) else key):
            yield f"annotation {key!r}: {problem}"
        if not isinstance(value, str):
            yield f"annotation {key!r}: {value!r} is not a text; write {str(value)!r}"
    size = sum(len(str(text).encode()) for pair in annotations.items() for text in pair)
    if size > MAX_ANNOTATION_BYTES:
        yield f"the annotations have {size} bytes; a pod holds at most {MAX_ANNOTATION_BYTES}"


def _numbers(spec: Manifest) -> Iterator[str]:
    yield from _between("activeDeadlineSeconds", spec.get("activeDeadlineSeconds"), 1, LARGEST)
    period = spec.get("terminationGracePeriodSeconds")
    yield from _between("terminationGracePeriodSeconds", period, 0, 2**63 - 1)


def _dns(spec: Manifest) -> Iterator[str]:
    yield from _choice("dnsPolicy", spec.get("dnsPolicy"), _DNS_POLICIES)
    servers = _list(_mapping(spec.get("dnsConfig")).get("nameservers"))
    if spec.get("dnsPolicy") == "None" and not servers:
        yield (
            "dnsPolicy 'None' needs a nameserver in dnsConfig.nameservers; write 'ClusterFirst' "
            "for the cluster's own"
        )
    if len(servers) > 3:
        yield f"dnsConfig.nameservers has {len(servers)} addresses; a pod has at most 3"
    yield from (problem for server in servers if (problem := _ip_problem(server)))


def _node_selector(spec: Manifest) -> Iterator[str]:
    yield from _labels("nodeSelector", spec.get("nodeSelector"))


def _tolerations(spec: Manifest) -> Iterator[str]:
    for index, toleration in enumerate(_mappings(spec.get("tolerations"))):
        yield from _prefixed(f"tolerations[{index}]", _toleration(toleration))


def _toleration(toleration: Manifest) -> Iterator[str]:
    key, operator = toleration.get("key") or "", toleration.get("operator") or "Equal"
    value, effect = toleration.get("value") or "", toleration.get("effect") or ""
    if key and (problem := qualified_name_problem(key)):
        yield problem
    if not key and operator != "Exists":
        yield "without a key the operator must be 'Exists'"
    if operator == "Exists" and value:
        yield f"with the operator 'Exists' there is no value; remove {value!r}"
    elif operator == "Equal" and (problem := label_value_problem(value)):
        yield problem
    # later versions know comparisons too
    yield from _choice("operator", operator, ("Equal", "Exists", "Lt", "Gt"))
    yield from _choice("effect", effect, _EFFECTS)
    if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
        yield "tolerationSeconds needs the effect 'NoExecute'"


def _object_names(spec: Manifest) -> Iterator[str]:
    checks = {
        "serviceAccountName": subdomain_problem,
        "priorityClassName": subdomain_problem,
        "runtimeClassName": subdomain_problem,
        "schedulerName": subdomain_problem,
        "nodeName": subdomain_problem,
        "hostname": label_problem,
        "subdomain": label_problem,
    }
    for field, check in checks.items():
        if spec.get(field) and (problem := check(spec[field])):
            yield f"{field}: {problem}"


def _host_aliases(spec: Manifest) -> Iterator[str]:
    for alias in _mappings(spec.get("hostAliases")):
        if problem := _ip_problem(alias.get("ip")):
            yield f"hostAliases: {problem}"
        for name in _list(alias.get("hostnames")):
            if problem := subdomain_problem(name):
                yield f"hostAliases: {problem}"


# Volumes


def _volume(volume: Manifest) -> Iterator[str]:
    for kind, details in volume.items():
        rule = _VOLUME_RULES.get(kind)
        if rule and isinstance(details, Mapping):
            yield from _prefixed(kind, rule(details))


def _host_path(source: Mapping[str, Any]) -> Iterator[str]:
    yield from _required(source, "path")
    if ".." in str(source.get("path", "")).split("/"):
        yield f"path {source['path']!r} must not contain '..'"
    yield from _choice("type", source.get("type"), _HOST_PATH_TYPES)


def _empty_dir(source: Mapping[str, Any]) -> Iterator[str]:
    if not _MEDIA.match(str(source.get("medium") or "")):
        yield f"medium {source['medium']!r} must be '', 'Memory' or 'HugePages'"
    size = _quantity(source.get("sizeLimit"))
    if size is not None and size < 0:
        yield f"sizeLimit {source['sizeLimit']!r} is negative"


def _claim(source: Mapping[str, Any]) -> Iterator[str]:
    yield from _object_name(source, "claimName")


def _secret(source: Mapping[str, Any]) -> Iterator[str]:
    yield from _object_name(source, "secretName")
    yield from _files(source)


def _config_map(source: Mapping[str, Any]) -> Iterator[str]:
    yield from _object_name(source, "name")
    yield from _files(source)


def _nfs(source: Mapping[str, Any]) -> Iterator[str]:
    yield from _required(source, "server", "path")
    if source.get("path") and not str(source["path"]).startswith("/"):
        yield f"path {source['path']!r} is not an absolute path"


def _csi(source: Mapping[str, Any]) -> Iterator[str]:
    yield from _required(source, "driver")
    driver = str(source.get("driver") or "")
    if driver and (len(driver) > 63 or subdomain_problem(driver.lower())):
        yield f"driver {driver!r} is not a driver's name, such as 'csi.example.com'"


def _image_volume(source: Mapping[str, Any]) -> Iterator[str]:
    yield from _required(source, "reference")
    yield from _choice("pullPolicy", source.get("pullPolicy"), _CHOICES["imagePullPolicy"])


def _ephemeral(source: Mapping[str, Any]) -> Iterator[str]:
    yield from _required(source, "volumeClaimTemplate")


def _downward(source: Mapping[str, Any]) -> Iterator[str]:
    yield from _files(source, keys=False)


def _projected(source: Mapping[str, Any]) -> Iterator[str]:
    yield from _mode("defaultMode", source)
    names = {"secret": "name", "configMap": "name"}
    for part in _mappings(source.get("sources")):
        for kind, details in part.items():
            if isinstance(details, Mapping):
                if kind in names:
                    yield from _object_name(details, names[kind])
                yield from _files(details, keys=kind in names)
                if "path" in details and (problem := relative_path_problem(details["path"])):
                    yield f"{kind}: {problem}"


_VOLUME_RULES: Mapping[str, Callable[[Mapping[str, Any]], Iterator[str]]] = {
    "hostPath": _host_path,
    "emptyDir": _empty_dir,
    "persistentVolumeClaim": _claim,
    "secret": _secret,
    "configMap": _config_map,
    "nfs": _nfs,
    "csi": _csi,
    "image": _image_volume,
    "ephemeral": _ephemeral,
    "downwardAPI": _downward,
    "projected": _projected,
}


def _object_name(source: Mapping[str, Any], field: str) -> Iterator[str]:
    yield from _required(source, field)
    # not refused, but there can be no such object, for which the pod then waits for ever
    if source.get(field) and (problem := subdomain_problem(source[field])):
        yield f"{field}: {problem}"


def _files(source: Mapping[str, Any], *, keys: bool = True) -> Iterator[str]:
    """Check the files that a volume's source makes of an object's keys."""
    yield from _mode("defaultMode", source)
    for item in _mappings(source.get("items")):
        yield from _mode("mode", item)
        if problem := relative_path_problem(item.get("path")):
            yield f"items: {problem}"
        if keys and not _KEY.match(str(item.get("key") or "")):
            yield f"items: {item.get('key')!r} is not a key: letters, digits, '-', '_' and '.'"


def _mode(field: str, source: Mapping[str, Any]) -> Iterator[str]:
    mode = source.get(field)
    if isinstance(mode, int) and not 0 <= mode <= 0o777:
        yield f"{field} {mode} must be between 0 and 0777 (511)"


# Containers


def _port_names(container: Manifest) -> Iterator[str]:
    ports = _mappings(container.get("ports"))
    names = [port["name"] for port in ports if port.get("name")]
    yield from (f"ports: {problem}" for name in names if (problem := port_name_problem(name)))
    yield from (
        f"ports: the name {name!r} is there {count} times"
        for name, count in Counter(map(str, names)).items()
        if count > 1
    )
    for port in ports:
        yield from _choice("ports: protocol", port.get("protocol"), ("TCP", "UDP", "SCTP"))
        if port.get("hostPort") and (problem := port_problem(port["hostPort"])):
            yield f"hostPort: {problem}"


def _resources(container: Manifest) -> Iterator[str]:
    resources = _mapping(container.get("resources"))
    requests, limits = _mapping(resources.get("requests")), _mapping(resources.get("limits"))
    for name in dict.fromkeys((*requests, *limits)):
        if problem := _resource_name_problem(name):
            yield problem
        elif name not in (*_STANDARD_RESOURCES, _NEUTRAL_GPU):
            yield from _indivisible(name, requests.get(name), limits.get(name))
    has_standard = {"cpu", "memory"} & {*requests, *limits}
    if not has_standard and any(str(name).startswith("hugepages-") for name in limits):
        yield "hugepages need cpu or memory beside them"


def _resource_name_problem(name: object) -> str | None:
    text = str(name)
    is_native = text in _STANDARD_RESOURCES or text.startswith("hugepages-")
    if is_native or text == _NEUTRAL_GPU:
        return None
    if "/" in text and not text.startswith("requests.") and not qualified_name_problem(name):
        return None
    return f"{name!r} is not a resource's name; expected 'cpu', 'memory' or 'vendor.example/kind'"


def _indivisible(name: str, request: Any, limit: Any) -> Iterator[str]:
    """Check a resource of which a pod gets whole units, and never more than it requests."""
    if limit is None:
        yield f"{name} needs a limit; write limits: {{{name}: {request!r}}}"
    elif request is not None and _quantity(request) != _quantity(limit):
        yield f"the request of {request} {name} must equal the limit of {limit}"
    amount = _quantity(limit)
    if amount is not None and amount.denominator != 1:
        yield f"{name}: {limit!r} is not a whole number"


def _mounts(container: Manifest) -> Iterator[str]:
    for mount in _mappings(container.get("volumeMounts")):
        for field in ("subPath", "subPathExpr"):
            if mount.get(field) and (problem := relative_path_problem(mount[field])):
                yield f"{field}: {problem}"
        if mount.get("subPath") and mount.get("subPathExpr"):
            yield f"{mount.get('mountPath')!r} has subPath and subPathExpr; give one of them"


def _sources_of_variables(container: Manifest) -> Iterator[str]:
    for variable in _mappings(container.get("env")):
        for kind in ("secretKeyRef", "configMapKeyRef"):
            reference = _mapping(variable.get("valueFrom")).get(kind)
            if isinstance(reference, Mapping) and not _KEY.match(str(reference.get("key") or "")):
                yield (
                    f"variable {variable.get('name')!r}: {kind} needs a key of letters, digits, "
                    f"'-', '_' and '.', not {reference.get('key')!r}"
                )


def _security(context: Manifest) -> Iterator[str]:
    """Check a security context, of the pod or of a container."""
    for field in ("runAsUser", "runAsGroup", "fsGroup"):
        yield from _between(f"securityContext: {field}", context.get(field), 0, LARGEST)
    for group in _list(context.get("supplementalGroups")):
        yield from _between("securityContext: supplementalGroups", group, 0, LARGEST)
    policies = ("OnRootMismatch", "Always")
    policy = context.get("fsGroupChangePolicy")
    yield from _choice("securityContext: fsGroupChangePolicy", policy, policies)
    for field in ("seccompProfile", "appArmorProfile"):
        profile = context.get(field)
        if isinstance(profile, Mapping):
            yield from _prefixed(f"securityContext: {field}", _profile(field, profile))
    added = _list(_mapping(context.get("capabilities")).get("add"))
    if context.get("allowPrivilegeEscalation") is False and "CAP_SYS_ADMIN" in added:
        yield "securityContext: CAP_SYS_ADMIN needs allowPrivilegeEscalation=True as well"


def _profile(field: str, profile: Mapping[str, Any]) -> Iterator[str]:
    kind, local = profile.get("type"), profile.get("localhostProfile")
    if kind not in _PROFILES:
        yield f"type must be one of {', '.join(_PROFILES)}, not {kind!r}"
    elif kind != "Localhost" and local:
        yield f"localhostProfile is for the type Localhost only, not for {kind}"
    elif kind == "Localhost" and not str(local or "").strip():
        yield "the type Localhost needs a localhostProfile"
    elif (
        kind == "Localhost"
        and field == "seccompProfile"
        and (problem := relative_path_problem(local))
    ):
        yield f"localhostProfile: {problem}"


def _probe(kind: str, probe: Manifest) -> Iterator[str]:
    for field in _PROBE_NUMBERS:
        value = probe.get(field)
        # the lower bounds are `lint`'s: Kubernetes reads 0 as its default
        if isinstance(value, int) and value > LARGEST:
            yield f"{field} must be at most {LARGEST}, not {value}"
    if kind != "readinessProbe" and probe.get("successThreshold") not in (None, 0, 1):
        yield f"successThreshold must be 1, not {probe['successThreshold']!r}"
    period = probe.get("terminationGracePeriodSeconds")
    if period is not None and kind == "readinessProbe":
        yield "terminationGracePeriodSeconds is for the other probes only"
    else:
        yield from _between("terminationGracePeriodSeconds", period, 1, 2**63 - 1)
    for handler in ("httpGet", "tcpSocket", "grpc"):
        if isinstance(probe.get(handler), Mapping):
            yield from _probe_target(handler, probe[handler])
    command = _mapping(probe.get("exec")).get("command")
    if "exec" in probe and not command:
        yield "exec needs a command"


def _probe_target(handler: str, target: Mapping[str, Any]) -> Iterator[str]:
    port = target.get("port")
    problem = port_name_problem(port) if isinstance(port, str) else port_problem(port)
    if problem:
        yield f"{handler}: {problem}"
    if handler == "httpGet":
        yield from _choice("httpGet: scheme", target.get("scheme"), ("HTTP", "HTTPS"))
        for header in _mappings(target.get("httpHeaders")):
            if not _HEADER.match(str(header.get("name") or "")):
                yield f"httpGet: {header.get('name')!r} is not a header's name"


# What the rules share


def _prefixed(prefix: str, problems: Iterable[str]) -> Iterator[str]:
    return (f"{prefix}: {problem}" for problem in problems)


def _choice(field: str, value: Any, allowed: tuple[str, ...]) -> Iterator[str]:
    if value is not None and value not in allowed:
        yield f"{field} must be one of {', '.join(map(repr, allowed))}, not {value!r}"


def _between(field: str, value: Any, least: int, most: int) -> Iterator[str]:
    if isinstance(value, int) and not isinstance(value, bool) and not least <= value <= most:
        yield f"{field} must be between {least} and {most}, not {value}"


def _required(source: Mapping[str, Any], *fields: str) -> Iterator[str]:
    yield from (f"{field} is missing" for field in fields if not source.get(field))


def _ip_problem(address: Any) -> str | None:
    # imported on use: `import flytekit` imports this module, and hardly any pod has addresses
    import ipaddress

    try:
        ipaddress.ip_address(str(address))
    except ValueError:
        return f"{address!r} is not an IP address"
    return None


def _quantity(text: Any) -> Fraction | None:
    try:
        return parse_quantity(str(text))
    except QuantityError:
        return None


def _mapping(value: Any) -> Manifest:
    return dict(value) if isinstance(value, Mapping) else {}


def _mappings(value: Any) -> list[Manifest]:
    return [dict(item) for item in _list(value) if isinstance(item, Mapping)]


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []
