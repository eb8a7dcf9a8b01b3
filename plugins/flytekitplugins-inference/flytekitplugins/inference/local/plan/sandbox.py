"""What a container runtime is told of a container's user, rights and limits.

Pure: manifest → frozen data. Processes of this machine have no such thing and ignore it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import QuantityError
from ...pod.quantity import parse_quantity
from .mounts import SHM

if TYPE_CHECKING:
    from collections.abc import Mapping

PULL_POLICIES = ("IfNotPresent", "Always", "Never")
"""`imagePullPolicy`. One that is not given is the first, for `:latest` too: what was built here is
not overwritten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """User, rights and limits of one container; `None`, empty or 0 is the runtime's default."""

    user: str = ""
    """`uid` or `uid:gid`; empty: the image's."""
    is_never_root: bool = False
    """`runAsNonRoot`."""
    groups: tuple[str, ...] = ()
    """`fsGroup` and `supplementalGroups`."""
    added_capabilities: tuple[str, ...] = ()
    dropped_capabilities: tuple[str, ...] = ()
    may_gain_privileges: bool = True
    """`allowPrivilegeEscalation`."""
    is_privileged: bool = False
    is_confined: bool = True
    """Whether the runtime's seccomp profile holds: not with `seccompProfile.type: Unconfined`."""
    has_read_only_root: bool = False
    memory_bytes: int = 0
    """`limits.memory`."""
    cpus: float = 0.0
    """`limits.cpu`, in cores."""
    gpus: int = 0
    """NVIDIA GPUs, or parts of one."""
    shm_bytes: int | None = None
    """Size of `/dev/shm`; 0 when the volume that is mounted there has no `sizeLimit`."""
    pull_policy: str = PULL_POLICIES[0]
    termination_path: str = ""
    """`terminationMessagePath`; empty: Kubernetes' default."""


def compile_sandbox(
    container: Mapping[str, Any], spec: Mapping[str, Any], *, problems: list[str], notes: list[str]
) -> Sandbox:
    """Read what a container of a manifest asks of its runtime.

    Args:
        container: The container.
        spec: The manifest's `spec`.
        problems: Takes a sentence for each thing that cannot be read.
        notes: Takes a sentence for each thing that is left out.
    """
    name = str(container["name"])
    pod = spec.get("securityContext") or {}
    own = container.get("securityContext") or {}
    security = {**pod, **{key: value for key, value in own.items() if value is not None}}
    capabilities = security.get("capabilities") or {}
    limits = _quantities(
        (container.get("resources") or {}).get("limits") or {}, f"{name}.limits", problems
    )
    gpus = {key: value for key, value in limits.items() if _is_nvidia(key)}
    for key in limits.keys() - gpus.keys() - {"cpu", "memory", "ephemeral-storage"}:
        notes.append(f"{key} is not passed to containers here")
    policy = str(container.get("imagePullPolicy") or PULL_POLICIES[0])
    if policy not in PULL_POLICIES:
        problems.append(
            f"{name}: imagePullPolicy is {policy!r}; it must be one of {', '.join(PULL_POLICIES)}."
        )
    return Sandbox(
        user=_user(security),
        is_never_root=bool(security.get("runAsNonRoot")),
        groups=_groups(pod),
        added_capabilities=tuple(map(str, capabilities.get("add") or ())),
        dropped_capabilities=tuple(map(str, capabilities.get("drop") or ())),
        may_gain_privileges=security.get("allowPrivilegeEscalation") is not False,
        is_privileged=bool(security.get("privileged")),
        is_confined=(security.get("seccompProfile") or {}).get("type") != "Unconfined",
        has_read_only_root=bool(security.get("readOnlyRootFilesystem")),
        memory_bytes=math.ceil(limits.get("memory", 0)),
        cpus=float(limits.get("cpu", 0)),
        gpus=math.ceil(sum(gpus.values())),
        shm_bytes=_shared_memory(container, spec, problems),
        pull_policy=policy,
        termination_path=str(container.get("terminationMessagePath") or ""),
    )


def _is_nvidia(resource: str) -> bool:
    # "gpu" is what Flyte renames to the cluster's own; "nvidia.com/mig-…" is a part of one
    return resource == "gpu" or resource.startswith("nvidia.com/")


def _quantities(texts: Mapping[str, Any], where: str, problems: list[str]) -> dict[str, float]:
    quantities: dict[str, float] = {}
    for key, value in texts.items():
        try:
            quantities[key] = float(parse_quantity(str(value)))
        except QuantityError as error:
            problems.append(f"{where}.{key}: {error}")
    return quantities


def _user(security: Mapping[str, Any]) -> str:
    user, group = security.get("runAsUser"), security.get("runAsGroup")
    if user is None:
        return ""  # a runtime takes no group without a user; neither does a kubelet
    return str(user) if group is None else f"{user}:{group}"


def _groups(pod: Mapping[str, Any]) -> tuple[str, ...]:
    own = [pod["fsGroup"]] if pod.get("fsGroup") is not None else []
    return tuple(
        dict.fromkeys(str(group) for group in (*own, *(pod.get("supplementalGroups") or ())))
    )


def _shared_memory(
    container: Mapping[str, Any], spec: Mapping[str, Any], problems: list[str]
) -> int | None:
    names = {
        entry["name"]
        for entry in container.get("volumeMounts") or ()
        if entry.get("mountPath") == SHM
    }
    for volume in spec.get("volumes") or ():
        if volume["name"] in names and (volume.get("emptyDir") or {}).get("medium") == "Memory":
            limit = volume["emptyDir"].get("sizeLimit")
            limits = {"sizeLimit": limit} if limit else {}
            return math.ceil(
                _quantities(limits, f"volume {volume['name']}", problems).get("sizeLimit", 0)
            )
    return None
