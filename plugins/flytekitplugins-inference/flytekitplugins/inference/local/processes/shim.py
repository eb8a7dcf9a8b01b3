"""The small process between a pod and one container: PID 1 and the container runtime of a node.

Started as a script, `python -I -S shim.py PARENT DIRECTORY PROGRAM ARGUMENT...`; standard library
only, and not one import of this package. It runs the program in a session of its own and ends as
the program ends, with the exit code that the kubelet would show (128 + n for signal n).

Invariants:

* When the program is gone, everything it has started is killed before the shim ends, as the end of
  PID 1 kills a container. On Linux that is certain, because the shim is the subreaper of all
  descendants, whatever sessions or groups they made; elsewhere it holds for the program's process
  group.
* SIGTERM is passed on to the program's process group. SIGUSR1 kills all descendants at once.
* When the parent process is gone, however it ended, the program gets SIGTERM,
  `ORPHAN_GRACE_SECONDS` later SIGKILL, and the pod's private directory is removed.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import time

ORPHAN_GRACE_SECONDS = 2.0
"""Seconds between SIGTERM and SIGKILL when the parent process is gone."""

_POLL_SECONDS = 0.25
_HANDLED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR1)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, value: int) -> None:
    """Call prctl(2); do nothing where there is none."""
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


class Shim:
    """Runs one program and ends whatever it leaves.

    Args:
        parent: Process id of the pod's process.
        directory: The pod's private directory, removed when the parent is gone; empty for none.
        command: Path of the program and its arguments.
    """

    def __init__(self, parent: int, directory: str, command: list[str]) -> None:
        self._parent = parent
        self._directory = directory
        self._command = command
        self._program = 0
        self._code: int | None = None
        self._terminate = False
        self._kill_at: float | None = None
        self._orphaned = False

    def run(self) -> int:
        """Run the program to its end; return its exit code."""
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        wakes = self._handle_signals()
        self._program = self._spawn()
        while self._code is None:
            select.select([wakes], [], [], _POLL_SECONDS)
            with contextlib.suppress(BlockingIOError):
                os.read(wakes, 512)
            self._pass_on_signals()
            self._reap()
        self._end_descendants()
        if self._orphaned and self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)
        return self._code

    def _handle_signals(self) -> int:
        """Let signals set flags; return a pipe that becomes readable when one arrives."""
        readable, writable = os.pipe()
        os.set_blocking(readable, False)
        os.set_blocking(writable, False)
        signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
        # a handler that does nothing: only signals with a handler wake the pipe
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "_terminate", True))
        signal.signal(signal.SIGUSR1, lambda *_: setattr(self, "_kill_at", 0.0))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(
            signal.SIG_SETMASK, ()
        )  # whatever the thread that started us had blocked
        return readable

    def _spawn(self) -> int:
        # Until the program has taken over, the child still has our handlers: a signal then must
        # wait, not get lost.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        pid = os.fork()
        if pid:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            return pid
        try:
            os.setsid()
            # if the shim itself is killed, the kernel ends the program
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            for number in (
                *_HANDLED,
                signal.SIGINT,
                signal.SIGPIPE,
                signal.SIGXFSZ,
            ):  # Python ignores the last two
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.execv(self._command[0], self._command)  # noqa: S606 - an argument list, never a shell
        except OSError as error:
            os.write(2, f"cannot run {self._command[0]}: {error.strerror}\n".encode())
        finally:
            os._exit(126)

    def _pass_on_signals(self) -> None:
        if not self._orphaned and os.getppid() != self._parent:
            self._orphaned = self._terminate = True
            self._kill_at = time.monotonic() + ORPHAN_GRACE_SECONDS
        if self._terminate:
            self._terminate = False
            self._signal_group(signal.SIGTERM)
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            self._signal_group(signal.SIGKILL)

    def _signal_group(self, number: int) -> None:
        try:
            os.killpg(self._program, number)
        except ProcessLookupError:  # it has not made its group yet
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._program, number)
        except PermissionError:  # macOS says so of a group of zombies
            pass

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._program:
                    self._code = (
                        128 + os.WTERMSIG(status)
                        if os.WIFSIGNALED(status)
                        else os.WEXITSTATUS(status)
                    )

    def _end_descendants(self) -> None:
        """Kill what the program has left until nothing is there to wait for."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            # without /proc, the group is all that is known of the descendants
            os.killpg(self._program, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while True:
                # again and again: a process may fork between the listing and its end
                for pid in _descendants():
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGKILL)
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
                time.sleep(0.01)


def _descendants() -> list[int]:
    """Return the processes below this one; empty where there is no /proc."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():  # noqa: PTH112, PTH208 - pathlib is slow here
        if name.isdecimal():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                # behind the last bracket: the program's name may hold blanks and brackets
                parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
    family = {os.getpid()}
    grew = True
    while grew:
        below = {pid for pid, parent in parents.items() if parent in family} - family
        family |= below
        grew = bool(below)
    return sorted(family - {os.getpid()})


if __name__ == "__main__":
    sys.exit(Shim(int(sys.argv[1]), sys.argv[2], sys.argv[3:]).run())
