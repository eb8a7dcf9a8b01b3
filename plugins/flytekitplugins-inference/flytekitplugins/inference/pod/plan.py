"""A server and what stands around it → containers in order, and the volumes they share.

Two orders, by how the start is bounded:

* probe: what the server needs stands before it. The kubelet starts nothing behind a sidecar whose startup probe has not
  succeeded, so a container that a probed server waits for must never stand behind it (deadlock).
* gate: nothing is held back. The server's own command waits for the files it needs, everything runs at the same time,
  and the gate, last, ends the pod when the server is not ready in time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..programs.protocol import INPUTS_FILE, INPUTS_VARIABLE, READY_FILE, SHARED_DIRECTORY, TMP_DIRECTORY
from .helpers import waiting_for
from .parts import PRIMARY, SHARED_VOLUME, TMP_VOLUME, Container, EnvVar, Mount, PodPlan, Probes, Volume

__all__ = ["Surroundings", "plan_pod"]

_SHARED_MOUNTS = (
    Mount(volume=SHARED_VOLUME, path=SHARED_DIRECTORY),
    Mount(volume=TMP_VOLUME, path=TMP_DIRECTORY),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Surroundings:
    """The containers around a model server."""

    preflight: Container | None = None
    """Looks for what will be missed later; ends at once."""
    downloader: Container | None = None
    """Brings the task's inputs onto the shared volumes."""
    adapters: Container | None = None
    """Brings LoRA adapters."""
    loader: Container | None = None
    """Brings the model."""
    gate: Container | None = None
    """Bounds the start; with it, the rest starts at the same time."""


def plan_pod(
    server: Container,
    *,
    around: Surroundings = Surroundings(),
    volumes: Iterable[Volume] = (),
    primary: str = PRIMARY,
    **pod: Any,
) -> PodPlan:
    """Return the plan of a pod with one model server.

    Args:
        server: The model server, without the mounts of `volumes`.
        around: What helps it.
        volumes: Volumes with the names of the containers that mount them.
        primary: Name of the task's own container.
        pod: Fields of `PodPlan` that are the pod's own.
    """
    sources: dict[str, Mapping[str, Any]] = {SHARED_VOLUME: {"emptyDir": {}}, TMP_VOLUME: {"emptyDir": {}}}
    shared = _SHARED_MOUNTS if around.downloader or around.gate else ()
    if around.downloader:
        inputs = EnvVar(name=INPUTS_VARIABLE, value=INPUTS_FILE)
        server = replace(server, env=(inputs, *server.env))
    volumes = tuple(volumes)
    return PodPlan(
        init_containers=tuple(_mounted(container, shared, volumes) for container in _in_order(server, around)),
        primary=_mounted(Container(name=primary), shared, volumes, alias=PRIMARY),
        volumes={**sources, **{volume.name: volume.source for volume in volumes}},
        **pod,
    )


def _in_order(server: Container, around: Surroundings) -> Iterable[Container]:
    downloader, loader, gate = around.downloader, around.loader, around.gate
    order: tuple[Container | None, ...]
    if gate is None or not server.command:  # an image's own entry point cannot be made to wait
        order = (around.preflight, around.adapters, downloader, loader, server, gate)
    else:
        needed = ((READY_FILE,) if loader else ()) + ((INPUTS_FILE,) if downloader else ())
        waiting = replace(server, command=waiting_for(needed, server.command))
        order = (around.preflight, around.adapters, loader, waiting, downloader, gate)
    return (_unprobed(container, gate) for container in order if container)


def _unprobed(container: Container, gate: Container | None) -> Container:
    """In front of a gate a startup probe would keep it from running at all, save the loader's of a pod in order."""
    if gate is None or container.probes.startup is None or container.probes.startup.command:
        return container
    probes = container.probes
    return replace(container, probes=Probes(readiness=probes.readiness, liveness=probes.liveness))


def _mounted(
    container: Container, shared: tuple[Mount, ...], volumes: tuple[Volume, ...], alias: str = ""
) -> Container:
    names = {container.name, alias}
    own = (
        Mount(volume=volume.name, path=volume.mount_path, read_only=volume.read_only)
        for volume in volumes
        if names.intersection(volume.containers)
    )
    return replace(container, mounts=(*container.mounts, *shared, *own))
