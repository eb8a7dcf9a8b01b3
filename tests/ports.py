"""Ports for the servers of tests: reserved, never guessed.

Whoever binds port 0, closes the socket and tells a server the number has guessed: until the server
binds it, the kernel may give the port to another socket. So every process that runs tests keeps a
block of ports for itself. Blocks lie below the ports that Linux (from 32768) and macOS (from 49152)
give to connections and to port 0, and beside those that the package chooses for local pods (from
20000, `local/ports.py`). A locked file marks a block as taken, so that neither the other worker nor
another run on this machine uses it; the lock ends with the process.
"""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
import threading
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_FIRST = 10000
_PORTS_OF_A_BLOCK = 100
_BLOCKS = 100

_lock = threading.Lock()
_ports: Iterator[int] | None = None


def reserve_port() -> int:
    """Return a port on which nothing listens, and which only this process gives to its servers.

    A port comes again after a hundred others, if it is free by then.

    Raises:
        RuntimeError: Every block is taken, or something listens on every port of this one.
    """
    global _ports  # noqa: PLW0603 - a block for each process
    with _lock:
        if _ports is None:
            _ports = cycle(_take_block())
        for _ in range(_PORTS_OF_A_BLOCK):
            port = next(_ports)
            if _is_free(port):
                return port
    raise RuntimeError(f"something listens on each of the {_PORTS_OF_A_BLOCK} ports up to {port}")


def _take_block() -> range:
    """Lock the first block that nobody has; its file stays open as long as this process lives."""
    for block in range(_BLOCKS):
        path = Path(tempfile.gettempdir(), f"inference-test-ports-{os.getuid()}-{block}")
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
        else:
            first = _FIRST + block * _PORTS_OF_A_BLOCK
            return range(first, first + _PORTS_OF_A_BLOCK)
    raise RuntimeError(f"{_BLOCKS} test processes on this machine have all blocks of ports")


def _is_free(port: int) -> bool:
    # Without SO_REUSEADDR: a port whose last connection is still closing is not given out again.
    for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.bind((host, port))
        except OSError:
            if family == socket.AF_INET or _has_ipv6():
                return False
    return True


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
