"""The state machine of a pod: the order of starts, the meaning of ends, the order of the stop.

It has no threads and no processes: `step` does what is due and returns when to call it again.
Requests may come from any thread; they set a flag that the next step reads.

As on a kubelet, init containers run in order. A sidecar lets the next container start when its
startup probe has succeeded, or immediately without one; a sidecar that has started once blocks
nothing when it ends later. At the end, containers stop one after another, last started first, all
within one grace period, and each remaining one gets two more seconds. Unlike on a kubelet, a start
without progress ends with an error, because a person is waiting: after the startup probe's budget
(or `startup_seconds`), or when a sidecar has ended more than `max_restarts` times in a row.

Source: KEP-753 (sidecar containers); kubernetes `pkg/kubelet/kuberuntime`, v1.36.
"""

from __future__ import annotations

import time
from enum import Enum
from typing import TYPE_CHECKING

from .container import PodContext, State, SupervisedContainer
from .events import POD
from .failures import TAIL_LINES, describe_exit, not_ready_error
from .plan.local_plan import Role
from .settings import MAX_RESTARTS

if TYPE_CHECKING:
    from ..errors import InferenceError, ServerExitedError

MINIMUM_GRACE_SECONDS = 2.0
"""The grace of a container after the pod's grace period has passed (kubelet
`minimumGracePeriodInSeconds`)."""

_FIRST_PROGRESS_SECONDS = 3.0
_PROGRESS_SECONDS = 10.0
_STEP_SECONDS = 0.1  # between two looks at processes
# after SIGKILL: a process in uninterruptible sleep must not block the caller for ever
_STUCK_SECONDS = 15.0


class PodPhase(Enum):
    """The phase of a pod."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"


class Supervisor:
    """The state machine of one pod.

    Args:
        shared: The objects that its containers share.
        startup_seconds: Seconds for the whole start, in place of the startup probes' own budgets.
        max_restarts: Restarts in a row before a start is given up.
    """

    def __init__(
        self,
        shared: PodContext,
        *,
        startup_seconds: float | None = None,
        max_restarts: int = MAX_RESTARTS,
    ) -> None:
        self.phase = PodPhase.STARTING
        self.failure: InferenceError | None = None
        self.containers = tuple(
            SupervisedContainer(plan, shared) for plan in shared.plan.containers
        )
        self._shared = shared
        self._startup_seconds = startup_seconds
        self._max_restarts = max_restarts
        self._began = shared.clock()
        self._progress_at = self._began + _FIRST_PROGRESS_SECONDS
        self._begun: list[SupervisedContainer] = []  # in order of start
        self._stop_by = 0.0
        self._reported: dict[str, int] = {}
        self._stop_requested = False
        self._grace = shared.plan.grace
        self._kill_requested = False
        for name, note in shared.plan.notes:
            shared.history.record(name, "noted", note)
            shared.output.write_line(POD, f"{name}: {note}")

    @property
    def is_settled(self) -> bool:
        """Whether every sidecar runs and has started, so the primary can use them."""
        return self.phase is PodPhase.RUNNING and all(
            container.started
            for container in self.containers
            if container.plan.role is Role.SIDECAR
        )

    @property
    def is_broken(self) -> bool:
        """Whether the pod cannot recover: it stops, or a sidecar ends again and again."""
        return self.phase in (PodPhase.STOPPING, PodPhase.STOPPED) or any(
            container.crashes > self._max_restarts for container in self.containers
        )

    def request_stop(self, grace: float | None = None) -> None:
        """Ask for an orderly stop.

        Args:
            grace: Seconds between SIGTERM and SIGKILL, in place of `terminationGracePeriodSeconds`.
        """
        if grace is not None:
            self._grace = grace
        self._stop_requested = True

    def request_kill(self) -> None:
        """Ask for SIGKILL to everything at the next step."""
        self._kill_requested = self._stop_requested = True

    def kill_all(self) -> None:
        """Send SIGKILL to everything and wait for the ends, after a step itself has failed."""
        self.phase = PodPhase.STOPPED
        for container in self._begun:
            container.give_up()
            container.kill()
        while any(not container.poll_end() for container in self._begun):
            time.sleep(_STEP_SECONDS)

    def find_down(self) -> ServerExitedError | None:
        """Return the error for the first container that should run and does not."""
        for container in self.containers:
            restarting = container.state is State.BACKOFF
            failed = (
                container.plan.role is Role.BESIDE
                and container.state is State.ENDED
                and container.exit_code
            )
            if restarting or failed:
                return container.exit_error(
                    "and is not running" if failed else "and waits to be restarted"
                )
        return None

    def step(self) -> float:
        """Do what is due, and return the seconds until the next step."""
        if self._stop_requested and self.phase in (PodPhase.STARTING, PodPhase.RUNNING):
            self._begin_stop()
        if self.phase in (PodPhase.STARTING, PodPhase.RUNNING):
            for container in self._begun:
                container.step()
            self._report_ends()
            if self.phase is PodPhase.STARTING:
                self._advance()
            else:
                self._restart_overdue()
            if self.failure:
                self._begin_stop()
        if self.phase is PodPhase.STOPPING:
            self._step_stop()
        return _STEP_SECONDS

    def _advance(self) -> None:
        """Start the containers that may start now, or set the failure of the start."""
        while True:
            self.failure = self._find_failure()
            blocking = next(
                (container for container in self._begun if not container.is_settled), None
            )
            if self.failure or blocking:
                break
            following = next(
                (item for item in self.containers if item.state is State.WAITING), None
            )
            # containers beside the primary start together with it, after all init containers
            if following is None or following.plan.role is Role.BESIDE:
                self._start_primary()
                return
            self._begin(following)
        if blocking and not self.failure:
            self._show_progress(blocking)

    def _begin(self, container: SupervisedContainer) -> None:
        self._begun.append(container)
        self._progress_at = self._shared.clock() + _FIRST_PROGRESS_SECONDS
        container.start()

    def _start_primary(self) -> None:
        for container in self.containers:
            if container.plan.role is Role.BESIDE:
                self._begin(container)
        self.phase = PodPhase.RUNNING

    def _find_failure(self) -> InferenceError | None:
        for container in self._begun:
            if (
                container.plan.role is Role.INIT
                and container.state is State.ENDED
                and container.exit_code
            ):
                return container.exit_error("and the pod cannot start without it")
            # a kubelet would go on for ever
            if container.crashes > self._max_restarts:
                return container.exit_error(
                    f"after {container.restarts} restarts, before the pod had started"
                )
        waiting = next((container for container in self._begun if not container.is_settled), None)
        if waiting is None:
            return None
        timed_out = self._startup_seconds is not None and self._waited() >= self._startup_seconds
        overdue = self._startup_seconds is None and waiting.is_overdue
        if not timed_out and not overdue:
            return None
        seconds = self._waited() if timed_out else self._shared.clock() - waiting.began
        tail = self._shared.output.tail(waiting.name, TAIL_LINES)
        return not_ready_error(waiting.name, seconds, answer=_awaited(waiting), log_tail=tail)

    def _waited(self) -> float:
        return self._shared.clock() - self._began

    def _show_progress(self, blocking: SupervisedContainer) -> None:
        now = self._shared.clock()
        if now < self._progress_at:
            return
        self._progress_at = now + _PROGRESS_SECONDS
        startup = blocking.plan.startup
        if self._startup_seconds is not None:
            time = f"{self._waited():.0f} s of at most {self._startup_seconds:.0f} s"
        elif startup:
            time = f"{now - blocking.began:.0f} s of at most {startup.budget:.0f} s"
        else:
            time = f"{now - blocking.began:.0f} s"
        self._shared.output.write_line(
            POD, f"waiting for {blocking.name}: {_awaited(blocking)} ({time})"
        )

    def _report_ends(self) -> None:
        """Write a line for each unexpected end of a sidecar."""
        for container in self._begun:
            if (
                container.state is State.BACKOFF
                and self._reported.get(container.name) != container.runs
            ):
                self._reported[container.name] = container.runs
                ended = describe_exit(container.exit_code or 0)
                self._shared.output.write_line(
                    POD, f"{container.name} ended with {ended} and is started again"
                )

    def _restart_overdue(self) -> None:
        for container in self._begun:
            if container.is_overdue:
                container.restart_overdue(self._shared.plan.grace)

    def _begin_stop(self) -> None:
        self.phase = PodPhase.STOPPING
        self._stop_by = self._shared.clock() + self._grace
        for container in self.containers:
            container.give_up()

    def _step_stop(self) -> None:
        now = self._shared.clock()
        running = [container for container in reversed(self._begun) if not container.poll_end()]
        if self._kill_requested:
            for container in running:
                container.kill()
        if not running:
            self._finish()
            return
        kill_at = max(self._stop_by, now + min(MINIMUM_GRACE_SECONDS, self._grace))
        # only the last started one: it may need the others until its own end
        running[0].terminate(kill_at, "the pod stops")
        if now > self._stop_by + _STUCK_SECONDS + MINIMUM_GRACE_SECONDS * len(self._begun):
            names = ", ".join(container.name for container in running)
            self._shared.output.write_line(POD, f"{names} did not end after SIGKILL")
            self._finish()

    def _finish(self) -> None:
        self.phase = PodPhase.STOPPED
        self._shared.history.record(POD, "stopped")


def _awaited(container: SupervisedContainer) -> str:
    """Return what a container's start waits for, with the probe's last answer if any."""
    if container.plan.role is Role.INIT:
        return "its end"
    if container.last_answer:
        return container.last_answer
    return (
        f"{container.plan.startup.action}: not asked yet" if container.plan.startup else "its start"
    )
