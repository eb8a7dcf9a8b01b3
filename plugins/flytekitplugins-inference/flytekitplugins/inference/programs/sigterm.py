"""SIGTERM while a program is being imported, which takes seconds on a loaded node.

Without a handler the first process of a container ignores it (`pid_namespaces(7)`), so the pod
waits for its whole grace period; any other process dies without its exit code. This module imports
nothing that takes long.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from types import FrameType


def end_at_once() -> None:
    """Make SIGTERM end this process immediately, because it has nothing to clean up.

    This applies before `main.run` installs its own handler, and again after `main` has ended.
    """
    signal.signal(signal.SIGTERM, _end)


def _end(signum: int, frame: FrameType | None) -> NoReturn:
    os._exit(128 + signum)  # as a shell reports it; `protocol.ExitCode`, which is not imported yet
