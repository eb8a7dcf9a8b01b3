"""Which ports a pod gets on this machine.

A container port keeps its number when nothing here listens on it. Ports of pods that this process has planned are kept
in one table until they stop, because a server that loads for a minute does not listen yet. Other processes are not in
that table: two of them that start at the same moment may choose the same port, and the later server exits.
"""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_lock = threading.Lock()
_reserved: set[int] = set()


def reserve_ports(wanted: Iterable[int]) -> dict[int, int]:
    """Choose and reserve a port of this machine for each wanted one.

    Args:
        wanted: Container ports of one pod.

    Returns:
        Port on this machine by container port; give its values back with `release_ports`.
    """
    chosen: dict[int, int] = {}
    with _lock:
        for port in dict.fromkeys(wanted):
            chosen[port] = port if port not in _reserved and _is_free(port) else _free_port()
            _reserved.add(chosen[port])
    return chosen


def release_ports(ports: Mapping[int, int]) -> None:
    """Give reserved ports back."""
    with _lock:
        _reserved.difference_update(ports.values())


def _is_free(port: int) -> bool:
    # Both addresses: macOS lets a second socket listen on 127.0.0.1 beside one on 0.0.0.0.
    return all(_can_bind(host, port) for host in ("127.0.0.1", "0.0.0.0"))


def _can_bind(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Servers set it too: a connection that is still closing does not make a port busy.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:  # in use, or below 1024 and not for this user
            return False
    return True


def _free_port() -> int:
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind(("0.0.0.0", 0))
            port = int(probe.getsockname()[1])
        if port not in _reserved and _is_free(port):
            return port


def _forget() -> None:
    global _lock  # noqa: PLW0603 - it may be held by a thread that the forked process does not have
    _lock = threading.Lock()
    _reserved.clear()


os.register_at_fork(after_in_child=_forget)
