"""A pod that runs on this machine, for as long as a `with` block lasts.

One thread per pod takes every step of the state machine: it alone starts and ends processes, so
that Ctrl-C, which Python raises in the main thread, never falls between the start of a process and
the note of it.

What is guaranteed about ends:

* The block ends, also by an exception or Ctrl-C, at any moment of start or stop: everything is
  stopped in order, and nothing of it runs when `stop` returns. Ctrl-C during the stop (the second,
  mostly) kills at once.
* The interpreter ends without that (`sys.exit` in another place, a forgotten `stop`): the same,
  from `atexit`.
* This process is ended by a signal, SIGKILL too: no Python code of it runs any more, but each
  process's shim, and the warden of containers, notices within a second and ends them within three,
  and removes the private directory. The directory stays only when there is neither at that moment:
  between two init containers, or before the first.
* A process forked from this one (`multiprocessing`) stops nothing of its parent's.
"""

from __future__ import annotations

import atexit
import os
import shutil
import threading
import time
from typing import TYPE_CHECKING

from ..errors import ConfigError, ServerExitedError
from .events import POD, Event, History
from .plan.mounts import find_directory
from .ports import release_ports
from .supervisor import PodPhase, Supervisor

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from .backend import Backend
    from .container import SupervisedContainer
    from .container_output import PodOutput
    from .plan.local_plan import LocalPodPlan


_KILL_PATIENCE_SECONDS = 10.0
_live: set[LocalPod] = set()


class LocalPod:
    """A pod that runs on this machine, made by `start` and `lease`; leaving the block stops it."""

    def __init__(
        self,
        plan: LocalPodPlan,
        supervisor: Supervisor,
        *,
        history: History,
        output: PodOutput,
        backend: Backend,
    ) -> None:
        self._plan = plan
        self._supervisor = supervisor
        self._history = history
        self._output = output
        self._backend = backend
        self._owner = os.getpid()
        self._bodies = 0
        self._steps = 0
        self._defect: Exception | None = None
        self._wake = threading.Event()
        self._initialized = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._supervise, name=f"local pod {plan.name}", daemon=True
        )

    def __repr__(self) -> str:
        return f"LocalPod({self.name!r}, {self._supervisor.phase.value})"

    def __enter__(self) -> LocalPod:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end_body(kind)
        self.stop()

    @property
    def name(self) -> str:
        """`metadata.name` of the manifest."""
        return self._plan.name

    @property
    def env(self) -> Mapping[str, str]:
        """The primary's `env` as the manifest defines it, with paths and ports of this machine."""
        return dict(self._plan.primary_env)

    @property
    def events(self) -> tuple[Event, ...]:
        """Everything that has happened so far, oldest first."""
        return self._history.events

    @property
    def is_settled(self) -> bool:
        """Whether every sidecar runs and its startup probe has succeeded."""
        return self._supervisor.is_settled

    @property
    def is_broken(self) -> bool:
        """Whether it stops, has stopped, or a sidecar ends again and again."""
        return self._supervisor.is_broken or self._stopped.is_set()

    def port(self, container_port: int) -> int:
        """Return the port of this machine that stands for a container port.

        Raises:
            ConfigError: No container of the pod declares that port.
        """
        try:
            return self._plan.ports[container_port]
        except KeyError:
            declared = ", ".join(map(str, self._plan.ports)) or "none"
            raise ConfigError(
                f"No container declares the port {container_port}; declared: {declared}."
            ) from None

    def path(self, container_path: str) -> Path:
        """Return where a path of a mounted volume lies on this machine; the primary's mounts win.

        Raises:
            ConfigError: No container mounts a volume there.
        """
        for mounts in (self._plan.primary_mounts, *(plan.mounts for plan in self._plan.containers)):
            directory = find_directory(container_path, mounts)
            if directory is not None:
                return directory
        raise ConfigError(
            f"No container of {self.name!r} mounts a volume that holds {container_path!r}."
        )

    def log_tail(self, container: str, lines: int = 20) -> tuple[str, ...]:
        """Return the last lines that a container wrote, oldest first.

        Raises:
            ConfigError: The pod has no such container here.
        """
        return self._output.tail(self._container(container).name, lines)

    def restarts(self, container: str) -> int:
        """Return how often a container was started again.

        Raises:
            ConfigError: The pod has no such container here.
        """
        return self._container(container).restarts

    def check(self) -> None:
        """Raise if something that should run does not.

        Raises:
            ServerExitedError: The pod has stopped, or a sidecar has ended and waits to be
                restarted.
        """
        if self._supervisor.phase in (PodPhase.STOPPING, PodPhase.STOPPED):
            raise ServerExitedError(f"The pod {self.name!r} is not running any more.")
        error = self._supervisor.find_down()
        if error is not None:
            raise error

    def begin_body(self) -> None:
        """Record that code that stands for the primary begins; several may run at a time."""
        self._bodies += 1
        self._history.record(self._plan.primary, "started")

    def end_body(self, kind: type[BaseException] | None = None) -> None:
        """Record that such code is over.

        Args:
            kind: The class of what it raised.
        """
        if self._bodies and os.getpid() == self._owner:
            self._bodies -= 1
            self._history.record(
                self._plan.primary, "ended", f"raised {kind.__name__}" if kind else ""
            )

    def wait_until_settled(self, timeout_seconds: float | None = None) -> bool:
        """Wait for a pod whose sidecars may be restarting; return whether they all run.

        Args:
            timeout_seconds: At most so long; `None` waits until they run or the pod is broken.
        """
        self._look()
        give_up = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while (
            not self.is_settled
            and not self.is_broken
            and (give_up is None or time.monotonic() < give_up)
        ):
            time.sleep(0.05)
        return self.is_settled

    def _look(self) -> None:
        """Have the state machine look at everything now.

        Until it does, what has ended since it last looked counts as running.
        """
        until = self._steps + 2  # the step under way may have looked already
        while self._steps < until and not self._stopped.is_set():
            self._wake.set()
            time.sleep(0.005)

    def stop(self, *, grace_seconds: float | None = None) -> None:
        """Stop everything and wait until it has ended.

        Does nothing when it was stopped before, and in a forked process.

        Args:
            grace_seconds: Between SIGTERM and SIGKILL, in place of
                `terminationGracePeriodSeconds`.
        """
        if os.getpid() != self._owner:
            return
        try:
            self.request_stop(grace_seconds=grace_seconds)
            self._stopped.wait()
        # a second Ctrl-C, mostly: no more patience, but still no process left behind
        except BaseException:
            self._request_kill()
            self._stopped.wait(_KILL_PATIENCE_SECONDS)
            raise

    def request_stop(self, *, grace_seconds: float | None = None) -> None:
        """Ask for a stop without waiting for it."""
        if os.getpid() == self._owner:
            self._supervisor.request_stop(grace_seconds)
            self._wake.set()

    def _request_kill(self) -> None:
        self._supervisor.request_kill()
        self._wake.set()

    def _container(self, name: str) -> SupervisedContainer:
        for container in self._supervisor.containers:
            if container.name == name:
                return container
        names = ", ".join(container.name for container in self._supervisor.containers)
        raise ConfigError(
            f"The pod {self.name!r} runs no container {name!r} here; it runs {names or 'none'}."
        )

    def begin(self) -> None:
        """Start the pod's thread, wait until the primary may start, and record that it does.

        Raises:
            ServerExitedError: An init container failed, or a sidecar ended again and again.
                Everything is stopped.
            ServerNotReadyError: A sidecar did not get ready within its budget. Everything is
                stopped.
        """
        # before the thread starts, so that no end of the interpreter misses a pod that runs
        _live.add(self)
        try:
            self._thread.start()
            self._initialized.wait()
            if self._supervisor.phase is not PodPhase.RUNNING:
                self._stopped.wait()
                raise (
                    self._defect
                    or self._supervisor.failure
                    or ServerExitedError("The pod was stopped.")
                )
        except BaseException:
            # the thread did not start, so nothing else cleans up
            if self._thread.ident is None:
                self._clean_up()
            else:
                self.stop()
            raise
        self.begin_body()
        if summary := self._summary():
            self._output.write_line(POD, summary)
        self._output.end_start()

    def _summary(self) -> str:
        """Say how long the start and each container took; nothing when none was waited for."""
        began = {
            event.container: event.seconds
            for event in reversed(self.events)
            if event.kind == "started"
        }
        over = {
            event.container: event for event in self.events if event.kind in ("passed", "exited")
        }
        phases = [
            f"{name} {event.seconds - began[name]:.1f} s"
            for name, event in over.items()
            if name in began
        ]
        return f"ready after {self.events[-1].seconds:.1f} s: {', '.join(phases)}" if phases else ""

    def _supervise(self) -> None:
        try:
            while self._supervisor.phase is not PodPhase.STOPPED:
                delay = self._supervisor.step()
                self._steps += 1
                if self._supervisor.phase is not PodPhase.STARTING:
                    self._initialized.set()
                self._wake.wait(delay)
                self._wake.clear()
        except Exception as error:  # the top of a thread: the waiting caller must see it
            self._defect = error
            self._supervisor.kill_all()
        finally:
            self._clean_up()

    def _clean_up(self) -> None:
        # nothing of the pod runs any more, so another pod may take its ports
        release_ports(self._plan.ports)
        self._backend.clean_up(self._plan)
        shutil.rmtree(self._plan.root, ignore_errors=True)
        if self._plan.root.exists():
            self._output.write_line(POD, f"could not remove all of {self._plan.root}")
        self._output.close()
        # last, because `begin` and `stop` return then, and nothing of the pod may be left
        _live.discard(self)
        self._initialized.set()
        self._stopped.set()


def stop_all() -> None:
    """Stop every pod of this process at the same time; runs when the interpreter ends."""
    pods = [pod for pod in tuple(_live) if pod._owner == os.getpid()]
    for pod in pods:
        pod.request_stop()
    for pod in pods:
        pod.stop()


atexit.register(stop_all)
os.register_at_fork(after_in_child=_live.clear)
