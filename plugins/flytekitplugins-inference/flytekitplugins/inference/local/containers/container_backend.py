"""Containers as containers: the backend that needs an engine with the Docker API.

Each run of a container is one container of the engine, made for it and removed when it is over. All
use the network of this machine, which is what makes `localhost` one place for them, for this
machine's processes and for the caller, as it is for the containers of a pod. Volumes are the same
directories as for processes, mounted where the manifest says and once more at their own path: what
a process of this machine has written into a volume about paths holds there too.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import UnsupportedError
from ...facts.background import BackgroundCall
from ..backend import THIS_MACHINE
from ..container_output import LineSplitter
from ..events import POD
from ..failures import OUT_OF_MEMORY
from ..processes.owners import is_gone
from ..processes.process_backend import ProcessBackend
from .create_request import LIMITS, bound_mounts, create_arguments, mounted_directories

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..backend import LineSink, Process, Report
    from ..plan.local_plan import ContainerPlan, PodPlan
    from .docker_api import Engine

_VOLUME_MODE = (
    0o777  # kubelet `pkg/volume/emptydir` (v1.36): whatever user an image runs as may write
)
_LOG_MODE = 0o666  # kubelet `pkg/kubelet/kuberuntime` (v1.36), for the same reason
_LOST = 137  # what a kubelet reports of a container that it lost sight of (ContainerStatusUnknown)
_END_SECONDS = 1.0  # between the end of a container's output and its removal


class ContainerBackend:
    """Runs containers in an engine, and those without an image as processes of this machine beside them.

    Args:
        engine: The engine.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._processes = ProcessBackend()
        self._reports: dict[Path, Report] = {}
        self._wardens: dict[Path, subprocess.Popen[bytes]] = {}

    @property
    def name(self) -> str:
        """The engine's name and version, for a person."""
        return self._engine.facts.name

    @staticmethod
    def runs_image(image: str) -> bool:
        """Tell whether a container of `image` runs in it."""
        return image not in ("", THIS_MACHINE)

    def prepare(self, plan: PodPlan, report: Report) -> None:
        """Check each container, and pull what the engine does not have.

        Raises:
            UnsupportedError: One cannot run; every problem is listed.
        """
        self._remove_leftovers()
        in_images = [container for container in plan.containers if container.own_filesystem]
        problems = self._processes.problems(plan)
        problems += [
            problem
            for container in in_images
            for problem in _mount_problems(plan, container, report)
        ]
        if not problems:
            problems += self._image_problems(in_images, report)
        if problems:
            raise UnsupportedError(
                f"This pod cannot run as containers of {self._engine.facts.name}.",
                problems=problems,
            )
        self._note_facts(in_images, report)
        self._reports[plan.root] = report

    def start(self, plan: PodPlan, container: ContainerPlan, write_line: LineSink) -> Process:
        """Start one container.

        Raises:
            OSError: It cannot be started; the engine's own words.
        """
        if not container.own_filesystem:
            return self._processes.start(plan, container, write_line)
        if plan.root not in self._wardens:
            self._wardens[plan.root] = _start_warden(plan, self._engine)
        _make_places(plan, container)
        arguments = create_arguments(plan, container, self._engine.facts)
        try:
            return self._run(arguments, write_line, container, plan)
        except OSError as error:
            host = {key: value for key, value in arguments["host"].items() if key not in LIMITS}
            if host == arguments["host"]:
                raise
            run = self._run({**arguments, "host": host}, write_line, container, plan)
            self._reports[plan.root](
                container.name, "noted", f"it runs without its limits: {error}"
            )
            return run

    def termination_message(self, container: ContainerPlan) -> str:
        """Return what the last run wrote to its termination log, or nothing."""
        return self._processes.termination_message(container)

    def clean_up(self, plan: PodPlan) -> None:
        """Remove the pod's containers and its directory, and let the warden go."""
        self._reports.pop(plan.root, None)
        warden = self._wardens.pop(plan.root, None)
        if warden is None:
            return  # no container of it was ever made
        with contextlib.suppress(OSError):
            self._engine.end_pod(plan.root)
        self._engine.remove_directory(plan.root, _images(plan))
        warden.terminate()
        warden.wait()

    def _run(
        self,
        arguments: Mapping[str, Any],
        write_line: LineSink,
        container: ContainerPlan,
        plan: PodPlan,
    ) -> EngineRun:
        made, warnings = self._engine.create(arguments)
        try:
            stream = self._engine.attach(made)  # before the start, so that no line is missed
            signal = self._engine.stop_signal(made)
            self._engine.start(made)
        except OSError:
            self._engine.remove(made)
            raise
        for warning in warnings:
            self._reports[plan.root](container.name, "noted", warning)
        return EngineRun(self._engine, made, stream, stop_signal=signal, write_line=write_line)

    def _remove_leftovers(self) -> None:
        """Remove the pods of processes that have ended and whose wardens have ended with them."""
        found: list[tuple[str, Path, str]] = []
        with contextlib.suppress(
            OSError
        ):  # an engine that has gone away is told of with the images
            found = self._engine.find()
        for container, directory, owner in found:
            if is_gone(owner):
                with contextlib.suppress(OSError):
                    self._engine.remove(container)
                if directory.name.startswith("inference-pod-"):
                    self._engine.remove_directory(directory, ())

    def _image_problems(self, containers: Sequence[ContainerPlan], report: Report) -> Iterator[str]:
        pulled: set[str] = set()
        for container in containers:
            name = container.image
            policy = container.sandbox.pull_policy
            try:
                found = self._engine.image(name)
                if name not in pulled and (
                    policy == "Always" or (found is None and policy != "Never")
                ):
                    self._pull(container, report)
                    pulled.add(name)
                    found = self._engine.image(name)
            except OSError as error:
                yield f"{container.name} needs the image {name!r}, which cannot be pulled: {error}."
                continue
            if found is None:
                yield (
                    f"{container.name} needs the image {name!r}, which is not here and, by its "
                    "policy, never pulled."
                )
                continue
            sandbox = container.sandbox
            if sandbox.is_never_root and (sandbox.user or found.user or "0").partition(":")[0] in (
                "0",
                "root",
            ):
                yield (
                    f"{container.name} must not run as root (runAsNonRoot), but {name!r} does; "
                    "give it a runAsUser."
                )
            if not (container.command or container.args or found.entrypoint or found.command):
                yield f"{container.name} has no command, and {name!r} has no entry point."

    def _pull(self, container: ContainerPlan, report: Report) -> None:
        began = time.monotonic()
        report(container.name, "pulling", f"pulling {container.image}")
        self._engine.pull(
            container.image,
            lambda text: report(container.name, "pulling", f"pulling {container.image}: {text}"),
        )
        report(
            container.name,
            "pulled",
            f"pulled {container.image} in {time.monotonic() - began:.1f} s",
        )

    def _note_facts(self, containers: Sequence[ContainerPlan], report: Report) -> None:
        facts = self._engine.facts
        if facts.may_hide_network:
            report(
                POD,
                "noted",
                f"{facts.name} may keep containers off this machine's network, and then nothing "
                "finds them on "
                "localhost; Docker Desktop 4.34 or newer does not when told so (Settings, "
                "Resources, Network, Enable "
                "host networking), nor does rootless Docker 29 or newer",
            )
        for container in containers:
            if container.sandbox.gpus and facts.ignores_gpu_requests:
                report(
                    container.name,
                    "noted",
                    f"{facts.name} gives containers no GPU through this interface: podman 5.4 or "
                    "newer does, or "
                    'devices = ["nvidia.com/gpu=all"] in its containers.conf',
                )


def _mount_problems(plan: PodPlan, container: ContainerPlan, report: Report) -> Iterator[str]:
    """Find directories that do not exist, which an engine would make as root; make those that the caller has named."""
    for mount in bound_mounts(container):
        if ":" in str(mount.directory):
            yield (
                f"{container.name} mounts {mount.directory}, but an engine takes no directory "
                "with a colon."
            )
        if mount.directory.exists() or mount.directory.is_relative_to(plan.root):
            continue
        if mount.is_host_path:
            yield (
                f"{container.name} mounts {mount.directory} at {mount.path}, which this machine "
                "does not have."
            )
        else:
            try:
                mount.directory.mkdir(parents=True)
            except OSError as error:
                yield (
                    f"{container.name} mounts {mount.directory}, which cannot be made: "
                    f"{error.strerror}."
                )
            else:
                report(container.name, "noted", f"{mount.directory} did not exist and was made")


def _make_places(plan: PodPlan, container: ContainerPlan) -> None:
    """Make what is mounted, and mount points that lie in a volume: the engine would make them as root."""
    for directory in plan.directories:
        if directory.stat().st_uid == os.getuid():
            directory.chmod(_VOLUME_MODE)
    container.termination_log.write_bytes(b"")
    container.termination_log.chmod(_LOG_MODE)
    for mount in bound_mounts(container):
        for target in map(Path, mounted_directories(plan, container)):
            if target.is_relative_to(mount.path) and target != Path(mount.path):
                with contextlib.suppress(OSError):  # a read-only directory of this machine
                    (mount.directory / target.relative_to(mount.path)).mkdir(
                        parents=True, exist_ok=True
                    )


def _images(plan: PodPlan) -> list[str]:
    return list(
        dict.fromkeys(container.image for container in plan.containers if container.own_filesystem)
    )


def _start_warden(plan: PodPlan, engine: Engine) -> subprocess.Popen[bytes]:
    """Start the process that removes the pod's containers when this one is gone without having done so."""
    module = f"{__package__}.warden"
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            module,
            str(os.getpid()),
            engine.address,
            str(plan.root),
            *_images(plan),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # so that Ctrl-C in a terminal does not end it
    )


class EngineRun:
    """One run of a container in an engine.

    Args:
        engine: The engine.
        container: The container's id; it has been started.
        stream: What it writes.
        stop_signal: What asks it to end.
        write_line: Takes its lines.
    """

    def __init__(
        self,
        engine: Engine,
        container: str,
        stream: Iterator[tuple[bytes | None, bytes | None]],
        *,
        stop_signal: str,
        write_line: LineSink,
    ) -> None:
        self.reason = ""
        self._engine = engine
        self._container = container
        self._stop_signal = stop_signal
        self._write_line = write_line
        self._code: int | None = None
        self._is_silent = False
        self._is_over = threading.Event()
        self._command: BackgroundCall[tuple[int, str]] | None = None
        """The last command in it, which may not have been waited for to its end."""
        threading.Thread(
            target=self._follow, args=(stream,), name=f"read {container[:12]}", daemon=True
        ).start()

    def poll(self) -> int | None:
        """Return the exit code once the container is removed and its lines are delivered, `None` before."""
        if (
            self._is_silent
        ):  # its end is near, or it has closed its output: only the first look waits for that
            self._is_silent = False
            self._is_over.wait(_END_SECONDS)
        return self._code

    def terminate(self) -> None:
        """Send the image's stop signal, mostly SIGTERM, to the container's first process, as a kubelet does."""
        self._signal(self._stop_signal)

    def kill(self) -> None:
        """Send SIGKILL to everything in the container."""
        self._signal("SIGKILL")

    def execute(self, command: Sequence[str], timeout: float) -> tuple[int | None, str]:
        """Run a command in the container; return its exit code, `None` after `timeout` seconds, and its last line.

        The API cannot end a command. One that has not ended by the next time is waited for instead
        of run again.
        """
        if self._command is not None and not self._command.is_over:
            return None, "the last one still runs"

        def run() -> tuple[int, str]:
            try:
                code, output = self._engine.execute(self._container, command)
            except OSError as error:
                return 126, str(error)
            lines = output.decode("utf-8", "replace").split("\n")
            return code, next((line.strip() for line in reversed(lines) if line.strip()), "")

        self._command = BackgroundCall(run, name=f"execute in {self._container[:12]}")
        return self._command.result() if self._command.wait(timeout) else (None, "")

    def _signal(self, number: str) -> None:
        try:
            self._engine.signal(self._container, number)
        except OSError as error:
            self._write_line(f"{number} was not sent: {error}")

    def _follow(self, stream: Iterator[tuple[bytes | None, bytes | None]]) -> None:
        code, self.reason = _LOST, "lost"
        try:
            self._read(stream)
            self._is_silent = True
            end = self._engine.wait(self._container)
            code = end.code
            self.reason = OUT_OF_MEMORY if end.is_out_of_memory else ""
        except OSError as error:
            self._write_line(f"the engine lost it: {error}")
        finally:
            with contextlib.suppress(
                OSError
            ):  # the end of the pod tries again, and then the next start
                self._engine.remove(self._container)
            self._code = code
            self._is_over.set()

    def _read(self, stream: Iterator[tuple[bytes | None, bytes | None]]) -> None:
        splitters = LineSplitter(), LineSplitter()
        for chunks in stream:
            for splitter, chunk in zip(splitters, chunks, strict=True):
                for line in splitter.feed(chunk or b""):
                    self._write_line(line)
        for splitter in splitters:
            for line in splitter.flush():
                self._write_line(line)
