"""The seam between the state machine and what really runs containers.

The state machine knows these protocols only. `processes.ProcessBackend` implements them with processes of this machine;
a container engine would be another. Containers share this machine's network in either case, as a pod's share one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .plan import ContainerPlan, PodPlan

LineSink = Callable[[str], None]
"""Takes one line that a container has written."""


class Process(Protocol):
    """One run of a container."""

    def poll(self) -> int | None:
        """Return the exit code (128 + n for signal n), or `None` while it runs.

        Once a code was returned, nothing of the run is left and all its lines were delivered.
        """
        ...

    def terminate(self) -> None:
        """Ask it to end: SIGTERM."""
        ...

    def kill(self) -> None:
        """End it and everything it has started: SIGKILL."""
        ...

    def execute(self, command: Sequence[str], timeout: float) -> tuple[int | None, str]:
        """Run a command in the container; return its exit code, `None` after `timeout` seconds, and its last line."""
        ...


class Backend(Protocol):
    """Runs containers."""

    own_filesystem: bool
    """Whether containers see volumes at their mount paths; otherwise their text is mapped to private directories."""

    def prepare(self, plan: PodPlan) -> None:
        """Check before anything is started that every container can run.

        Raises:
            UnsupportedError: One cannot; every problem is listed.
        """
        ...

    def start(self, plan: PodPlan, container: ContainerPlan, write_line: LineSink) -> Process:
        """Start one container; deliver what it writes line by line, from any thread.

        Raises:
            OSError: It cannot be started.
        """
        ...

    def termination_message(self, container: ContainerPlan) -> str:
        """Return what the last run wrote to its termination log, or nothing."""
        ...
