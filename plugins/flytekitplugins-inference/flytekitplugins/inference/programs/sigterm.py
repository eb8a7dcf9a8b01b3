"""SIGTERM while a program is being imported, which takes seconds on a loaded node.

Without a handler the first process of a container does not hear it at all (`pid_namespaces(7)`), so
that the pod waits for its whole grace period, and any other process dies without its exit code.
Imports nothing that takes long.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from types import FrameType


def end_at_once() -> None:
    """Have SIGTERM end this process, which has nothing to put in order.

    So it is before `main.run` has the signal raise, and again when `main` has ended.
    """
    signal.signal(signal.SIGTERM, _end)


def _end(signum: int, frame: FrameType | None) -> NoReturn:
    os._exit(128 + signum)  # as a shell reports it; `protocol.ExitCode`, which is not imported yet
