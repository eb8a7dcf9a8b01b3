"""The seam between the state machine and what really runs containers.

The state machine knows these protocols only. `ProcessBackend` implements them with processes of
this machine, `ContainerBackend` with a container runtime, beside which containers without an image
are processes too. All share this machine's network, as the containers of a pod share one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .events import Kind
    from .plan.local_plan import ContainerPlan, LocalPodPlan

THIS_MACHINE = "this-machine"
"""The image of containers whose programs this machine has: no runtime is asked for it."""

LineSink = Callable[[str], None]
"""Takes one line that a container has written."""


class EventSink(Protocol):
    """Records an event of a container, and shows it."""

    def __call__(self, container: str, kind: Kind, detail: str) -> None:
        """Record that something happens now."""
        ...


class Process(Protocol):
    """One run of a container."""

    @property
    def reason(self) -> str:
        """What is known about its end beside the code, such as `OOMKilled`; empty for most."""
        ...

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
        """Run a command in the container.

        Returns:
            Its exit code, or `None` after `timeout` seconds, and its last line.
        """
        ...


class Backend(Protocol):
    """Runs containers."""

    def runs_image(self, image: str) -> bool:
        """Tell whether a container of `image` runs in it, and sees volumes at their mount paths.

        Otherwise it is a process of this machine, and its text is mapped to the directories of the
        volumes.
        """
        ...

    def prepare(self, plan: LocalPodPlan, report: EventSink) -> None:
        """Check before anything is started that every container can run; bring what that needs.

        Args:
            plan: The pod.
            report: Takes what happens meanwhile, and until `clean_up`.

        Raises:
            UnsupportedError: One cannot; every problem is listed.
        """
        ...

    def start(self, plan: LocalPodPlan, container: ContainerPlan, write_line: LineSink) -> Process:
        """Start one container; deliver what it writes line by line, from any thread.

        Raises:
            OSError: It cannot be started.
        """
        ...

    def termination_message(self, container: ContainerPlan) -> str:
        """Return what the last run wrote to its termination log, or nothing."""
        ...

    def clean_up(self, plan: LocalPodPlan) -> None:
        """Remove what a pod leaves outside its directory, and in it what only root may remove."""
        ...
