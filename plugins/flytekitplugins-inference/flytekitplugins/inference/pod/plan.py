"""A server and what stands around it → containers in order, and the volumes they share.

Order in probe mode: what the server needs stands before it, because the kubelet starts nothing behind a sidecar whose
startup probe has not succeeded; a container that the server waits for must never stand behind it (deadlock).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..programs.protocol import (
    INPUTS_DIRECTORY,
    INPUTS_FILE,
    INPUTS_VARIABLE,
    PROGRAMS_VARIABLE,
    SHARED_DIRECTORY,
    TMP_DIRECTORY,
)
from .bundle import BOOTSTRAP, programs_bundle
from .parts import (
    INPUT_DOWNLOADER,
    PRIMARY,
    SHARED_VOLUME,
    TMP_VOLUME,
    Container,
    EnvVar,
    Helper,
    Mount,
    PodPlan,
    Volume,
)

__all__ = ["LEAST_PRIVILEGE", "input_downloader", "plan_pod"]

LEAST_PRIVILEGE: Mapping[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""What Kubernetes' Pod Security Standard "restricted" asks for and every image can bear."""
HELPER_USER = 1000
"""User of our programs: flytekit's own image has it (`useradd --uid 1000 flytekit`), and no image needs more."""
_SHARED_MOUNTS = (
    Mount(volume=SHARED_VOLUME, path=SHARED_DIRECTORY),
    Mount(volume=TMP_VOLUME, path=TMP_DIRECTORY),
)


def plan_pod(
    server: Container,
    *,
    downloader: Container | None = None,
    volumes: Iterable[Volume] = (),
    primary: str = PRIMARY,
    **pod: Any,
) -> PodPlan:
    """Return the plan of a pod with one model server.

    Args:
        server: The model server, without the mounts of `volumes`.
        downloader: The input downloader, when the task's inputs are to lie on the shared volumes.
        volumes: Volumes with the names of the containers that mount them.
        primary: Name of the task's own container.
        pod: Fields of `PodPlan` that are the pod's own.
    """
    sources: dict[str, Mapping[str, Any]] = {SHARED_VOLUME: {"emptyDir": {}}, TMP_VOLUME: {"emptyDir": {}}}
    shared = _SHARED_MOUNTS if downloader else ()
    if downloader:
        inputs = EnvVar(name=INPUTS_VARIABLE, value=INPUTS_FILE)
        server = replace(server, env=(inputs, *server.env))
    containers = [container for container in (downloader, server) if container]
    volumes = tuple(volumes)
    return PodPlan(
        init_containers=tuple(_mounted(container, shared, volumes) for container in containers),
        primary=_mounted(Container(name=primary), shared, volumes, alias=PRIMARY),
        volumes={**sources, **{volume.name: volume.source for volume in volumes}},
        **pod,
    )


def input_downloader(helper: Helper, *, resources: Mapping[str, str], bound_inputs: Iterable[str] = ()) -> Container:
    """Return the init container that turns the task's inputs into local files and `inputs.json`.

    Args:
        helper: The image it runs in.
        resources: Its requests and limits.
        bound_inputs: Of a map task, the inputs that are the same for each element.
    """
    command, env = program_command("download_inputs", helper)
    bound = tuple(argument for name in bound_inputs for argument in ("--bound", name))
    return Container(
        name=INPUT_DOWNLOADER,
        image=helper.image,
        command=command,
        # the places are named although they are the defaults: on one machine, what names a volume is what moves with it
        args=("{{.input}}", "--output", INPUTS_FILE, "--directory", INPUTS_DIRECTORY, *bound),
        env=env,
        resources=resources,
        security_context={**LEAST_PRIVILEGE, "runAsNonRoot": True, "runAsUser": HELPER_USER},
    )


def program_command(program: str, helper: Helper) -> tuple[tuple[str, ...], tuple[EnvVar, ...]]:
    """Return the command and the variables that start one of our programs in the helper's image."""
    if not helper.bundled:
        return ("python", "-m", f"flytekitplugins.inference.programs.{program}"), ()
    return ("python", "-c", BOOTSTRAP, program), (EnvVar(name=PROGRAMS_VARIABLE, value=programs_bundle()),)


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
