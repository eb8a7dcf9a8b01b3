"""Starts a manifest on this machine: where the plan, the state machine and the processes meet.

What is reserved on the way (a private directory, ports) is given back when the start fails.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..programs.protocol import INPUTS_DIRECTORY, TMP_DIRECTORY
from .choice import choose_backend, prepare
from .container import PodContext
from .container_output import PodOutput
from .events import POD, Clock, History, Kind
from .plan.local_plan import compile_plan, declared_ports
from .pod import LocalPod
from .ports import release_ports, reserve_ports
from .prober import Prober, ask_probe
from .settings import LocalSettings
from .supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .backend import Backend
    from .plan.local_plan import LocalPodPlan

DIRECTORY_VARIABLE = "INFERENCE_LOCAL_DIRECTORY"
"""Environment variable with the directory in which pods get theirs: for models that are too large
for `/tmp`."""
LONGEST_PARENT = 32
"""Bytes; `/inference-pod-xxxxxxxx/volumes/tmp` takes 35 more, and leaves 36 for the name of a
socket."""


def start(
    manifest: Mapping[str, Any],
    settings: LocalSettings = LocalSettings(),  # noqa: B008 - frozen
    *,
    clock: Clock = time.monotonic,
    prober: Prober = ask_probe,
) -> LocalPod:
    """Run a pod on this machine up to the point where its primary container would start.

    Args:
        manifest: A `v1/Pod` as plain dictionaries with Kubernetes' own keys; not changed.
        settings: What the manifest does not say.
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
    # first: it refuses a wrong setting, when nothing has to be given back
    output = PodOutput(
        sys.stderr if settings.output is None else settings.output,
        name=str((manifest.get("metadata") or {}).get("name") or POD),
    )
    root = Path(tempfile.mkdtemp(prefix="inference-pod-", dir=_parent())).resolve()  # 0700
    ports: Mapping[int, int] = {}
    files = {name: root / "files" / name for name in settings.files}
    history = History(clock)

    def report(container: str, kind: Kind, detail: str) -> None:
        history.record(container, kind, detail)
        if kind in ("unhealthy", "restarting"):
            output.show_before_failure(container)
        output.write_line(POD, detail if container == POD else f"{container}: {detail}")

    def compile_for(backend: Backend) -> LocalPodPlan:
        return compile_plan(
            manifest,
            root=root,
            environ=os.environ,
            variables={**settings.variables, **{name: str(path) for name, path in files.items()}},
            primary=settings.primary,
            volumes={name: Path(path) for name, path in settings.volumes.items()},
            ports=ports,
            runs_image=backend.runs_image,
            is_here=_is_here,
        )

    try:
        for name, path in files.items():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(settings.files[name])
        # before the plan, whose variables and arguments contain the ports
        ports = reserve_ports(declared_ports(manifest))
        if settings.backend is None:
            backend, plan = choose_backend(compile_for, report, os.environ)
        else:
            backend, plan = prepare(settings.backend, compile_for, report)
        for directory in (root / "termination", *plan.directories):
            directory.mkdir(parents=True, exist_ok=True)
        shared = PodContext(
            plan=plan,
            backend=backend,
            history=history,
            output=output,
            clock=clock,
            prober=prober,
            backoff=settings.backoff,
        )
        supervisor = Supervisor(
            shared, startup_seconds=settings.startup_seconds, max_restarts=settings.max_restarts
        )
        pod = LocalPod(plan, supervisor, history=history, output=output, backend=backend)
    # also Ctrl-C: until `begin`, no thread owns the pod and no `atexit` stops it
    except BaseException:
        release_ports(ports)
        shutil.rmtree(root, ignore_errors=True)
        output.close()
        raise
    pod.begin()
    return pod


def _parent() -> str:
    """Return where the pod's directory goes: where the user says, or where temporary files go.

    The latter not when its path is long: servers make Unix sockets in their TMPDIR, and the path of
    a socket has at most 103 bytes (macOS; 107 on Linux).
    """
    if chosen := os.environ.get(DIRECTORY_VARIABLE):
        return chosen
    directory = tempfile.gettempdir()
    is_long = len(directory) > LONGEST_PARENT
    return TMP_DIRECTORY if is_long and os.access(TMP_DIRECTORY, os.W_OK) else directory


def _is_here(path: str) -> bool:
    """Whether a path below `/tmp` is this machine's: a checkout there, a test's own folder.

    A pod's `/tmp` is empty when it starts, so what exists here cannot be meant there; only what the
    input downloader will write is always the pod's.
    """
    path = path.removeprefix("file://")
    ours = path == INPUTS_DIRECTORY or path.startswith(f"{INPUTS_DIRECTORY}/")
    return path.startswith(f"{TMP_DIRECTORY}/") and not ours and os.path.lexists(path)
