"""How a container of a plan is asked of a runtime: the arguments of `docker run`, as data.

Pure, save for one look at whether the pod has files.
"""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Any

from ...programs.protocol import TERMINATION_LOG
from ..plan.mounts import SHM
from ..processes.owners import this_process
from ..processes.process_backend import MARKER
from .docker_api import OWNER_LABEL, POD_LABEL

if TYPE_CHECKING:
    from pathlib import Path

    from ..plan.local_plan import ContainerPlan, LocalPodPlan
    from ..plan.mounts import LocalMount
    from .docker_api import RuntimeFacts

LIMITS = ("mem_limit", "memswap_limit", "cpu_period", "cpu_quota")
"""The host's arguments that a runtime may refuse and a container can do without."""
_PERIOD_MICROSECONDS = 100_000  # the kernel's default; the quota is a part of it
_counter = itertools.count(1)


def create_arguments(
    plan: LocalPodPlan, container: ContainerPlan, facts: RuntimeFacts
) -> dict[str, Any]:
    """Return how a container of a pod is made: the arguments of `ContainerRuntime.create`.

    Args:
        plan: The pod.
        container: The container.
        facts: What the runtime says of itself.
    """
    sandbox = container.sandbox
    marker = f"{plan.root.name}/{container.name}"
    # without a command the image's entry point stays, and its own arguments too unless the manifest
    # has some
    words: dict[str, list[str]] = {}
    if container.command:
        words = {"entrypoint": list(container.command), "command": []}
    if container.args:
        words["command"] = list(container.args)
    return {
        "image": container.image,
        # counted: the container of the run before may not be removed yet
        "name": f"{plan.root.name}-{container.name}-{os.getpid()}-{next(_counter)}",
        "labels": {POD_LABEL: str(plan.root), OWNER_LABEL: this_process()},
        "environment": {MARKER: marker, **container.env},
        "user": sandbox.user or None,
        "working_dir": container.working_dir,
        **words,
        "host": {
            # in a network of its own, it could not reach this machine's processes on localhost
            "network_mode": "host",
            "binds": _binds(plan, container),
            "group_add": list(sandbox.groups) or None,
            "cap_add": list(sandbox.added_capabilities) or None,
            "cap_drop": list(sandbox.dropped_capabilities) or None,
            "security_opt": _security_options(container, facts) or None,
            "privileged": sandbox.is_privileged,
            "read_only": sandbox.has_read_only_root,
            "shm_size": _shm_size(container, facts),
            "device_requests": _device_requests(sandbox.gpus, facts),
            **_limits(container, facts),
        },
    }


def _binds(plan: LocalPodPlan, container: ContainerPlan) -> list[str]:
    """Return what is mounted where, as `source:path:mode`."""
    log = f"{container.termination_log}:{container.sandbox.termination_path or TERMINATION_LOG}:rw"
    directories = mounted_directories(plan, container).items()
    return [
        *(f"{source}:{path}:{'ro' if is_ro else 'rw'}" for path, (source, is_ro) in directories),
        log,
    ]


def mounted_directories(
    plan: LocalPodPlan, container: ContainerPlan
) -> dict[str, tuple[Path, bool]]:
    """Return the directory by path in the container, and whether it is read-only there.

    Volumes are there twice (`container_backend` says why), directories of the node once: at their
    own path they could hide the image's.
    """
    files = plan.root / "files"
    at_directories = {
        str(mount.directory): mount for mount in bound_mounts(container) if not mount.is_host_path
    }
    at_mount_paths = {mount.path: mount for mount in bound_mounts(container)}
    mounts = {
        path: (mount.directory, mount.read_only)
        for path, mount in (at_directories | at_mount_paths).items()
    }
    return {str(files): (files, True), **mounts} if files.is_dir() else mounts


def bound_mounts(container: ContainerPlan) -> list[LocalMount]:
    """Return the mounts that are directories; shared memory is made by the runtime."""
    has_shm = container.sandbox.shm_bytes is not None
    return [mount for mount in container.mounts if not (has_shm and mount.path == SHM)]


def _security_options(container: ContainerPlan, facts: RuntimeFacts) -> list[str]:
    sandbox = container.sandbox
    options = [] if sandbox.may_gain_privileges else ["no-new-privileges"]
    options += [] if sandbox.is_confined else ["seccomp=unconfined"]
    return options + (
        ["label=disable"] if facts.has_selinux else []
    )  # volumes are ordinary directories of the user


def _shm_size(container: ContainerPlan, facts: RuntimeFacts) -> int | None:
    """Return the bytes of `/dev/shm`: without a limit half the memory, like a kubelet's tmpfs."""
    size = container.sandbox.shm_bytes
    return (
        size
        if size is None or size > 0
        else (container.sandbox.memory_bytes or facts.memory_bytes // 2)
    )


def _device_requests(gpus: int, facts: RuntimeFacts) -> list[dict[str, Any]] | None:
    if not gpus:
        return None
    if facts.is_podman:  # it has no driver of its own for them, only the container device interface
        return [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=all"], "Capabilities": [["gpu"]]}]
    return [{"Count": gpus, "Capabilities": [["gpu"]]}]  # as `docker run --gpus`


def _limits(container: ContainerPlan, facts: RuntimeFacts) -> dict[str, int]:
    """Return the limits of memory and CPU; one that exceeds the machine's is left out."""
    memory = container.sandbox.memory_bytes
    cpus = container.sandbox.cpus
    limits: dict[str, int] = {}
    if 0 < memory < facts.memory_bytes:
        limits |= {"mem_limit": memory, "memswap_limit": memory}  # a pod does not swap
    if 0 < cpus < facts.cpus:
        limits |= {
            "cpu_period": _PERIOD_MICROSECONDS,
            "cpu_quota": round(cpus * _PERIOD_MICROSECONDS),
        }
    return limits
