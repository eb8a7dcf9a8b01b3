"""The interface between the state machine and the backends that run containers.

The state machine knows only these protocols. `ProcessBackend` implements them with processes of
this machine, `ContainerBackend` with a container runtime; containers without an image are processes
there too. All share this machine's network, as the containers of a pod share one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .events import Kind
    from .plan.local_plan import ContainerPlan, LocalPodPlan

THIS_MACHINE = "this-machine"
"""The image of containers whose programs this machine has: no runtime pulls it."""

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
        """Why it ended, in addition to the exit code, such as `OOMKilled`; mostly empty."""
        ...

    def poll(self) -> int | None:
        """Return the exit code (128 + n for signal n), or `None` while it runs.

        After it returns a code, no process of the run exists and all its lines are delivered.
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
        """Whether a container of `image` runs in that image, with volumes at their mount paths.

        Otherwise it is a process of this machine, and paths in its command and variables are
        replaced by the directories of the volumes.
        """
        ...

    def prepare(self, plan: LocalPodPlan, report: EventSink) -> None:
        """Check that every container can run, and pull images, before any container starts.

        Args:
            plan: The pod.
            report: Receives the events until `clean_up`.

        Raises:
            UnsupportedError: A container cannot run; the error lists every problem.
        """
        ...

    def start(self, plan: LocalPodPlan, container: ContainerPlan, write_line: LineSink) -> Process:
        """Start one container; deliver what it writes line by line, from any thread.

        Raises:
            OSError: The container cannot be started.
        """
        ...

    def termination_message(self, container: ContainerPlan) -> str:
        """Return the termination message of the last run, or an empty text."""
        ...

    def clean_up(self, plan: LocalPodPlan) -> None:
        """Remove the pod's objects outside its directory, and files in it that belong to root."""
        ...
