"""Containers as containers: the backend that needs a runtime with the Docker API.

Each run of a container is one container of the runtime, made for it and removed when it is over.
All use the network of this machine, which makes `localhost` one place for them, for this machine's
processes and for the caller, as it is for the containers of a pod. Volumes are the same directories
as for processes, mounted where the manifest says and once more at their own path: so a path that a
process of this machine has written into a volume holds in containers too.
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

    from ..backend import EventSink, LineSink, Process
    from ..plan.local_plan import ContainerPlan, LocalPodPlan
    from .docker_api import ContainerRuntime

_VOLUME_MODE = (
    0o777  # kubelet `pkg/volume/emptydir` (v1.36): whatever user an image runs as may write
)
_LOG_MODE = 0o666  # kubelet `pkg/kubelet/kuberuntime` (v1.36), for the same reason
_LOST = 137  # what a kubelet reports of a container that it lost sight of (ContainerStatusUnknown)
_END_SECONDS = 1.0  # between the end of a container's output and its removal


class ContainerBackend:
    """Runs containers in a runtime, and those without an image as processes beside them.

    Args:
        runtime: The runtime.
    """

    def __init__(self, runtime: ContainerRuntime) -> None:
        self._runtime = runtime
        self._processes = ProcessBackend()
        self._reports: dict[Path, EventSink] = {}
        self._wardens: dict[Path, subprocess.Popen[bytes]] = {}

    @property
    def name(self) -> str:
        """The runtime's name and version, for a person."""
        return self._runtime.facts.name

    @staticmethod
    def runs_image(image: str) -> bool:
        """Tell whether a container of `image` runs in it."""
        return image not in ("", THIS_MACHINE)

    def prepare(self, plan: LocalPodPlan, report: EventSink) -> None:
        """Check each container, and pull what the runtime does not have.

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
                f"This pod cannot run as containers of {self._runtime.facts.name}.",
                problems=problems,
            )
        self._note_facts(in_images, report)
        self._reports[plan.root] = report

    def start(self, plan: LocalPodPlan, container: ContainerPlan, write_line: LineSink) -> Process:
        """Start one container.

        Raises:
            OSError: It cannot be started; the runtime's own words.
        """
        if not container.own_filesystem:
            return self._processes.start(plan, container, write_line)
        if plan.root not in self._wardens:
            self._wardens[plan.root] = _start_warden(plan, self._runtime)
        _make_places(plan, container)
        arguments = create_arguments(plan, container, self._runtime.facts)
        try:
            return self._run(arguments, write_line, container, plan)
        except OSError as error:
            # refused by rootless runtimes with cgroups v1, for example; it can do without them
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

    def clean_up(self, plan: LocalPodPlan) -> None:
        """Remove the pod's containers and its directory, and let the warden go."""
        self._reports.pop(plan.root, None)
        warden = self._wardens.pop(plan.root, None)
        if warden is None:
            return  # no container of it was ever made
        with contextlib.suppress(OSError):
            self._runtime.end_pod(plan.root)
        self._runtime.remove_directory(plan.root, _images(plan))
        # after the removal: until then the warden would do it if this process were killed
        warden.terminate()
        warden.wait()

    def _run(
        self,
        arguments: Mapping[str, Any],
        write_line: LineSink,
        container: ContainerPlan,
        plan: LocalPodPlan,
    ) -> ContainerRun:
        container_id, warnings = self._runtime.create(arguments)
        try:
            # before the start, so that no line is missed
            stream = self._runtime.attach(container_id)
            signal = self._runtime.stop_signal(container_id)
            self._runtime.start(container_id)
        except OSError:
            self._runtime.remove(container_id)
            raise
        for warning in warnings:
            self._reports[plan.root](container.name, "noted", warning)
        return ContainerRun(
            self._runtime, container_id, stream, stop_signal=signal, write_line=write_line
        )

    def _remove_leftovers(self) -> None:
        """Remove the pods of processes that have ended and whose wardens have ended with them."""
        containers: list[tuple[str, Path, str]] = []
        with contextlib.suppress(OSError):  # that a runtime has gone away is told with the images
            containers = self._runtime.find()
        for container, directory, owner in containers:
            if is_gone(owner):
                with contextlib.suppress(OSError):
                    self._runtime.remove(container)
                if directory.name.startswith("inference-pod-"):
                    self._runtime.remove_directory(directory, ())

    def _image_problems(
        self, containers: Sequence[ContainerPlan], report: EventSink
    ) -> Iterator[str]:
        pulled: set[str] = set()
        for container in containers:
            name = container.image
            policy = container.sandbox.pull_policy
            try:
                image = self._runtime.image(name)
                if name not in pulled and (
                    policy == "Always" or (image is None and policy != "Never")
                ):
                    self._pull(container, report)
                    pulled.add(name)
                    image = self._runtime.image(name)
            except OSError as error:
                yield f"{container.name} needs the image {name!r}, which cannot be pulled: {error}."
                continue
            if image is None:
                yield (
                    f"{container.name} needs the image {name!r}, which is not here and, by its "
                    "policy, never pulled."
                )
                continue
            sandbox = container.sandbox
            user = (sandbox.user or image.user or "0").partition(":")[0]
            if sandbox.is_never_root and user in ("0", "root"):
                yield (
                    f"{container.name} must not run as root (runAsNonRoot), but {name!r} does; "
                    "give it a runAsUser."
                )
            if not (container.command or container.args or image.entrypoint or image.command):
                yield f"{container.name} has no command, and {name!r} has no entry point."

    def _pull(self, container: ContainerPlan, report: EventSink) -> None:
        began = time.monotonic()
        report(container.name, "pulling", f"pulling {container.image}")
        self._runtime.pull(
            container.image,
            lambda text: report(container.name, "pulling", f"pulling {container.image}: {text}"),
        )
        report(
            container.name,
            "pulled",
            f"pulled {container.image} in {time.monotonic() - began:.1f} s",
        )

    def _note_facts(self, containers: Sequence[ContainerPlan], report: EventSink) -> None:
        facts = self._runtime.facts
        if facts.may_hide_network:
            report(
                POD,
                "noted",
                f"{facts.name} may keep containers off this machine's network, and then nothing "
                "finds them on localhost; Docker Desktop 4.34 or newer does not when told so "
                "(Settings, Resources, Network, Enable host networking), nor does rootless Docker "
                "29 or newer",
            )
        for container in containers:
            if container.sandbox.gpus and facts.ignores_gpu_requests:
                report(
                    container.name,
                    "noted",
                    f"{facts.name} gives containers no GPU through this interface: podman 5.4 or "
                    'newer does, or devices = ["nvidia.com/gpu=all"] in its containers.conf',
                )


def _mount_problems(
    plan: LocalPodPlan, container: ContainerPlan, report: EventSink
) -> Iterator[str]:
    """Find mounted directories that do not exist, which a runtime would make as root.

    Those that the caller has named are made.
    """
    for mount in bound_mounts(container):
        if ":" in str(mount.directory):
            yield (
                f"{container.name} mounts {mount.directory}, but a runtime takes no directory "
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


def _make_places(plan: LocalPodPlan, container: ContainerPlan) -> None:
    """Make what is mounted, and mount points in a volume, which the runtime would make as root."""
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


def _images(plan: LocalPodPlan) -> list[str]:
    return list(
        dict.fromkeys(container.image for container in plan.containers if container.own_filesystem)
    )


def _start_warden(plan: LocalPodPlan, runtime: ContainerRuntime) -> subprocess.Popen[bytes]:
    """Start the process that removes the pod's containers if this one ends without doing so."""
    module = f"{__package__}.warden"
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            module,
            str(os.getpid()),
            runtime.address,
            str(plan.root),
            *_images(plan),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # so that Ctrl-C in a terminal does not end it
    )


class ContainerRun:
    """One run of a container in a runtime.

    Args:
        runtime: The runtime.
        container: The container's id; it has been started.
        stream: What it writes.
        stop_signal: What asks it to end.
        write_line: Takes its lines.
    """

    def __init__(
        self,
        runtime: ContainerRuntime,
        container: str,
        stream: Iterator[tuple[bytes | None, bytes | None]],
        *,
        stop_signal: str,
        write_line: LineSink,
    ) -> None:
        self.reason = ""
        self._runtime = runtime
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
        """Return the exit code; `None` until the container is removed and its lines delivered."""
        if (
            self._is_silent
        ):  # its end is near, or it has closed its output: only the first look waits for that
            self._is_silent = False
            self._is_over.wait(_END_SECONDS)
        return self._code

    def terminate(self) -> None:
        """Send the image's stop signal, mostly SIGTERM, to the container's first process.

        A kubelet does the same.
        """
        self._signal(self._stop_signal)

    def kill(self) -> None:
        """Send SIGKILL to everything in the container."""
        self._signal("SIGKILL")

    def execute(self, command: Sequence[str], timeout: float) -> tuple[int | None, str]:
        """Run a command in the container.

        The API cannot end a command. One that has not ended by the next time is waited for instead
        of run again.

        Returns:
            Its exit code, or `None` after `timeout` seconds, and its last line.
        """
        if self._command is not None and not self._command.is_over:
            return None, "the last one still runs"

        def run() -> tuple[int, str]:
            try:
                code, output = self._runtime.execute(self._container, command)
            except OSError as error:
                return 126, str(error)
            lines = output.decode("utf-8", "replace").split("\n")
            return code, next((line.strip() for line in reversed(lines) if line.strip()), "")

        self._command = BackgroundCall(run, name=f"execute in {self._container[:12]}")
        self._command.start()
        return self._command.result() if self._command.wait(timeout) else (None, "")

    def _signal(self, number: str) -> None:
        try:
            self._runtime.signal(self._container, number)
        except OSError as error:
            self._write_line(f"{number} was not sent: {error}")

    def _follow(self, stream: Iterator[tuple[bytes | None, bytes | None]]) -> None:
        # what holds if the runtime goes away before it tells the exit code
        code, self.reason = _LOST, "lost"
        try:
            self._read(stream)
            self._is_silent = True
            end = self._runtime.wait(self._container)
            code = end.code
            self.reason = OUT_OF_MEMORY if end.is_out_of_memory else ""
        except OSError as error:
            self._write_line(f"the runtime lost it: {error}")
        finally:
            with contextlib.suppress(
                OSError
            ):  # the end of the pod tries again, and then the next start
                self._runtime.remove(self._container)
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
