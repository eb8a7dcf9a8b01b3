"""Ports for the servers of tests: reserved, never guessed.

Whoever binds port 0, closes the socket and tells a server the number has guessed: until the server
binds it, the kernel may give the port to another socket. So every process that runs tests keeps
blocks of ports for itself. They lie below the ports that Linux (from 32768) and macOS (from 49152)
give to connections and to port 0, and below those that the package chooses for local pods (from
28000, `local/ports.py`). A locked file marks a block as taken, so that neither the other worker nor
another run on this machine uses it; the lock ends with the process.
"""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_RANGE = range(10000, 28000)
_PORTS_OF_A_BLOCK = 200
_DIRECTORY = Path(tempfile.gettempdir())
"""Of the locked files: the machine's, also while a test has a directory of its own."""

_lock = threading.Lock()


def reserve_port() -> int:
    """Return a free port that nobody else gets as long as this process lives.

    Raises:
        RuntimeError: No block is left.
    """
    with _lock:
        return next(_free_ports)


def _take_ports() -> Iterator[int]:
    while True:
        yield from filter(_is_free, _take_block())


_free_ports = _take_ports()


def _take_block() -> range:
    """Lock the first block that nobody has; its file stays open as long as this process lives."""
    for first in _RANGE[::_PORTS_OF_A_BLOCK]:
        path = _DIRECTORY / f"inference-test-ports-{os.getuid()}-{first}"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
        else:
            return range(first, first + _PORTS_OF_A_BLOCK)
    raise RuntimeError(f"test processes on this machine have all ports of {_RANGE}")


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
