"""Where the volumes of a pod lie on this machine, and which container path is which directory.

Pure: nothing is created here. `emptyDir` and generic `ephemeral` volumes are private directories
below the pod's own; `hostPath` is used as it is; every other kind needs a directory from the
caller.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

SHM = "/dev/shm"
"""Shared memory is the machine's own on Linux: libraries open it by this name, which no argument
could change."""

_PRIVATE = ("emptyDir", "ephemeral")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalMount:
    """One `volumeMounts` entry of a container."""

    path: str
    """Where the container sees it, without a slash at the end."""
    directory: Path
    """Where it lies on this machine."""
    read_only: bool = False
    is_host_path: bool = False
    """Whether the manifest itself names the directory, as one of its node's."""


def locate_volumes(
    spec: Mapping[str, Any], *, root: Path, given: Mapping[str, Path]
) -> tuple[dict[str, Path], dict[str, str]]:
    """Find a directory for each volume of a pod.

    Args:
        spec: The manifest's `spec`.
        root: The pod's private directory.
        given: Directories that the caller gives, by the volume's name; they win.

    Returns:
        Directory by volume, and for each volume without one the kind it is.
    """
    directories: dict[str, Path] = {}
    missing: dict[str, str] = {}
    for volume in spec.get("volumes") or ():
        name = str(volume["name"])
        kinds = [key for key, value in volume.items() if key != "name" and value is not None]
        if name in given:
            directories[name] = given[name].expanduser().absolute()
        elif "hostPath" in kinds:
            directories[name] = Path(volume["hostPath"]["path"])
        elif not kinds or kinds[0] in _PRIVATE or _is_optional(volume[kinds[0]]):
            directories[name] = root / "volumes" / name
        else:
            missing[name] = kinds[0]
    return directories, missing


def _is_optional(source: Any) -> bool:
    """Tell whether Kubernetes would mount an empty directory where the source does not exist."""
    return isinstance(source, Mapping) and bool(source.get("optional"))


def compile_mounts(
    container: Mapping[str, Any],
    *,
    located: Mapping[str, Path],
    missing: Mapping[str, str],
    host_paths: frozenset[str] = frozenset(),
    problems: list[str],
) -> tuple[LocalMount, ...]:
    """Return the mounts of one container that have a directory here.

    Args:
        container: The container of the manifest.
        located: Directory by volume.
        missing: Kind by volume that has no directory.
        host_paths: The volumes that are directories of the node.
        problems: Takes a sentence for each mount that has none.
    """
    mounts: list[LocalMount] = []
    for entry in container.get("volumeMounts") or ():
        name = str(entry["name"])
        path = str(PurePosixPath(entry["mountPath"]))
        where = f"{container['name']} mounts {name!r} at {path}"
        if name in missing:
            problems.append(
                f"{where}: a {missing[name]} volume does not exist here; give volumes={{{name!r}: "
                f"…}}."
            )
        elif name not in located:
            problems.append(f"{where}: the pod has no volume of that name.")
        elif path == "/" or not path.startswith("/"):
            problems.append(f"{where}: the mount path must be absolute and not the root.")
        elif entry.get("subPathExpr"):
            problems.append(f"{where}: subPathExpr is not supported here; use subPath.")
        elif ".." in PurePosixPath(entry.get("subPath") or "").parts:
            problems.append(f"{where}: subPath must not leave the volume.")
        else:
            directory = located[name] / (entry.get("subPath") or "")
            read_only = bool(entry.get("readOnly"))
            is_host_path = name in host_paths
            mounts.append(
                LocalMount(
                    path=path, directory=directory, read_only=read_only, is_host_path=is_host_path
                )
            )
    return tuple(mounts)


def map_mounts(mounts: tuple[LocalMount, ...], platform: str = sys.platform) -> dict[str, str]:
    """Return the directory by mount path that takes the path's place in text of the container."""
    shared_memory = SHM if platform.startswith("linux") else ""
    return {
        mount.path: str(mount.directory)
        for mount in mounts
        if mount.path != shared_memory and mount.path != str(mount.directory)
    }


def find_directory(
    path: str, mounts: tuple[LocalMount, ...], platform: str = sys.platform
) -> Path | None:
    """Return where a container path lies on this machine, or `None` if no mount holds it."""
    container_path = PurePosixPath(path)
    # the innermost mount hides the ones around it
    for mount in sorted(mounts, key=lambda mount: len(mount.path), reverse=True):
        if container_path.is_relative_to(mount.path):
            is_shared_memory = mount.path == SHM and platform.startswith("linux")
            return (
                Path(container_path)
                if is_shared_memory
                else mount.directory / container_path.relative_to(mount.path)
            )
    return None
