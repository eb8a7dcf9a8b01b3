"""The process that ends a pod's containers when the process that started them is gone.

It is for containers what `shim` is for programs. It is started with the pod's first container, as
`python -m flytekitplugins.inference.local.containers.warden PARENT ADDRESS DIRECTORY IMAGE...`. It
does nothing as long as its parent lives, and is ended by it. However the parent ended, the
containers get their stop signal, `ORPHAN_GRACE_SECONDS` later SIGKILL, and the private directory is
removed.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from ..processes.shim import ORPHAN_GRACE_SECONDS
from .docker_api import connect

_POLL_SECONDS = 0.25


def main(parent: int, address: str, directory: Path, images: list[str]) -> None:
    """Wait for the end of `parent`, then remove the pod.

    Args:
        parent: The process that started this one.
        address: The runtime's.
        directory: The pod's private directory.
        images: What its containers ran.
    """
    # the kernel gives an orphan another parent; a process id alone could be used again
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    runtime = connect(address)
    runtime.end_pod(directory, ORPHAN_GRACE_SECONDS)
    runtime.remove_directory(directory, images)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
