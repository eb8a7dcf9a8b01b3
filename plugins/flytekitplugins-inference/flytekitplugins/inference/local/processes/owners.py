"""Which process something on this machine belongs to, and whether that process is still there.

A process id alone would not do: ids are used again, and a process in a container has ids of its
own. Where it cannot be told (another machine, another pid namespace), the owner counts as alive.
"""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path

_PROC = Path("/proc")


def this_process() -> str:
    """Return a text that stands for this process."""
    return f"{_place()}:{os.getpid()}:{_began(os.getpid())}"


def is_gone(owner: str) -> bool:
    """Tell whether the process that a text of `this_process` stands for has ended."""
    place, _, rest = owner.partition(":")
    pid, _, began = rest.partition(":")
    return place == _place() and pid.isdecimal() and _began(int(pid)) != began


def _place() -> str:
    """Return what process ids count in: this boot and pid namespace, or this machine."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{(_PROC / 'self/ns/pid').readlink()}".replace(":", "")
    except OSError:
        return platform.node()


def _began(pid: int) -> str:
    """Return when a process began, in ticks since the boot (`proc(5)`, `stat`).

    Empty when it has ended.
    """
    if (_PROC / "self/stat").exists():
        with contextlib.suppress(OSError):
            fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
            return "" if fields[0] == b"Z" else fields[19].decode()
        return ""
    with contextlib.suppress(PermissionError):  # it is there, and another user's
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return ""
    return "there"
