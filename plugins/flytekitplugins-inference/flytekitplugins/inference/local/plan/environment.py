"""What the `env` of a container becomes on this machine.

As the kubelet does, a value sees only what was defined before it. What the cluster holds and this
machine does not is taken from this machine's environment variables of the same name. Messages name
variables, never their values.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .probe_plan import POD_IP
from .rewrite import expand, sole_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_REFERRED = ("secretKeyRef", "configMapKeyRef")


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The variables of one container."""

    values: Mapping[str, str] = field(repr=False)
    """What the container defines, ready to use."""
    visible: Mapping[str, str] = field(repr=False)
    """What `$(NAME)` in command and arguments sees: `values`, and this machine's for those that
    were left out."""
    notes: tuple[str, ...] = ()
    """What differs from a cluster, as sentences."""
    problems: tuple[str, ...] = ()
    """What keeps the container from running here, as sentences."""


def compile_environment(
    container: Mapping[str, Any],
    *,
    rewrite: Callable[[str, str], str],
    environ: Mapping[str, str],
    metadata: Mapping[str, Any],
) -> Environment:
    """Resolve `env` and `envFrom` of a container.

    A variable whose whole value is a reference `$(NAME)` to nothing that was defined before gets
    this machine's `NAME`, or is left out, so that this machine's own variable of that name is
    inherited: `HF_TOKEN=$(_FSEC_HF_TOKEN)` on a laptop where only `HF_TOKEN` is set.

    Args:
        container: The container of the manifest.
        rewrite: `(name, value) -> value` for paths and ports, applied to literal values before
            references are expanded.
        environ: This machine's variables.
        metadata: The manifest's `metadata`, for `fieldRef`.
    """
    values: dict[str, str] = {}
    left_out: set[str] = set()
    notes: list[str] = []
    problems: list[str] = [_missing_source(container, entry) for entry in _sources(container)]
    for entry in container.get("env") or ():
        name = str(entry["name"])
        source = entry.get("valueFrom")
        value: str | None
        if source:
            value, problem = _from_source(name, source, environ=environ, metadata=metadata)
            problems += [f"{container['name']}: {problem}"] if problem else []
        else:
            value = _from_literal(rewrite(name, str(entry.get("value") or "")), values, environ)
        if value is None:
            left_out.add(name)
            notes.append(f"{name} was left out: what it refers to does not exist here")
        else:
            # a name may be defined twice; the last definition counts
            left_out.discard(name)
            values[name] = value
    visible = {name: environ[name] for name in left_out if name in environ} | values
    return Environment(values=values, visible=visible, notes=tuple(notes), problems=tuple(problems))


def _from_literal(text: str, defined: Mapping[str, str], environ: Mapping[str, str]) -> str | None:
    reference = sole_reference(text)
    if reference is not None and reference not in defined:
        return environ.get(reference)
    return expand(text, defined)


def _from_source(
    name: str, source: Mapping[str, Any], *, environ: Mapping[str, str], metadata: Mapping[str, Any]
) -> tuple[str | None, str]:
    """Return the value, or `None`, and what is wrong with that."""
    for kind in _REFERRED:
        if kind in source:
            if name in environ or source[kind].get("optional"):
                return environ.get(name), ""
            location = f"{kind} {source[kind].get('name')!r}, key {source[kind].get('key')!r}"
            return (
                None,
                f"{name} comes from {location}, which does not exist here; set the variable "
                f"{name} on this machine.",
            )
    if "fieldRef" in source:
        path = str(source["fieldRef"].get("fieldPath"))
        value = _field(path, metadata)
        return (
            value,
            ""
            if value is not None
            else f"{name} comes from the field {path!r}, which a local pod lacks.",
        )
    return (
        None,
        f"{name} comes from {', '.join(source)}, which is not supported here; give it a value.",
    )


def _field(path: str, metadata: Mapping[str, Any]) -> str | None:
    for kind in ("labels", "annotations"):
        if path.startswith(f"metadata.{kind}['") and path.endswith("']"):
            return str((metadata.get(kind) or {}).get(path[len(f"metadata.{kind}['") : -2], ""))
    node = platform.node() or "localhost"
    fields = {
        "metadata.name": str(metadata.get("name") or "local"),
        "metadata.namespace": str(metadata.get("namespace") or "default"),
        "metadata.uid": str(metadata.get("uid") or f"local-{os.getpid()}"),
        "spec.nodeName": node,
        "spec.serviceAccountName": "default",
        "status.hostIP": POD_IP,
        "status.hostIPs": POD_IP,
        "status.podIP": POD_IP,
        "status.podIPs": POD_IP,
    }
    return fields.get(path)


def _sources(container: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the `envFrom` entries that are not optional."""
    entries = [
        entry.get("secretRef") or entry.get("configMapRef") or {}
        for entry in container.get("envFrom") or ()
    ]
    return [entry for entry in entries if not entry.get("optional")]


def _missing_source(container: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    return (
        f"{container['name']}: envFrom names {entry.get('name')!r}, which does not exist here; "
        "make it optional and set its variables on this machine."
    )
