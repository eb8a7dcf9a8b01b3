"""The containers that run our own programs, and the command with which a server waits for files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..programs.protocol import (
    INPUTS_DIRECTORY,
    INPUTS_FILE,
    INPUTS_VARIABLE,
    MODEL_CACHE_DIRECTORY,
    MODELS_DIRECTORY,
    PROGRAMS_VARIABLE,
    READY_FILE,
)
from .bundle import BOOTSTRAP, programs_bundle
from .exporter import MetricsExporter, exporter_container
from .model import refuse_bare_adapters
from .parts import (
    INPUT_DOWNLOADER,
    LORA_DOWNLOADER,
    METRICS_EXPORTER,
    MODEL_GATE,
    MODEL_LOADER,
    MODEL_SERVER,
    PREFLIGHT,
    SERVER_GATE,
    SERVER_SETUP,
    Container,
    EnvVar,
    Helper,
    Probe,
    Probes,
    Volume,
)
from .quantity import format_quantity
from .server import Adapters, Setup

__all__ = [
    "HELPER_USER",
    "LEAST_PRIVILEGE",
    "adapter_sources",
    "adapter_volumes",
    "input_downloader",
    "lora_downloader",
    "metrics_exporter",
    "model_gate",
    "model_loader",
    "preflight",
    "server_gate",
    "server_setup",
    "waiting_for",
]

LEAST_PRIVILEGE: Mapping[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""The parts of Kubernetes' Pod Security Standard "restricted" that work with every image."""
HELPER_USER = 1000
"""User of our programs: flytekit's own image has it (`useradd --uid 1000 flytekit`), and no image
needs more."""
LOADER_PROBE = Probe(command=("test", "-e", READY_FILE), period_seconds=2, failure_threshold=3600)
"""Two hours, for a first download of the largest models; the kubelet starts the server only after
it."""
_GATE_RESOURCES = {"cpu": "100m", "memory": "64Mi"}
_GATE_LIMITS = {"cpu": "1"}
"""A gate asks for little, because it mostly waits; but with a limit of 100m Python alone takes 3 s
to start, which every start of a pod would wait for."""
PYTHON_IMAGE = "python:3.12.12-slim-bookworm"
"""The image for adapters without a helper image: as documented, the hub's client is then installed
when the pod starts."""
HUB_CLIENT = ("huggingface_hub==2.4.0", "requests==2.34.2")
"""The packages that the loader needs to read the hub."""
# Into /tmp, because HELPER_USER may not write to the image's own packages. The failure is written
# in the form of our programs' termination messages, since no program of ours runs yet.
_INSTALL = """\
packages=; while [ "$1" != -- ]; do packages="$packages $1"; shift; done; shift
python -m pip install --quiet --disable-pip-version-check --target /tmp/site $packages || {
  echo 'load_model failed: The client of the hub could not be installed when the pod started.' >&2
  echo '{"version": 1, "program": "load_model", "error": "MissingDependencyError", \
"exit_code": 69, "message": "The client of the hub could not be installed when the pod started.", \
"hint": "Give helper_image=, an image that holds this package."}' >&2
  exit 69
}
PYTHONPATH=/tmp/site exec "$@"
"""
"""Installs packages beside the image's own, then becomes the program."""
# The traps: the kernel applies no default action for SIGTERM to a container's first process, so a
# shell without one would wait until SIGKILL, and so would a server that has not installed its own
# handler yet. INT and QUIT, because an image may name another signal with which it is stopped.
# PID 1 alone stays the server's parent, since only its `kill -1` reaches nothing but the container;
# in a process namespace that is shared, and on one machine, the server takes the shell's place.
# `$$$$`: Kubernetes makes `$$` of it, the shell's process id (`forked/golang/expansion`).
_SERVE = """\
trap 'exit 143' TERM INT QUIT
while [ "$1" != -- ]; do until [ -e "$1" ]; do sleep 0.2; done; shift; done
shift
if [ -z "$stop" ] || [ $$$$ -ne 1 ]; then exec "$@"; fi
told=
(trap - INT QUIT; exec "$@") &
server=$!
end() {
  told=yes
  trap '' TERM INT QUIT
  kill -TERM "$server" 2>/dev/null
  (sleep "$stop"; kill -KILL -1) &
}
trap end TERM INT QUIT
wait "$server"; code=$?
if [ -n "$told" ] && [ "$code" -gt 128 ]; then wait "$server"; code=$?; fi
exit "$code"
"""
"""Waits for files, then starts the server and ends it: passes SIGTERM on, and after `stop` seconds
kills what is left. The text works with `sh` of any image; only its arguments and `stop` differ."""


def input_downloader(
    helper: Helper,
    *,
    resources: Mapping[str, str],
    env: tuple[EnvVar, ...] = (),
    bound_inputs: Iterable[str] = (),
) -> Container:
    """Return the init container that turns the task's inputs into local files and `inputs.json`.

    Args:
        helper: The image it runs in.
        resources: Its requests and limits.
        env: Its variables: how long the start may take.
        bound_inputs: The inputs of a map task that are the same for each element.
    """
    bound = tuple(argument for name in bound_inputs for argument in ("--bound", name))
    # Flyte fills in `{{.input}}` for init containers too, from v1.13.2 on (flyteorg/flyte#5685).
    # The rest is explicit although these are the defaults: a local run replaces the paths of
    # volumes in arguments by directories of this machine, which it cannot do with a default.
    args = ("{{.input}}", "--output", INPUTS_FILE, "--directory", INPUTS_DIRECTORY, *bound)
    return _program(
        INPUT_DOWNLOADER, "download_inputs", args, helper=helper, resources=resources, env=env
    )


def model_loader(
    helper: Helper,
    source: tuple[str, ...],
    *,
    resources: Mapping[str, str],
    env: tuple[EnvVar, ...] = (),
    options: tuple[str, ...] = (),
    is_probed: bool,
) -> Container:
    """Return the sidecar that downloads a model and publishes it.

    Args:
        helper: The image it runs in.
        source: The source of the model, as the loader's arguments.
        resources: Its requests and limits.
        env: Its variables: tokens, and the user's variables for it.
        options: Its other arguments.
        is_probed: Whether the kubelet starts the next container only after the model is published.
    """
    args = (*source, "--publish", MODELS_DIRECTORY, "--cache", MODEL_CACHE_DIRECTORY, *options)
    from_inputs = any(word.startswith("input:") for word in source)
    if from_inputs:
        env = (*env, EnvVar(name=INPUTS_VARIABLE, value=INPUTS_FILE))
    probes = Probes(startup=LOADER_PROBE) if is_probed else Probes()
    container = _program(
        MODEL_LOADER,
        "load_model",
        args,
        helper=helper,
        resources=resources,
        env=env,
        sidecar=True,
        probes=probes,
    )
    # before a gate it starts together with the downloader, so it must wait for the inputs
    if from_inputs and not is_probed:
        return replace(container, command=waiting_for((INPUTS_FILE,), container.command))
    return container


def adapter_sources(adapters: Adapters | None) -> tuple[str, ...]:
    """Return the sources and the directory of adapters, as the loader's arguments."""
    if adapters is None:
        return ()
    words = (
        word
        for name, source in adapters.sources.items()
        for word in ("--adapter", f"{name}={source}")
    )
    return (*words, "--adapters-directory", adapters.directory)


def adapter_volumes(adapters: Adapters | None) -> tuple[Volume, ...]:
    """Return the mounts of the adapters' volume: their downloader writes, the server reads."""
    if adapters is None:
        return ()
    # container → read-only
    mounted = {LORA_DOWNLOADER: False, MODEL_SERVER: True}
    return tuple(
        Volume(
            name="inference-lora",
            mount_path=adapters.directory,
            read_only=read_only,
            containers=(container,),
        )
        for container, read_only in mounted.items()
    )


def lora_downloader(
    helper: Helper,
    adapters: Adapters,
    *,
    state: str,
    env: tuple[EnvVar, ...],
    options: tuple[str, ...] = (),
) -> Container:
    """Return the init container that downloads LoRA adapters, each into a directory of its name.

    Args:
        helper: The image it runs in. An image without this package also lacks the hub's client; a
            plain Python image then replaces it, and installs the client at the start.
        adapters: The adapters.
        state: The directory of the loader's metadata.
        env: Its variables: tokens, and the user's variables for it.
        options: Its other arguments.
    """
    places = ("--cache", MODEL_CACHE_DIRECTORY, "--publish", state)
    container = _program(
        LORA_DOWNLOADER,
        "load_model",
        (*adapter_sources(adapters), *places, *options, "--once"),
        helper=helper,
        resources={"cpu": "1", "memory": format_quantity(adapters.mem)},
        env=env,
    )
    if not helper.bundled:
        return container
    refuse_bare_adapters(adapters.sources)
    install = (*("sh", "-c", _INSTALL, "install"), *HUB_CLIENT, "--", *container.command)
    return replace(container, image=PYTHON_IMAGE, command=install)


def preflight(
    helper: Helper,
    *,
    required: Iterable[str],
    sources: tuple[str, ...],
    resources: Mapping[str, str],
    env: tuple[EnvVar, ...],
) -> Container:
    """Return the first init container, which checks whether the start can succeed.

    If the start cannot succeed, it ends the pod before the kubelet pulls a large image.

    Args:
        helper: The image it runs in.
        required: The variables that must not be empty.
        sources: The model and the adapters, as the loader's arguments; empty if this container
            cannot read them.
        resources: The loader's requests and limits, so the check also covers its memory.
        env: Its variables: those of the loader and of the server's secrets.
    """
    words = tuple(word for name in required for word in ("--require-env", name))
    # nothing to read, so the gate's program suffices, which is smaller and needs less memory
    if not sources:
        return _gate(PREFLIGHT, ("--preflight", *words), helper=helper, env=env)
    args = (*sources, "--cache", MODEL_CACHE_DIRECTORY, "--check", *words)
    return _program(PREFLIGHT, "load_model", args, helper=helper, resources=resources, env=env)


def server_setup(helper: Helper, setup: Setup, *, env: tuple[EnvVar, ...]) -> Container:
    """Return the init container that prepares the started server.

    Args:
        helper: The image it runs in.
        setup: The program and its arguments.
        env: Its other variables: how long the start may take.
    """
    return _program(
        SERVER_SETUP,
        setup.program,
        setup.args,
        helper=helper,
        resources=setup.resources,
        env=(*setup.env, *env),
    )


def model_gate(helper: Helper, *, timeout_seconds: int, env: tuple[EnvVar, ...]) -> Container:
    """Return the init container after which the kubelet starts a server that cannot wait itself.

    It ends when the model is published, and ends the pod if that does not happen in time.

    Args:
        helper: The image it runs in.
        timeout_seconds: The budget of the start.
        env: Its variables: when the start began.
    """
    args = ("--models", MODELS_DIRECTORY, "--timeout", str(timeout_seconds))
    return _gate(MODEL_GATE, args, helper=helper, env=env)


def server_gate(
    helper: Helper,
    *,
    url: str,
    timeout_seconds: int,
    report: str,
    options: tuple[str, ...],
    env: tuple[EnvVar, ...],
) -> Container:
    """Return the init container that ends the pod if the server is not ready in time.

    Args:
        helper: The image it runs in.
        url: The readiness address.
        timeout_seconds: The budget of the start.
        report: The file for its report on the start.
        options: Its other arguments.
        env: Its variables: the server's API key, and when the start began.
    """
    args = (url, "--timeout", str(timeout_seconds), "--report", report, *options)
    return _gate(SERVER_GATE, args, helper=helper, env=env)


def metrics_exporter(
    helper: Helper,
    exporter: MetricsExporter,
    args: tuple[str, ...],
    *,
    env: tuple[EnvVar, ...],
) -> Container:
    """Return the sidecar that serves the server's metrics and judges its liveness.

    Args:
        helper: The image it runs in.
        exporter: Its settings.
        args: Its arguments.
        env: Its variables: the server's API key.
    """
    resources = {"cpu": format_quantity(exporter.cpu), "memory": format_quantity(exporter.mem)}
    container = _program(
        METRICS_EXPORTER, "export_metrics", args, helper=helper, resources=resources, env=env
    )
    return exporter_container(exporter, container)


def waiting_for(
    files: Iterable[str], command: tuple[str, ...], *, stop_seconds: int | None = None
) -> tuple[str, ...]:
    """Return `command`, started once all `files` exist.

    Args:
        files: What it waits for.
        command: The program and its arguments.
        stop_seconds: Seconds between SIGTERM and the end of all that is left of it; `None` leaves
            that to the pod's grace period.
    """
    files = tuple(files)
    if not files and stop_seconds is None:
        return command
    stop = "" if stop_seconds is None else stop_seconds
    return ("sh", "-c", f"stop={stop}\n{_SERVE}", "wait", *files, "--", *command)


def _gate(
    name: str, args: tuple[str, ...], *, helper: Helper, env: tuple[EnvVar, ...]
) -> Container:
    return _program(
        name,
        "wait_for_server",
        args,
        helper=helper,
        resources=_GATE_RESOURCES,
        limits=_GATE_LIMITS,
        env=env,
    )


def _program(
    name: str,
    program: str,
    args: tuple[str, ...],
    *,
    helper: Helper,
    resources: Mapping[str, str],
    env: tuple[EnvVar, ...] = (),
    **fields: Any,
) -> Container:
    command: tuple[str, ...] = ("python", "-m", f"flytekitplugins.inference.programs.{program}")
    # an image without this package gets the program in a variable: docs/decisions/0003
    if helper.bundled:
        command = ("python", "-c", BOOTSTRAP, program)
        env = (*env, EnvVar(name=PROGRAMS_VARIABLE, value=programs_bundle(program)))
    return Container(
        name=name,
        image=helper.image,
        command=command,
        args=args,
        env=env,
        resources=resources,
        # Python's `tempfile`, and the archive of a bundled program
        writes_to_tmp=True,
        security_context={**LEAST_PRIVILEGE, "runAsNonRoot": True, "runAsUser": HELPER_USER},
        **fields,
    )
