"""Servers and what stands around them → containers in order, and the volumes they share.

Two orders, by how the start is bounded:

* probe: what the server needs stands before it. The kubelet starts nothing behind a sidecar whose
  startup probe has not succeeded, so a container that a probed server waits for must never stand
  behind it (deadlock).
* gate: nothing is held back. The server's own command waits for the files it needs, everything runs
  at the same time, and the gate, last, ends the pod when the server is not ready in time.

With several servers in a pod every name of a container or volume of ours gets the server's name
behind it; the task, its inputs and the volumes `shared-data` and `tmp` are there once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import SpecConflictError
from ..programs.protocol import (
    INPUTS_FILE,
    INPUTS_VARIABLE,
    READY_FILE,
    SHARED_DIRECTORY,
    TMP_DIRECTORY,
)
from .check import OUR_PREFIX
from .helpers import waiting_for
from .parts import (
    INPUT_DOWNLOADER,
    PRIMARY,
    SHARED_VOLUME,
    TMP_VOLUME,
    Container,
    EnvVar,
    Mount,
    PodPlan,
    Probes,
    Volume,
)

__all__ = ["Group", "named", "plan_pod"]

_SHARED_MOUNTS = (
    Mount(volume=SHARED_VOLUME, path=SHARED_DIRECTORY),
    Mount(volume=TMP_VOLUME, path=TMP_DIRECTORY),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """One model server, the containers around it, and what they ask of the pod."""

    server: Container
    preflight: Container | None = None
    """Looks for what will be missed later; ends at once."""
    adapters: Container | None = None
    """Brings LoRA adapters."""
    loader: Container | None = None
    """Brings the model."""
    model_gate: Container | None = None
    """Holds back a server that cannot wait by itself until its model is there."""
    setup: Container | None = None
    """Prepares the started server, then ends."""
    gate: Container | None = None
    """Bounds the start; with it, the rest starts at the same time."""
    volumes: tuple[Volume, ...] = ()
    """Volumes with the names of the containers that mount them."""
    image_pull_secrets: tuple[str, ...] = ()
    enable_service_links: bool | None = None
    fs_group: int | None = None

    @property
    def can_wait(self) -> bool:
        """Whether the server's command can be made to wait; an image's own entry point cannot."""
        return self.gate is not None and bool(self.server.command)


def named(name: str, server: str) -> str:
    """Return the name of a container or volume of ours, in a pod with several servers."""
    return f"{name}-{server}" if server else name


def plan_pod(
    groups: Mapping[str, Group],
    *,
    downloader: Container | None,
    primary: str,
    termination_grace_period_seconds: int | None,
) -> PodPlan:
    """Return the plan of a pod.

    Args:
        groups: Its model servers by name; of a single server the name is empty.
        downloader: Brings the task's inputs onto the shared volumes.
        primary: Name of the task's own container.
        termination_grace_period_seconds: Between SIGTERM and SIGKILL.

    Raises:
        SpecConflictError: If two servers want something different of the pod.
    """
    renamed = [_renamed(group, name) for name, group in groups.items()]
    volumes = [volume for group in renamed for volume in group.volumes]
    shared = _SHARED_MOUNTS if downloader or any(group.gate for group in renamed) else ()
    if downloader:
        renamed = [_with_inputs(group) for group in renamed]
    return PodPlan(
        init_containers=tuple(
            _mounted(container, shared, volumes) for container in _in_order(renamed, downloader)
        ),
        primary=_mounted(Container(name=primary), shared, volumes, alias=PRIMARY),
        volumes={
            SHARED_VOLUME: {"emptyDir": {}},
            TMP_VOLUME: {"emptyDir": {}},
            **_sources(volumes),
        },
        image_pull_secrets=tuple(
            dict.fromkeys(name for group in renamed for name in group.image_pull_secrets)
        ),
        enable_service_links=False
        if any(group.enable_service_links is False for group in renamed)
        else None,
        fs_group=_fs_group(groups),
        termination_grace_period_seconds=termination_grace_period_seconds,
    )


def _in_order(groups: Sequence[Group], downloader: Container | None) -> Iterator[Container]:
    waiting = [group for group in groups if group.can_wait]
    held_back = [group for group in groups if not group.can_wait]
    before, after = (downloader, None) if held_back else (None, downloader)
    needed = (INPUTS_FILE,) if after else ()
    order = (
        *(group.preflight for group in groups),
        *(group.adapters for group in groups),
        before,
        *(part for group in waiting for part in (group.loader, _waiting(group, needed))),
        *(part for group in held_back for part in (group.loader, group.model_gate, group.server)),
        after,
        *(group.setup for group in groups),
        *(group.gate for group in groups),
    )
    is_gated = any(group.gate for group in groups)
    return (_unprobed(container) if is_gated else container for container in order if container)


def _waiting(group: Group, needed: tuple[str, ...]) -> Container:
    """Return the server with a command that waits for the files which others bring."""
    files = ((READY_FILE,) if group.loader else ()) + needed
    return replace(group.server, command=waiting_for(files, group.server.command))


def _unprobed(container: Container) -> Container:
    """In front of a gate a startup probe would keep it from running at all."""
    probes = container.probes
    if probes.startup is None:
        return container
    return replace(container, probes=Probes(readiness=probes.readiness, liveness=probes.liveness))


def _with_inputs(group: Group) -> Group:
    inputs = EnvVar(name=INPUTS_VARIABLE, value=INPUTS_FILE)
    setup = group.setup and replace(group.setup, env=(inputs, *group.setup.env))
    return replace(
        group, server=replace(group.server, env=(inputs, *group.server.env)), setup=setup
    )


def _mounted(
    container: Container, shared: tuple[Mount, ...], volumes: Iterable[Volume], alias: str = ""
) -> Container:
    names = {container.name, alias}
    own = dict.fromkeys(  # two servers may lend the primary the same volume
        Mount(volume=volume.name, path=volume.mount_path, read_only=volume.read_only)
        for volume in volumes
        if names.intersection(volume.containers)
    )
    return replace(container, mounts=(*container.mounts, *shared, *own))


def _renamed(group: Group, server: str) -> Group:
    """Return `group` with the server's name behind each name of ours, save what the pod has once."""
    if not server:
        return group
    parts = ("server", "preflight", "adapters", "loader", "model_gate", "setup", "gate")
    containers: dict[str, Any] = {part: getattr(group, part) for part in parts}
    return replace(
        group,
        **{
            part: replace(one, name=named(one.name, server))
            for part, one in containers.items()
            if one
        },
        volumes=tuple(_renamed_volume(volume, server) for volume in group.volumes),
    )


def _renamed_volume(volume: Volume, server: str) -> Volume:
    is_ours = volume.name.startswith(OUR_PREFIX)
    common = (PRIMARY, INPUT_DOWNLOADER)
    return replace(
        volume,
        name=named(volume.name, server) if is_ours else volume.name,
        containers=tuple(
            name if name in common else named(name, server) for name in volume.containers
        ),
    )


def _sources(volumes: Iterable[Volume]) -> dict[str, Mapping[str, Any]]:
    sources: dict[str, Mapping[str, Any]] = {}
    for volume in volumes:
        if sources.setdefault(volume.name, volume.source) != volume.source:
            raise SpecConflictError(
                f"The volume {volume.name!r} has two sources: {sources[volume.name]!r} and "
                f"{volume.source!r}.",
                hint="Give each volume of the pod a name of its own.",
            )
    return sources


def _fs_group(groups: Mapping[str, Group]) -> int | None:
    """Return the group that owns the pod's volumes; Kubernetes knows one for the whole pod."""
    wanted = {name: group.fs_group for name, group in groups.items() if group.fs_group is not None}
    if len(set(wanted.values())) > 1:
        listed = ", ".join(f"{name} {number}" for name, number in wanted.items())
        raise SpecConflictError(
            f"The servers of one pod need volumes of different groups (fsGroup): {listed}.",
            hint="Put them into tasks of their own, or give one of them an image of the other's "
            "user.",
        )
    return next(iter(wanted.values()), None)
