"""The order of a pod's containers, and the volumes they share.

There are two orders, depending on how the start is bounded:

* probe: the containers that the server needs come before it. The kubelet starts nothing after a
  sidecar whose startup probe has not succeeded, so a container that a probed server waits for must
  never come after it (deadlock).
* gate: the kubelet starts everything at once. The server's own command waits for its files, and the
  gate, last, ends the pod if the server is not ready in time.

In a pod with several servers, the names of our containers and volumes end with the server's name;
the task, its inputs and the volumes `shared-data` and `tmp` exist once.
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
from .exporter import asks_exporter
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

__all__ = ["ServerContainers", "named", "plan_pod"]

_TMP_MOUNT = Mount(volume=TMP_VOLUME, path=TMP_DIRECTORY)
_SHARED_MOUNTS = (Mount(volume=SHARED_VOLUME, path=SHARED_DIRECTORY), _TMP_MOUNT)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerContainers:
    """One model server, the containers around it, and the pod's settings that they need."""

    model_server: Container
    exporter: Container | None = None
    """Serves its metrics, and answers its probes."""
    preflight: Container | None = None
    """Checks the requirements of the start."""
    adapters: Container | None = None
    """Downloads LoRA adapters."""
    loader: Container | None = None
    """Downloads the model."""
    model_gate: Container | None = None
    """Delays a server that cannot wait by itself until its model is published."""
    setup: Container | None = None
    """Prepares the started server, then ends."""
    gate: Container | None = None
    """Bounds the start; with it, the rest starts at the same time."""
    volumes: tuple[Volume, ...] = ()
    """Volumes with the names of the containers that mount them."""
    image_pull_secrets: tuple[str, ...] = ()
    enable_service_links: bool | None = None
    fs_group: int | None = None
    stop_seconds: int | None = None
    """Seconds after SIGTERM after which what is left of the server is killed."""

    @property
    def can_wait(self) -> bool:
        """Whether the server's command can be made to wait; an image's own entry point cannot."""
        return self.gate is not None and bool(self.model_server.command)


def named(name: str, server: str) -> str:
    """Return the name of our container or volume, with the server's name if that is not empty."""
    return f"{name}-{server}" if server else name


def plan_pod(
    servers: Mapping[str, ServerContainers],
    *,
    downloader: Container | None,
    primary: str,
    termination_grace_period_seconds: int | None,
) -> PodPlan:
    """Return the plan of a pod.

    Args:
        servers: Its model servers by name; the name of a single server is empty.
        downloader: Downloads the task's inputs to the shared volumes.
        primary: Name of the task's own container.
        termination_grace_period_seconds: Seconds between SIGTERM and SIGKILL.

    Raises:
        SpecConflictError: If two servers need different settings of the pod.
    """
    members = [_with_name(server, name) for name, server in servers.items()]
    volumes = [volume for server in members for volume in server.volumes]
    has_shared = downloader or any(server.gate or server.exporter for server in members)
    shared = _SHARED_MOUNTS if has_shared else ()
    if downloader:
        members = [_with_inputs(server) for server in members]
    # one switch for the whole pod, so a server that must not get the variables of services decides
    has_no_links = any(server.enable_service_links is False for server in members)
    return PodPlan(
        init_containers=tuple(
            _with_mounts(container, shared, volumes) for container in _in_order(members, downloader)
        ),
        primary=_with_mounts(Container(name=primary), shared, volumes, alias=PRIMARY),
        volumes={
            SHARED_VOLUME: {"emptyDir": {}},
            TMP_VOLUME: {"emptyDir": {}},
            **_sources(volumes),
        },
        image_pull_secrets=tuple(
            dict.fromkeys(name for server in members for name in server.image_pull_secrets)
        ),
        enable_service_links=False if has_no_links else None,
        fs_group=_fs_group(servers),
        termination_grace_period_seconds=termination_grace_period_seconds,
    )


def _in_order(
    servers: Sequence[ServerContainers], downloader: Container | None
) -> Iterator[Container]:
    is_gated = any(server.gate for server in servers)
    order = _all_at_once(servers, downloader) if is_gated else _one_by_one(servers, downloader)
    return (container for container in order if container)


def _one_by_one(
    servers: Sequence[ServerContainers], downloader: Container | None
) -> Iterator[Container | None]:
    """Yield the order in which each container waits for the one before it."""
    # first, so that it is there when it is asked, and is stopped last
    yield from (server.exporter for server in servers)
    yield from (server.preflight for server in servers)
    yield from (server.adapters for server in servers)
    yield downloader
    for server in servers:
        yield from (server.loader, server.model_server)
    # it asks the started server
    yield from (server.setup for server in servers)


def _all_at_once(
    servers: Sequence[ServerContainers], downloader: Container | None
) -> Iterator[Container | None]:
    """Yield the order in which sidecars overlap with all that follows them.

    A regular init container holds back what follows it, so each sidecar comes as early as it can.
    """
    # first, so that it is there when it is asked, and is stopped last
    yield from (server.exporter for server in servers)
    for server in servers:
        # the preflight before the kubelet pulls a server's large image: a start that cannot succeed
        # ends here. The other servers' preflights run while this model is downloaded.
        yield from (server.preflight, server.loader)
    waiting = [server for server in servers if server.can_wait]
    held_back = [server for server in servers if not server.can_wait]
    needed = (INPUTS_FILE,) if downloader else ()
    starts = [(server, _that_waits(server, needed)) for server in waiting]
    # the download of adapters ends before its server starts, and need not hold back another one
    yield from (start for server, start in starts if not server.adapters)
    yield from (server.adapters for server in servers)
    yield from (start for server, start in starts if server.adapters)
    # a server that cannot wait by itself starts after all that it needs
    yield downloader
    for server in held_back:
        yield from (server.model_gate, _without_startup_probe(server.model_server))
    # it asks the started server, so it follows all that the server may wait for
    yield from (server.setup for server in servers)
    # last: it ends only when its server is ready, and holds back whatever follows
    yield from (server.gate for server in servers)


def _that_waits(server: ServerContainers, needed: tuple[str, ...]) -> Container:
    """Return the model server with a command that waits for the files of other containers."""
    files = ((READY_FILE,) if server.loader else ()) + needed
    container = _without_startup_probe(server.model_server)
    command = waiting_for(files, container.command, stop_seconds=server.stop_seconds)
    return replace(container, command=command)


def _without_startup_probe(container: Container) -> Container:
    """Return `container` without its startup probe."""
    # the kubelet would start the gate only after that probe, and so never bound the start
    probes = container.probes
    if probes.startup is None or asks_exporter(probes.startup):
        return container
    return replace(container, probes=Probes(readiness=probes.readiness, liveness=probes.liveness))


def _with_inputs(server: ServerContainers) -> ServerContainers:
    inputs = EnvVar(name=INPUTS_VARIABLE, value=INPUTS_FILE)
    # in front, so that the container's other variables can refer to it
    setup = server.setup and replace(server.setup, env=(inputs, *server.setup.env))
    container = server.model_server
    container = replace(container, env=(inputs, *container.env))
    return replace(server, model_server=container, setup=setup)


def _with_mounts(
    container: Container, shared: tuple[Mount, ...], volumes: Iterable[Volume], alias: str = ""
) -> Container:
    names = {container.name, alias}
    if container.writes_to_tmp and not shared:
        shared = (_TMP_MOUNT,)
    # a dict instead of a list: two servers may mount the same volume into the primary
    volume_mounts = dict.fromkeys(
        Mount(volume=volume.name, path=volume.mount_path, read_only=volume.read_only)
        for volume in volumes
        if names.intersection(volume.containers)
    )
    return replace(container, mounts=(*container.mounts, *shared, *volume_mounts))


def _with_name(server: ServerContainers, name: str) -> ServerContainers:
    """Return `server` with its name appended to our names, except for those that the pod shares."""
    if not name:
        return server
    parts = (
        *("model_server", "exporter", "preflight", "adapters", "loader", "model_gate"),
        *("setup", "gate"),
    )
    containers: dict[str, Any] = {part: getattr(server, part) for part in parts}
    return replace(
        server,
        **{
            part: replace(container, name=named(container.name, name))
            for part, container in containers.items()
            if container
        },
        volumes=tuple(_volume_with_name(volume, name) for volume in server.volumes),
    )


def _volume_with_name(volume: Volume, server: str) -> Volume:
    is_ours = volume.name.startswith(OUR_PREFIX)
    common = (PRIMARY, INPUT_DOWNLOADER)
    return replace(
        volume,
        # the user's own volumes keep their names, so that two servers can share one
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


def _fs_group(servers: Mapping[str, ServerContainers]) -> int | None:
    """Return the group that owns the pod's volumes; Kubernetes has one for the whole pod."""
    fs_groups = {
        name: server.fs_group for name, server in servers.items() if server.fs_group is not None
    }
    if len(set(fs_groups.values())) > 1:
        listed = ", ".join(f"{name} {number}" for name, number in fs_groups.items())
        raise SpecConflictError(
            f"The servers of one pod need volumes of different groups (fsGroup): {listed}.",
            hint="Put them into tasks of their own, or give one of them an image of the other's "
            "user.",
        )
    return next(iter(fs_groups.values()), None)
