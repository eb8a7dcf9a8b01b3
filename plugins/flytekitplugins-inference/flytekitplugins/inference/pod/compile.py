"""Compiles a plan to a manifest. Only this module writes Kubernetes' camelCase."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from .parts import Container, EnvVar, Mount, PodPlan, Probe

__all__ = ["Manifest", "compile_plan"]

Manifest = dict[str, Any]
"""A Kubernetes object, or a part of one, as plain dictionaries, lists, texts and numbers."""


def compile_plan(plan: PodPlan) -> Manifest:
    """Return the `v1/Pod` of `plan`, sharing nothing with it."""
    spec = _present(
        {
            "initContainers": [
                # without it Flyte shows "Message: ." for a container that failed
                {**_container(container), "terminationMessagePolicy": "FallbackToLogsOnError"}
                for container in plan.init_containers
            ],
            # the primary's image, arguments and resources come from the task, by flytekit
            "containers": [{**_container(plan.primary), "resources": {}}],
            "volumes": [
                {"name": name, **copy.deepcopy(dict(source))}
                for name, source in plan.volumes.items()
            ],
            "imagePullSecrets": [{"name": name} for name in plan.image_pull_secrets],
            "enableServiceLinks": plan.enable_service_links,
            "terminationGracePeriodSeconds": plan.termination_grace_period_seconds,
            "securityContext": _volume_owner(plan.fs_group),
        }
    )
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": spec}


def _volume_owner(group: int | None) -> Manifest:
    """Return the security context with the group that owns the volumes."""
    # OnRootMismatch: the kubelet otherwise changes the owner of every file at each start, which
    # takes minutes for a large cache
    return {} if group is None else {"fsGroup": group, "fsGroupChangePolicy": "OnRootMismatch"}


def _container(container: Container) -> Manifest:
    ports = ((container.port_name, container.port), *(("", port) for port in container.more_ports))
    return _present(
        {
            "name": container.name,
            "image": container.image,
            # it makes an init container a native sidecar, by default from Kubernetes 1.29 on
            "restartPolicy": "Always" if container.sidecar else None,
            "command": list(container.command),
            "args": list(container.args),
            "env": [_env(variable) for variable in container.env],
            "ports": [
                _present({"name": name or None, "containerPort": port})
                for name, port in ports
                if port
            ],
            "resources": _resources(container.resources, container.limits),
            "volumeMounts": [_mount(mount) for mount in container.mounts],
            "startupProbe": _probe(container.probes.startup, container.port),
            "readinessProbe": _probe(container.probes.readiness, container.port),
            "livenessProbe": _probe(container.probes.liveness, container.port),
            "securityContext": copy.deepcopy(dict(container.security_context)),
        }
    )


def _resources(resources: Mapping[str, str], limits: Mapping[str, str]) -> Manifest:
    # Kubernetes demands equal ones for extended resources such as GPUs. Of cpu and memory, Flyte
    # fills in a missing one by the other, or by a platform default that may be far too small.
    return {"requests": dict(resources), "limits": {**resources, **limits}} if resources else {}


def _env(variable: EnvVar) -> Manifest:
    if variable.secret_name is None:
        return {"name": variable.name, "value": variable.value}
    # optional, because not every platform keeps its secrets in Kubernetes
    reference = {"name": variable.secret_name, "key": variable.secret_key, "optional": True}
    return {"name": variable.name, "valueFrom": {"secretKeyRef": reference}}


def _mount(mount: Mount) -> Manifest:
    return _present(
        {"name": mount.volume, "mountPath": mount.path, "readOnly": mount.read_only or None}
    )


def _probe(probe: Probe | None, container_port: int | None) -> Manifest | None:
    if probe is None:
        return None
    port = probe.port or container_port
    ask: Manifest
    if probe.path is not None:
        ask = {"httpGet": {"path": "/" + probe.path.lstrip("/"), "port": port}}
    elif probe.command:
        ask = {"exec": {"command": list(probe.command)}}
    else:
        ask = {"tcpSocket": {"port": port}}
    timing = {
        "initialDelaySeconds": probe.initial_delay_seconds or None,
        "periodSeconds": probe.period_seconds,
        "timeoutSeconds": probe.timeout_seconds,
        "failureThreshold": probe.failure_threshold,
    }
    return _present({**ask, **timing})


def _present(fields: Mapping[str, Any]) -> Manifest:
    return {name: value for name, value in fields.items() if not _empty(value)}


def _empty(value: Any) -> bool:
    return value is None or (
        isinstance(value, Iterable) and not isinstance(value, str) and not value
    )
