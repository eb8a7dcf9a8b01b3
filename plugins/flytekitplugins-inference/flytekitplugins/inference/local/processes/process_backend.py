"""Containers as processes of this machine: the backend that needs nothing but Python.

Each run of a container is one `shim` process, which has the program below it and ends with it.
Lines are read by one thread per run. When a run is over, a second look finds processes that still
carry its marker variable and kills them: on macOS, which has no subreaper, that is what catches a
worker that made a session of its own (best effort, by `ps`); on Linux it matters only if the shim
itself was killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import UnsupportedError
from ...programs.protocol import EXECUTION_VARIABLE
from ..container_output import LineSplitter
from .lookup import (
    find_program,
    missing_module,
    search_path,
    what_it_becomes,
    why_missing,
    why_no_module,
    with_programs,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ..backend import EventSink, LineSink
    from ..plan.local_plan import ContainerPlan, LocalPodPlan

MARKER = "INFERENCE_LOCAL_CONTAINER"
"""Environment variable of every process of a local pod: `<pod>/<container>`."""

_SHIM = Path(__file__).with_name("shim.py")
_KILL_PATIENCE_SECONDS = 5.0
_READER_PATIENCE_SECONDS = 2.0


class ProcessBackend:
    """Runs containers as processes.

    A process has this machine's environment and on top of it the container's; `PATH` begins with
    this interpreter's directory, and Python programs do not buffer their output unless the
    environment says otherwise.

    Args:
        environ: This machine's environment; `None` is `os.environ` at each start.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = environ

    def runs_image(self, image: str) -> bool:
        """Return `False`: there are no images here."""
        return False

    def prepare(self, plan: LocalPodPlan, report: EventSink) -> None:
        """Check that each container's program and working directory exist.

        Raises:
            UnsupportedError: At least one does not; all are listed.
        """
        if problems := self.problems(plan):
            raise UnsupportedError(
                "This pod cannot run as processes of this machine.", problems=problems
            )

    def problems(self, plan: LocalPodPlan) -> list[str]:
        """Return why containers of `plan` that have no image cannot run here, as sentences."""
        problems: list[str] = []
        for container in plan.containers:
            if container.own_filesystem:
                continue
            if not container.command or not (
                self._can_find(container) or _comes_later(container, plan)
            ):
                problems.append(why_missing(container))
            elif package := missing_module(container):
                problems.append(why_no_module(container, package))
            working_dir = container.working_dir
            if (
                working_dir
                and not Path(working_dir).is_dir()
                and Path(working_dir) not in plan.directories
            ):
                problems.append(
                    f"{container.name} works in {working_dir}, which this machine does not have."
                )
        return problems

    def start(
        self, plan: LocalPodPlan, container: ContainerPlan, write_line: LineSink
    ) -> ContainerProcess:
        """Start one container.

        Raises:
            OSError: It cannot be started, for example because its program is gone since `prepare`.
        """
        program = self._find(container.command[0], container)
        if program is None:
            raise FileNotFoundError(why_missing(container))
        # else a run without a message would show that of the run before
        with contextlib.suppress(FileNotFoundError):
            container.termination_log.unlink()
        marker = f"{plan.root.name}/{container.name}"
        env = self._environment(container) | {MARKER: marker}
        words = [program, *with_programs(container.command, env["PATH"])[1:], *container.args]
        shim = subprocess.Popen(
            # isolated: the container's PYTHONPATH is the program's, not the shim's
            [sys.executable, "-I", "-S", str(_SHIM), str(os.getpid()), str(plan.root), *words],
            env=env,
            cwd=container.working_dir,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that Ctrl-C in a terminal reaches this process only
        )
        return ContainerProcess(
            shim, marker=marker, env=env, working_dir=container.working_dir, write_line=write_line
        )

    def termination_message(self, container: ContainerPlan) -> str:
        """Return what the last run wrote to its termination log, or nothing."""
        try:
            return container.termination_log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def clean_up(self, plan: LocalPodPlan) -> None:
        """Do nothing: what a run leaves is gone when it is over."""

    def _can_find(self, container: ContainerPlan) -> bool:
        words = (container.command[0], what_it_becomes(container.command)[0])
        return all(self._find(word, container) for word in words)

    def _find(self, name: str, container: ContainerPlan) -> str | None:
        return find_program(name, self._environment(container)["PATH"])

    def _environment(self, container: ContainerPlan) -> dict[str, str]:
        environ = os.environ if self._environ is None else self._environ
        env = {"PYTHONUNBUFFERED": "1", **environ, **container.env}
        # a local pod is no execution of Flyte's, not even inside the pod of one
        env.pop(EXECUTION_VARIABLE, None)
        return env | {"PATH": search_path(env.get("PATH"))}


def _comes_later(container: ContainerPlan, plan: LocalPodPlan) -> bool:
    """Tell whether a container's program lies in a volume that another container may fill."""
    return Path(what_it_becomes(container.command)[0]).is_relative_to(plan.root)


class ContainerProcess:
    """One run of a container as a process."""

    reason = ""
    """The kernel does not say why a process was killed."""

    def __init__(
        self,
        shim: subprocess.Popen[bytes],
        *,
        marker: str,
        env: Mapping[str, str],
        working_dir: str | None,
        write_line: LineSink,
    ) -> None:
        self._shim = shim
        self._marker = marker
        self._env = env
        self._working_dir = working_dir
        self._kill_by: float | None = None
        self._code: int | None = None
        self._is_read = threading.Event()
        threading.Thread(
            target=self._read, args=(write_line,), name=f"read {marker}", daemon=True
        ).start()

    @property
    def pid(self) -> int:
        """Process id of the shim, which has the program below it."""
        return self._shim.pid

    def poll(self) -> int | None:
        """Return the exit code once nothing of the run is left, `None` before."""
        if self._code is None:
            if self._kill_by is not None and time.monotonic() >= self._kill_by:
                self._shim.kill()  # it should have ended long ago; the second look finds the rest
            code = self._shim.poll()
            if code is not None:
                # a worker that survived the shim would keep its port and memory from the next run
                end_marked(self._marker)
                self._is_read.wait(_READER_PATIENCE_SECONDS)
                self._code = 128 - code if code < 0 else code
        return self._code

    def terminate(self) -> None:
        """Send SIGTERM to the program's process group."""
        self._shim.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to the program and everything below it."""
        if self._kill_by is None:
            self._kill_by = time.monotonic() + _KILL_PATIENCE_SECONDS
            self._shim.send_signal(signal.SIGUSR1)

    def execute(self, command: Sequence[str], timeout: float) -> tuple[int | None, str]:
        """Run a command with the container's environment and working directory."""
        program = find_program(command[0], self._env["PATH"]) if command else None
        if program is None:
            return 127, "no such program"
        with subprocess.Popen(
            [program, *command[1:]],
            env=self._env,
            cwd=self._working_dir,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # a group of its own, so that a time-out ends all that the command has started
            start_new_session=True,
        ) as process:
            try:
                output, _ = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                return None, ""
        lines = output.decode("utf-8", "replace").split("\n")
        return process.returncode, next(
            (line.strip() for line in reversed(lines) if line.strip()), ""
        )

    def _read(self, write_line: LineSink) -> None:
        try:
            self._pass_lines(write_line)
        finally:
            self._is_read.set()

    def _pass_lines(self, write_line: LineSink) -> None:
        stream = self._shim.stdout
        if stream is None:  # never: it was opened as a pipe
            return
        splitter = LineSplitter()
        with stream:
            while chunk := os.read(stream.fileno(), 1 << 16):
                for line in splitter.feed(chunk):
                    write_line(line)
        for line in splitter.flush():
            write_line(line)


def end_marked(marker: str) -> None:
    """Kill every process that carries `marker`, and those that it starts meanwhile."""
    for _ in range(10):
        pids = list(marked_processes(marker))
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def marked_processes(marker: str) -> Iterable[int]:
    """Yield the living processes of this user whose environment carries `marker`.

    Args:
        marker: `<pod>/<container>`, or `<pod>/` for all containers of a pod.
    """
    entry = f"{MARKER}={marker}"
    if Path("/proc/self/environ").exists():
        return _marked_in_proc(entry.encode())
    return _marked_by_ps(entry)


def _marked_in_proc(entry: bytes) -> Iterable[int]:
    for directory in Path("/proc").iterdir():
        if directory.name.isdecimal() and int(directory.name) != os.getpid():
            with contextlib.suppress(OSError):  # gone, or another user's
                variables = (directory / "environ").read_bytes().split(b"\0")
                if any(_carries(variable, entry) for variable in variables):
                    yield int(directory.name)


def _carries(variable: bytes, entry: bytes) -> bool:
    return variable == entry or (entry.endswith(b"/") and variable.startswith(entry))


def _marked_by_ps(entry: str) -> Iterable[int]:
    listing = subprocess.run(
        ["ps", "-xEww", "-o", "pid=,command="],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
        text=True,
    ).stdout
    for line in listing.splitlines():
        pid, _, rest = line.strip().partition(" ")
        words = rest.split()
        if (
            pid.isdecimal()
            and int(pid) != os.getpid()
            and any(
                word == entry or (entry.endswith("/") and word.startswith(entry)) for word in words
            )
        ):
            yield int(pid)
