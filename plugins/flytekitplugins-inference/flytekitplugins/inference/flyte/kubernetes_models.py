"""Converts manifests to the models of the `kubernetes` client, and back.

Up to version 36 the models are plain classes, filled by `ApiClient.deserialize`; from 37 on they
are strict pydantic models with `from_dict`. Both silently drop unknown keys, so the result is
converted back and compared with the manifest.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import UnsupportedError
from ..pod.compile import Manifest

if TYPE_CHECKING:
    from kubernetes.client import V1PodSpec

__all__ = ["from_pod_spec", "to_pod_spec"]


def to_pod_spec(spec: Manifest) -> V1PodSpec:
    """Return `spec`, a manifest's `spec`, as a `V1PodSpec`.

    Raises:
        UnsupportedError: If the installed client does not know a field of it.
    """
    from kubernetes.client import V1PodSpec

    pod_spec: V1PodSpec
    if hasattr(V1PodSpec, "from_dict"):
        pod_spec = V1PodSpec.from_dict(spec)  # type: ignore[assignment] # None only for None
    else:
        pod_spec = _client().deserialize(_Response(data=json.dumps(spec)), "V1PodSpec")
    read_back = from_pod_spec(pod_spec)
    if read_back != spec:
        raise UnsupportedError(
            "The installed kubernetes client would drop "
            f"{', '.join(_lost(spec, read_back))} from the pod.",
            hint="Each is misspelt, or newer than the client (at least 28.1 is needed).",
        )
    return pod_spec


def from_pod_spec(pod_spec: V1PodSpec) -> Manifest:
    """Return a `V1PodSpec` as a manifest's `spec`, in camelCase, sharing nothing with it."""
    manifest: Manifest = _client().sanitize_for_serialization(pod_spec)
    return manifest


@dataclass(frozen=True)
class _Response:
    """The response from which `ApiClient.deserialize` reads a text."""

    data: str


@functools.lru_cache(maxsize=1)
def _client() -> Any:
    from kubernetes.client import ApiClient, Configuration

    # an empty configuration, because the client only converts and contacts no cluster
    return ApiClient(Configuration())


def _lost(before: Any, after: Any, path: str = "spec") -> list[str]:
    """Return the paths that are in `before` but not, or not the same, in `after`."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            lost_path
            for key in before
            for lost_path in _lost(before[key], after.get(key), f"{path}.{key}")
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [
            lost_path
            for index, (one, other) in pairs
            for lost_path in _lost(one, other, f"{path}[{index}]")
        ]
    return [] if before == after else [path]
