"""Which ports a pod gets on this machine.

A container port keeps its number when nothing here listens on it. Ports that were chosen are
reserved until their pod stops, because a server that loads for a minute does not listen yet: in a
table of this process, and with a locked file among the temporary files, so that another process of
this user chooses a different one. The lock ends with the process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import socket
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_CHOICE = range(28000, 32768)
"""What a busy port is replaced with: below the ports that Linux (from 32768) and macOS (from 49152)
give to connections and to sockets that ask for any. One of those may be taken by a connection of
anybody while the server loads, and no lock of ours prevents that.
https://docs.kernel.org/networking/ip-sysctl.html (ip_local_port_range)
"""

_lock = threading.Lock()
_reserved: dict[int, tuple[int, Path]] = {}
"""Port to its locked file."""


def reserve_ports(container_ports: Iterable[int]) -> dict[int, int]:
    """Choose and reserve a port of this machine for each container port.

    Args:
        container_ports: Those of one pod.

    Returns:
        Port on this machine by container port; give its values back with `release_ports`.

    Raises:
        UnsupportedError: No port is left to replace a busy one with.
    """
    ports: dict[int, int] = {}
    with _lock:
        try:
            for port in dict.fromkeys(container_ports):
                ports[port] = port if _reserve(port) else _reserve_any()
        except UnsupportedError:
            _release(ports.values())
            raise
    return ports


def release_ports(ports: Mapping[int, int]) -> None:
    """Give reserved ports back."""
    with _lock:
        _release(ports.values())


def _release(ports: Iterable[int]) -> None:
    for port in ports:
        file, path = _reserved.pop(port, (None, None))
        if file is not None and path is not None:
            with contextlib.suppress(FileNotFoundError):
                # before the lock ends: whoever gets it next then sees that the file is gone
                path.unlink()
            os.close(file)


def _reserve(port: int) -> bool:
    """Reserve `port`; return whether nobody else has it."""
    if port in _reserved:
        return False
    path = Path(tempfile.gettempdir(), f"inference-port-{os.getuid()}-{port}")
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    is_ours = False
    try:
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Not the same when the file was removed meanwhile by the process that had the port.
            is_ours = os.path.samestat(os.fstat(file), path.stat()) and _is_free(port)
    finally:
        if not is_ours:
            os.close(file)
    if is_ours:
        _reserved[port] = file, path
    return is_ours


def _is_free(port: int) -> bool:
    # All addresses: macOS lets a second socket listen on 127.0.0.1 beside one on 0.0.0.0, and
    # `localhost` may be ::1.
    return all(_can_bind(host, port) for host in ("127.0.0.1", "0.0.0.0", "::1"))


def _can_bind(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # Servers set it too: a connection that is still closing does not make a port busy.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    # in use, or below 1024 and not for this user; the two named: there is no such address here
    except OSError as error:
        return error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
    return True


def _reserve_any() -> int:
    # At random, so that processes which start at once do not all try the same ones.
    for port in random.sample(_CHOICE, len(_CHOICE)):
        if _reserve(port):
            return port
    raise UnsupportedError(
        f"Every port from {_CHOICE[0]} to {_CHOICE[-1]} is in use or reserved for another pod.",
        hint="End what listens on them: `ss -ltnp` on Linux, `lsof -iTCP -sTCP:LISTEN` on macOS.",
    )


def _forget() -> None:
    global _lock  # noqa: PLW0603 - it may be held by a thread that the forked process does not have
    _lock = threading.Lock()
    for (
        file,
        _,
    ) in _reserved.values():  # the parent's locks last as long as any process has them open
        os.close(file)
    _reserved.clear()


os.register_at_fork(after_in_child=_forget)
