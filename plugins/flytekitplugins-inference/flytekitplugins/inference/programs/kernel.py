"""Facts from the kernel: this container's memory limit, and the machine's boot id."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

NO_LIMIT_BYTES = 2**60
"""Larger values mean "no limit": cgroup v1 has no word for it and says 2**63 rounded down to a
page."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Return the id of this machine's current boot, or `unknown`."""
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else "unknown"


def memory_limit_bytes(root: Path = Path("/")) -> int | None:
    """Return the smallest limit that applies to this process, or the machine's memory.

    Returns `None` if the kernel reports neither.

    Source: kernel documentation, `admin-guide/cgroup-v2.rst`
    (`memory.max`) and `cgroup-v1/memory.rst`.

    Args:
        root: Where `/proc` and `/sys` lie.
    """
    # a pod without a limit still cannot use more than its node has
    limits = [_machine_memory(root)]
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            mount, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            mount = root / "sys/fs/cgroup/memory"
            name = "memory.limit_in_bytes"
        else:
            continue
        # the limits of all parent groups apply too. A container without its own cgroup namespace
        # sees the node's path, which does not exist inside: its group is then the mount itself,
        # the last of these
        group = PurePosixPath(path.lstrip("/"))
        limits += [_number(_text(mount / place / name)) for place in (group, *group.parents)]
    return min((limit for limit in limits if limit is not None), default=None)


def _machine_memory(root: Path) -> int | None:
    for line in _text(root / "proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemTotal":
            kibibytes = _number(value.split()[0] if value.split() else "")
            return None if kibibytes is None else kibibytes * 1024
    return None


def _number(text: str) -> int | None:
    """Return a limit, or None for `max` and for other texts."""
    value = int(text) if text.strip().isdecimal() else NO_LIMIT_BYTES
    return value if value < NO_LIMIT_BYTES else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
