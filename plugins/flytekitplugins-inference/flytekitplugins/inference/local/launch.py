"""Starts a manifest on this machine: the place where the plan, the state machine and the processes meet.

What is reserved on the way (a private directory, ports) is given back when the start fails.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ..programs.protocol import INPUTS_DIRECTORY, TMP_DIRECTORY
from .backoff import Backoff
from .choice import choose_backend, prepared
from .container import Surroundings
from .container_output import Output
from .events import POD, Clock, History, Kind
from .plan.local_plan import compile_plan, declared_ports
from .pod import LocalPod
from .ports import release_ports, reserve_ports
from .prober import Prober, ask_probe
from .supervisor import MAX_RESTARTS, Supervisor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .backend import Backend
    from .plan.local_plan import PodPlan

DIRECTORY_VARIABLE = "INFERENCE_LOCAL_DIRECTORY"
"""Environment variable with the directory in which pods get theirs: for models that are too large
for `/tmp`."""
LONGEST_PLACE = 32
"""Bytes; `/inference-pod-xxxxxxxx/volumes/tmp` takes 35 more, and leaves 36 for the name of a
socket."""


def start(
    manifest: Mapping[str, Any],
    *,
    variables: Mapping[str, str] | None = None,
    files: Mapping[str, bytes] | None = None,
    primary: str = "primary",
    volumes: Mapping[str, str | os.PathLike[str]] | None = None,
    startup_timeout: float | None = None,
    backoff: Backoff = Backoff(),  # noqa: B008 - frozen
    max_restarts: int = MAX_RESTARTS,
    output: TextIO | None = None,
    backend: Backend | None = None,
    clock: Clock = time.monotonic,
    prober: Prober = ask_probe,
) -> LocalPod:
    """Run a pod on this machine up to the point where its primary container would start.

    Args:
        manifest: A `v1/Pod` as plain dictionaries with Kubernetes' own keys; not changed.
        variables: Flyte's template variables by name, e.g. `{"input": "/path/inputs.pb"}`.
        files: Contents of files by the name of the variable that stands for their path, e.g.
            `{"input": b"..."}`. They lie in the pod's private directory, which goes with it.
        primary: The name of the container that the caller's own code stands for; it is not started.
        volumes: Directories for volumes that exist on a cluster only, by the volume's name.
        startup_timeout: Seconds for the whole start, in place of the startup probes' own budgets.
        backoff: When a sidecar that ended is started again.
        max_restarts: Restarts in a row before a start is given up.
        output: Where the containers' lines are written; `None` is `sys.stderr`.
        backend: What runs containers; `None` leaves it to `INFERENCE_LOCAL_BACKEND` and to what
            this machine can.
        clock: Where time comes from.
        prober: Who asks the probes.

    Returns:
        The running pod: a context manager that stops it.

    Raises:
        ConfigError: The manifest is not one that can be run.
        UnsupportedError: This machine lacks what it needs; every problem is listed and nothing was
            started.
        MissingDependencyError: Containers are asked for, and the `docker` SDK is not installed.
        ServerExitedError: An init container failed, or a sidecar ended again and again. Everything
            is stopped.
        ServerNotReadyError: A sidecar did not get ready within its budget. Everything is stopped.

    Example:
        >>> with start(manifest) as pod:  # doctest: +SKIP
        ...     urllib.request.urlopen(f"http://localhost:{pod.port(8000)}/health")
    """
    root = Path(tempfile.mkdtemp(prefix="inference-pod-", dir=_place())).resolve()  # 0700
    ports: Mapping[int, int] = {}
    lines = Output(sys.stderr if output is None else output)
    history = History(clock)

    def report(container: str, kind: Kind, detail: str) -> None:
        history.record(container, kind, detail)
        lines.write_line(POD, detail if container == POD else f"{container}: {detail}")

    def compile_for(backend: Backend) -> PodPlan:
        return compile_plan(
            manifest,
            root=root,
            environ=os.environ,
            variables={**(variables or {}), **{name: str(path) for name, path in paths.items()}},
            primary=primary,
            volumes={name: Path(path) for name, path in (volumes or {}).items()},
            ports=ports,
            runs_image=backend.runs_image,
            is_here=_is_here,
        )

    try:
        paths = {name: root / "files" / name for name in files or {}}
        for name, path in paths.items():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes((files or {})[name])
        ports = reserve_ports(declared_ports(manifest))
        if backend is None:
            backend, plan = choose_backend(compile_for, report, os.environ)
        else:
            backend, plan = prepared(backend, compile_for, report)
        for directory in (root / "termination", *plan.directories):
            directory.mkdir(parents=True, exist_ok=True)
        shared = Surroundings(
            plan=plan,
            backend=backend,
            history=history,
            output=lines,
            clock=clock,
            prober=prober,
            backoff=backoff,
        )
        supervisor = Supervisor(shared, startup_timeout=startup_timeout, max_restarts=max_restarts)
        pod = LocalPod(plan, supervisor, history=history, output=lines, backend=backend)
    except BaseException:
        release_ports(ports)
        shutil.rmtree(root, ignore_errors=True)
        raise
    pod.begin()
    return pod


def _place() -> str:
    """Return where the pod's directory goes: where the user says, or temporary files go, unless that path is long.

    Servers make Unix sockets in their TMPDIR, and such a path has at most 103 bytes (macOS; 107 on
    Linux).
    """
    if chosen := os.environ.get(DIRECTORY_VARIABLE):
        return chosen
    usual = tempfile.gettempdir()
    return (
        TMP_DIRECTORY if len(usual) > LONGEST_PLACE and os.access(TMP_DIRECTORY, os.W_OK) else usual
    )


def _is_here(path: str) -> bool:
    """Whether a path below `/tmp` is a file or directory of this machine: a checkout there, a test's own folder.

    A pod's `/tmp` is empty when it starts, so what exists here cannot be meant there; only what the
    input downloader will write is always the pod's.
    """
    path = path.removeprefix("file://")
    ours = path == INPUTS_DIRECTORY or path.startswith(f"{INPUTS_DIRECTORY}/")
    return path.startswith(f"{TMP_DIRECTORY}/") and not ours and os.path.lexists(path)
