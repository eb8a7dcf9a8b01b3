"""One container of a running pod: its runs, probes and restarts.

This is the part of a kubelet's pod worker that concerns one container. It knows neither the other
containers nor processes; `Supervisor` calls it. It differs from a kubelet in the startup probe,
which ignores `initialDelaySeconds` and runs every 0.25 to 1 s instead of every `periodSeconds`, so
nobody waits ten seconds for a server that is up. Its budget in seconds is the manifest's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from .events import POD
from .failures import TAIL_LINES, describe_exit, exited_error
from .plan.local_plan import ContainerPlan, LocalPodPlan, Role

if TYPE_CHECKING:
    from ..errors import ServerExitedError
    from .backend import Backend, Process
    from .backoff import Backoff
    from .container_output import PodOutput
    from .events import Clock, History
    from .plan.probe_plan import ProbePlan
    from .prober import Prober

_FIRST_PROBE_SECONDS = 0.25
_SLOWEST_STARTUP_PROBE_SECONDS = 1.0
_CANNOT_RUN = 126  # what a shell returns for a program that cannot be executed


class State(Enum):
    """The phase of a container."""

    WAITING = "waiting"
    RUNNING = "running"
    BACKOFF = "waiting to be restarted"
    ENDED = "ended"


@dataclass(slots=True, kw_only=True)
class _Schedule:
    """The results of one probe in one run."""

    probe: ProbePlan
    due: float
    failures: int = 0
    successes: int = 0
    attempts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PodContext:
    """The objects that the containers of one pod share."""

    plan: LocalPodPlan
    backend: Backend
    history: History
    output: PodOutput
    clock: Clock
    prober: Prober
    backoff: Backoff


class SupervisedContainer:
    """One container of a running pod.

    Args:
        plan: The container to run.
        shared: The objects that it shares with the pod's other containers.
    """

    def __init__(self, plan: ContainerPlan, shared: PodContext) -> None:
        self.plan = plan
        self.state = State.WAITING
        self.exit_code: int | None = None
        """The exit code of the last run."""
        self.exit_reason = ""
        """Why the last run ended, in addition to the code."""
        self.runs = 0
        self.crashes = 0
        """Ends in a row without a success of the startup probe between them."""
        self.ready = False
        self.started = False
        """Whether this run's startup probe has succeeded."""
        self.has_started = False
        """Whether any run's startup probe has succeeded; the next container waits for that."""
        self.began = 0.0
        """When the current run was started, on the pod's clock."""
        self.last_answer = ""
        """The last answer of a failing probe."""
        self._shared = shared
        self._process: Process | None = None
        self._restart_at = 0.0
        # in a row; a successful startup probe does not reset it, unlike `crashes`, so the back-off
        # of a server that starts and crashes keeps growing
        self._ends = 0
        self._kill_at: float | None = None
        self._killed = False
        self._schedules: dict[str, _Schedule] = {}

    @property
    def name(self) -> str:
        """The container's name."""
        return self.plan.name

    @property
    def restarts(self) -> int:
        """The number of restarts: `restartCount` of a container's status."""
        return max(0, self.runs - 1)

    @property
    def is_settled(self) -> bool:
        """Whether the next container may start."""
        if self.plan.role is Role.INIT:
            return self.state is State.ENDED and self.exit_code == 0
        return self.has_started

    @property
    def is_overdue(self) -> bool:
        """Whether the budget of its startup probe is spent."""
        startup = self.plan.startup
        if (
            startup is None
            or self.started
            or self.state is not State.RUNNING
            or self._kill_at is not None
        ):
            return False
        return self._shared.clock() >= self.began + startup.budget

    def start(self) -> None:
        """Start a run."""
        shared, now = self._shared, self._shared.clock()
        self.runs += 1
        self.began = now
        self._kill_at = None
        self._killed = False
        self.ready = self.started = False
        self.state = State.RUNNING
        shared.history.record(self.name, "started")
        try:
            self._process = shared.backend.start(shared.plan, self.plan, self._write_line)
        except OSError as error:
            # the pod must see it as an end like any other, so a sidecar backs off and an init fails
            self._write_line(str(error))
            self._process = None
            self._end(_CANNOT_RUN)
            return
        self._schedules = {
            kind: _Schedule(probe=probe, due=now + self._first_delay(kind, probe))
            for kind, probe in (
                ("startup", self.plan.startup),
                ("liveness", self.plan.liveness),
                ("readiness", self.plan.readiness),
            )
            if probe is not None
        }
        # as on a kubelet: without a startup probe, a container counts as started at once
        if self.plan.startup is None:
            self._pass()

    def step(self) -> None:
        """Do what is due: record its end, restart it, run its probes, or kill it."""
        if self.state is State.RUNNING and self._process is not None:
            code = self._process.poll()
            if code is not None:
                self._end(code)
            # a container that is being stopped is not probed any more, as on a kubelet
            elif self._kill_at is None:
                self._ask_probes()
            elif self._shared.clock() >= self._kill_at:
                self.kill()
        elif self.state is State.BACKOFF and self._shared.clock() >= self._restart_at:
            self.start()

    def terminate(self, kill_at: float, why: str) -> None:
        """Send SIGTERM, and SIGKILL from `kill_at` on; once per run.

        Args:
            kill_at: Seconds on the pod's clock.
            why: The reason, for the event.
        """
        if self.state is not State.RUNNING or self._process is None or self._kill_at is not None:
            return
        self._kill_at = kill_at
        self._shared.history.record(self.name, "stopping", why)
        self._process.terminate()

    def kill(self) -> None:
        """Send SIGKILL to a run; once."""
        if self.state is State.RUNNING and self._process is not None and not self._killed:
            self._killed = True
            self._kill_at = self._shared.clock() if self._kill_at is None else self._kill_at
            self._shared.history.record(self.name, "killed")
            self._process.kill()

    def give_up(self) -> None:
        """Never start it again; a current run continues."""
        if self.state in (State.WAITING, State.BACKOFF):
            self.state = State.ENDED

    def poll_end(self) -> bool:
        """Return whether it has ended; kill it when that is due. Called while the pod stops."""
        if self.state is State.RUNNING and self._process is not None:
            code = self._process.poll()
            if code is not None:
                self._record_end(code)
                self.state = State.ENDED
            elif self._kill_at is not None and self._shared.clock() >= self._kill_at:
                self.kill()
        return self.state is not State.RUNNING

    def restart_overdue(self, grace: float) -> None:
        """Stop a run whose startup probe has spent its budget; the end leads to a restart."""
        startup = self.plan.startup
        own = startup.termination_grace_period if startup else None
        self._fail_probe("startup", grace if own is None else own)

    def exit_error(self, what: str) -> ServerExitedError:
        """Return the error that says how its last run ended; `what` completes the sentence."""
        shared = self._shared
        return exited_error(
            self.name,
            self.exit_code or 0,
            reason=self.exit_reason,
            what=what,
            termination_message=shared.backend.termination_message(self.plan),
            log_tail=shared.output.tail(self.name, TAIL_LINES),
        )

    def _write_line(self, line: str) -> None:
        self._shared.output.write_line(self.name, line)

    def _write_pod_line(self, line: str) -> None:
        self._shared.output.write_line(POD, line)

    def _end(self, code: int) -> None:
        now = self._shared.clock()
        self._record_end(code)
        if self.plan.role is not Role.SIDECAR:
            self.state = State.ENDED
            return
        is_forgiven = now - self.began >= self._shared.backoff.reset_seconds
        self.crashes = 1 if is_forgiven else self.crashes + 1
        self._ends = 1 if is_forgiven else self._ends + 1
        delay = self._shared.backoff.delay(self._ends)
        self._restart_at = now + delay
        self.state = State.BACKOFF
        self._shared.history.record(self.name, "restarting", f"in {delay:g} s")

    def _record_end(self, code: int) -> None:
        self.exit_code = code
        self.exit_reason = self._process.reason if self._process is not None else ""
        self.ready = self.started = False
        self._shared.history.record(self.name, "exited", describe_exit(code, self.exit_reason))

    def _first_delay(self, kind: str, probe: ProbePlan) -> float:
        return min(_FIRST_PROBE_SECONDS, probe.period) if kind == "startup" else probe.initial_delay

    def _pass(self) -> None:
        self.started = self.has_started = True
        if "readiness" not in self._schedules:
            self.ready = True

    def _ask_probes(self) -> None:
        # as on a kubelet: the startup probe holds back the other two until it succeeds
        kinds = ("liveness", "readiness") if self.started else ("startup",)
        for kind in kinds:
            schedule = self._schedules.get(kind)
            if schedule and self._shared.clock() >= schedule.due and self._kill_at is None:
                self._ask(kind, schedule)

    def _ask(self, kind: str, schedule: _Schedule) -> None:
        probe, process = schedule.probe, self._process
        if process is None:
            return
        answer = self._shared.prober(probe, process)
        interval = probe.period
        if kind == "startup":
            # doubling: a fast server is seen at once, a slow one is not flooded
            quick = _FIRST_PROBE_SECONDS * 2.0 ** min(schedule.attempts, 8)
            interval = min(probe.period, quick, _SLOWEST_STARTUP_PROBE_SECONDS)
        schedule.due = self._shared.clock() + interval
        schedule.attempts += 1
        if answer.ok:
            schedule.successes = schedule.successes + 1
            schedule.failures = 0
            self._succeed(kind, schedule)
        else:
            schedule.successes = 0
            schedule.failures = schedule.failures + 1
            self.last_answer = answer.text
            self._fail(kind, schedule)

    def _succeed(self, kind: str, schedule: _Schedule) -> None:
        history = self._shared.history
        if kind == "startup":
            self.crashes = 0
            history.record(self.name, "passed", f"after {self._shared.clock() - self.began:.1f} s")
            self._pass()
        elif (
            kind == "readiness"
            and not self.ready
            and schedule.successes >= schedule.probe.success_threshold
        ):
            self.ready = True
            history.record(self.name, "ready")

    def _fail(self, kind: str, schedule: _Schedule) -> None:
        # the startup probe runs faster than the manifest says: its budget counts, see `is_overdue`
        if kind == "startup" or schedule.failures < schedule.probe.failure_threshold:
            return
        if kind == "liveness":
            own = schedule.probe.termination_grace_period
            self._fail_probe(kind, self._shared.plan.grace if own is None else own)
        elif self.ready:
            self.ready = False
            self._shared.history.record(self.name, "unready", self.last_answer)

    def _fail_probe(self, kind: str, grace: float) -> None:
        self._shared.history.record(self.name, "unhealthy", f"{kind} probe: {self.last_answer}")
        self._write_pod_line(
            f"{self.name} is stopped and started again: its {kind} probe failed, {self.last_answer}"
        )
        self.terminate(self._shared.clock() + grace, f"its {kind} probe failed")
