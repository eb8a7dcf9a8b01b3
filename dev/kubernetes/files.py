"""Where things lie, the error of this tool, and locks between processes."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inference-cluster"
"""What is kept: programs, images and the folders of running clusters."""
NAME_VARIABLE = "INFERENCE_CLUSTER"
"""Names one of several clusters of a checkout."""
_IDENTITY = f"{CHECKOUT}\0{os.environ.get(NAME_VARIABLE, '')}"
RUN = CACHE / "run" / hashlib.sha256(_IDENTITY.encode()).hexdigest()[:8]
"""The folder of this checkout's cluster: short, since the paths of sockets are."""


class ClusterError(Exception):
    """What cannot be done, and what to do about it."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message} {hint}".strip())


@contextlib.contextmanager
def locked(path: Path, when_busy: Callable[[], None]) -> Iterator[None]:
    """Hold the file's lock; the kernel gives it back however this process ends.

    Args:
        path: A file of nothing but its lock.
        when_busy: Called once, before a wait.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            when_busy()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
