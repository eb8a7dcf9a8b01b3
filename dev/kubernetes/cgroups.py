"""The control groups of a cluster: the one thing of it that no namespace holds.

The kubelet makes the groups of its pods below one that must exist before (`cgroupRoot`). It stands
in every hierarchy that is mounted: many with version 1, one with version 2, both in hybrids.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

_VERSION_2 = ("cpu", "cpuset", "hugetlb", "io", "memory", "pids")


def create(name: str) -> None:
    """Make the group in every hierarchy."""
    for hierarchy, kind in _hierarchies():
        group = hierarchy / name
        if kind == "cgroup2":
            _delegate(hierarchy)
        group.mkdir(exist_ok=True)
        if kind == "cgroup2":
            _delegate(group)
        # a new group of version 1 has no processors and no memory until it is given some
        for file in ("cpuset.cpus", "cpuset.mems"):
            path = group / file
            if kind == "cgroup" and path.exists() and not path.read_text().strip():
                path.write_text((hierarchy / file).read_text())


def remove(name: str, seconds: float = 10.0) -> list[Path]:
    """Remove the group and those below it; return what is still busy after `seconds`.

    Its processes have been killed: the kernel takes them out of their groups a little later.
    """
    end = time.monotonic() + seconds
    while left := [group for group in _groups(name) if not _removed(group)]:
        if time.monotonic() > end:
            return left
        time.sleep(0.05)
    return []


def _groups(name: str) -> Iterator[Path]:
    for hierarchy, _ in _hierarchies():
        group = hierarchy / name
        if group.is_dir():
            below = [path for path in group.rglob("*") if path.is_dir()]
            yield from sorted(below, key=lambda path: -len(path.parts))
            yield group


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _delegate(group: Path) -> None:
    """Let the groups below have what this one has."""
    offered = (group / "cgroup.controllers").read_text().split()
    for controller in sorted({*offered} & {*_VERSION_2}):
        (group / "cgroup.subtree_control").write_text(f"+{controller}")


def _hierarchies() -> Iterator[tuple[Path, str]]:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind in ("cgroup", "cgroup2") and place.startswith("/sys/fs/cgroup"):
            yield Path(place), kind
