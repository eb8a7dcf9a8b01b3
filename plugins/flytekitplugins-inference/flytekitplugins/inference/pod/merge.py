"""Merges the user's own manifest with ours, by name and add-only.

Nothing is overwritten, and a difference is an error.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from typing import Any

from ..errors import SpecConflictError
from .compile import Manifest
from .secrets import masked

__all__ = ["merge_manifests", "normalise"]

_KEYS = {
    "initContainers": "name",
    "containers": "name",
    "volumes": "name",
    "imagePullSecrets": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
}
"""List field → the key of its items (Kubernetes' own merge keys)."""
_ALTERNATIVES = re.compile(r"(^spec\.volumes\[[^]]*\]|\.env\[[^]]*\]|\.valueFrom)\Z")
_HANDLERS = {"httpGet", "tcpSocket", "exec", "grpc"}


def merge_manifests(base: Manifest, ours: Manifest) -> Manifest:
    """Return `ours` added to `base`; neither is changed, and the result shares nothing with them.

    Items that only `base` has come first, in their order; only in `containers` they come last,
    because the first container is the primary. Containers that `base` adds to `initContainers`
    therefore run before ours.

    Raises:
        SpecConflictError: If both have different values in one place. The error shows the place and
            both values.
    """
    conflicts: list[str] = []
    merged = _merge(base, ours, "", conflicts)
    if conflicts:
        raise SpecConflictError(
            "base= and the template differ about the same things.",
            hint="Remove one of the two sides, or rename the volume or container in base=.",
            problems=conflicts,
        )
    return merged  # type: ignore[no-any-return]


def normalise(value: Any) -> Any:
    """Return a user's manifest in our form: without nulls, and with quantities as texts."""
    if isinstance(value, Mapping):
        # a key without a value is null in YAML, and absent for Kubernetes
        fields = {key: normalise(item) for key, item in value.items() if item is not None}
        # YAML reads `cpu: 2` as a number, and Kubernetes writes a text
        for kind in ("requests", "limits"):
            if isinstance(fields.get(kind), dict):
                fields[kind] = {name: str(item) for name, item in fields[kind].items()}
        return fields
    return [normalise(item) for item in value] if isinstance(value, (list, tuple)) else value


def _merge(base: Any, ours: Any, path: str, conflicts: list[str]) -> Any:
    if (
        isinstance(base, Mapping)
        and isinstance(ours, Mapping)
        and not _of_another_kind(base, ours, path)
    ):
        return _merge_mappings(base, ours, path, conflicts)
    field = path.rpartition(".")[2]
    if isinstance(base, list) and isinstance(ours, list) and field in _KEYS:
        return _merge_lists(base, ours, path, conflicts)
    if base != ours:
        conflicts.append(f"{path}: base has {_short(base)}, the template has {_short(ours)}")
    return copy.deepcopy(ours)


def _of_another_kind(base: Mapping[str, Any], ours: Mapping[str, Any], path: str) -> bool:
    """Whether Kubernetes allows only one of the two.

    This applies to a volume's sources, a variable's values, and a probe's handlers.
    """
    if _ALTERNATIVES.search(path):
        return base.keys() != ours.keys()
    return path.endswith("Probe") and base.keys() & _HANDLERS != ours.keys() & _HANDLERS


def _merge_mappings(
    base: Mapping[str, Any], ours: Mapping[str, Any], path: str, conflicts: list[str]
) -> Manifest:
    merged = copy.deepcopy(dict(base))
    for key, value in ours.items():
        where = f"{path}.{key}" if path else key
        merged[key] = (
            _merge(base[key], value, where, conflicts) if key in base else copy.deepcopy(value)
        )
    return merged


def _merge_lists(base: list[Any], ours: list[Any], path: str, conflicts: list[str]) -> list[Any]:
    key = _KEYS[path.rpartition(".")[2]]
    in_ours = {item.get(key): item for item in ours}
    in_base = {item.get(key): item for item in base}
    only_base = [copy.deepcopy(item) for item in base if item.get(key) not in in_ours]
    merged = [
        _merge(in_base[name], item, f"{path}[{name}]", conflicts)
        if name in in_base
        else copy.deepcopy(item)
        for name, item in in_ours.items()
    ]
    # Flyte 1.x links only the log of the first container
    return merged + only_base if path == "spec.containers" else only_base + merged


def _short(value: Any) -> str:
    # a variable of the user's own pod may hold a token, and errors end up in logs
    text = masked(json.dumps(value, sort_keys=True, default=repr))
    return text if len(text) <= 200 else text[:199] + "…"
