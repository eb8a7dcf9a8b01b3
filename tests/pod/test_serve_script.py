"""The shell's text that starts a server: as the first process of a container, and as another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from flytekitplugins.inference import ModelInferenceTemplate
from flytekitplugins.inference.local.plan.rewrite import expand
from flytekitplugins.inference.pod.helpers import waiting_for
from flytekitplugins.inference.pod.parts import Helper
from patience import patient

SHELLS = [shell for shell in ("/bin/dash", "/bin/bash") if Path(shell).exists()]
FIRST = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
"""The command behind it becomes the first process of a namespace, as in a container."""


def _can_be_first() -> bool:
    try:
        return subprocess.run([*FIRST, "true"], check=False, capture_output=True).returncode == 0
    except OSError:
        return False


as_pid_1 = pytest.mark.skipif(not _can_be_first(), reason="no process namespace can be made here")

IGNORES = "import signal; signal.signal(15, signal.SIG_IGN)"
HANDLES = "import signal, sys; signal.signal(15, lambda *_: sys.exit(7))"
LEAVES = "import subprocess; subprocess.Popen(['sleep', '600'])"
WAITS = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"


class Running:
    def __init__(self, words: Sequence[str], *, is_first: bool) -> None:
        prefix = FIRST if is_first else []
        self._process = subprocess.Popen([*prefix, *words], stdout=subprocess.PIPE, text=True)
        self._is_first = is_first

    @property
    def pid(self) -> int:
        """The shell's process, as this machine counts it."""
        pid = self._process.pid
        if not self._is_first:
            return pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def terminate(self, number: int = signal.SIGTERM) -> None:
        os.kill(self.pid, number)

    def code(self) -> int:
        return self._process.wait(patient(30))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout
        self._process.stdout.close()


@pytest.fixture
def started() -> Iterator[list[Running]]:
    running: list[Running] = []
    yield running
    for one in running:
        one.close()


def _words(shell: str, code: str, *, files: Sequence[str] = (), stop: int | None = 1) -> list[str]:
    command = waiting_for(files, (sys.executable, "-c", code), stop_seconds=stop)
    # as Kubernetes and a local run write it
    return [shell, *(expand(word, {}) for word in command[1:])]


ENDS = [
    ("the default", WAITS, 143),
    ("its own", f"{HANDLES}\n{WAITS}", 7),
    ("none, so it is killed", f"{IGNORES}\n{WAITS}", 137),
    ("its own, and it leaves a process", f"{LEAVES}\n{HANDLES}\n{WAITS}", 7),
]


@as_pid_1
@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("handler", "code", "expected"), ENDS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_server_ends_whatever_it_does_with_sigterm(
    started: list[Running], shell: str, handler: str, code: str, expected: int, number: int
) -> None:
    running = Running(_words(shell, code), is_first=True)
    started.append(running)
    assert int(running.line()) > 1
    running.terminate(number)
    assert running.code() == expected


@as_pid_1
@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("code", [0, 3])
def test_the_code_of_a_server_that_ends_by_itself_is_the_containers(
    started: list[Running], shell: str, code: int
) -> None:
    running = Running(_words(shell, f"raise SystemExit({code})"), is_first=True)
    started.append(running)
    assert running.code() == code


@as_pid_1
@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("stop", [None, 1])
def test_it_ends_at_once_while_it_waits_for_files(
    started: list[Running], shell: str, stop: int | None, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    os.mkfifo(there)
    # the shell reads no file, so a program tells that it has begun
    words = _words(shell, WAITS, files=[str(tmp_path / "never")], stop=stop)
    words[2] = words[2].replace("while", f"echo > {there}; while", 1)
    running = Running(words, is_first=True)
    started.append(running)
    assert there.read_text() == "\n"
    running.terminate()
    assert running.code() == 143


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("stop", [None, 1])
def test_any_other_process_becomes_the_server(
    started: list[Running], shell: str, stop: int | None, tmp_path: Path
) -> None:
    """So nothing outside of a container is ever killed."""
    running = Running(_words(shell, WAITS, files=[str(tmp_path)], stop=stop), is_first=False)
    started.append(running)
    assert int(running.line()) == running.pid
    running.terminate()
    assert running.code() == -signal.SIGTERM


def _command(**options: object) -> list[str]:
    template = ModelInferenceTemplate(
        image="s:1",
        command=["serve"],
        gpu=0,
        **options,  # type: ignore[arg-type]
    )
    containers = template.compile(Helper(image="h:1", bundled=False))["spec"]["initContainers"]
    command: list[str] = next(one for one in containers if one["name"] == "model-server")["command"]
    return command


@pytest.mark.parametrize(
    ("options", "stop"),
    [
        ({"startup_timeout": 60}, "stop=10"),
        ({"startup_timeout": 60, "stop_timeout": 3}, "stop=3"),
        ({"startup_timeout": 60, "stop_timeout": 60, "termination_grace_period": 45}, "stop=45"),
        ({"startup_timeout": 60, "stop_timeout": None, "model": "s3://b/m"}, "stop="),
        ({"startup_timeout": 60, "stop_timeout": None}, None),
        ({"startup_timeout": None}, None),
    ],
)
def test_the_server_of_a_bounded_start_is_ended_by_its_shell(
    options: dict[str, object], stop: str | None
) -> None:
    command = _command(**options)
    if stop is None:
        assert command == ["serve"]
    else:
        assert command[:2] == ["sh", "-c"]
        assert command[2].splitlines()[0] == stop
        assert command[-2:] == ["--", "serve"]
