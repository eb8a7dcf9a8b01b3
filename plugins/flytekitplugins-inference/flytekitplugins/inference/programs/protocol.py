"""The names that the pod compiler and the programs must agree on, written once.

Paths, environment variables, exit codes and the termination message. Standard library only.
"""

from __future__ import annotations

import bisect
import contextlib
import json
import os
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InferenceError, ServerError

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION = 1
"""Version of the messages below; raised when a reader of the old form would misread the new one."""

SHARED_DIRECTORY = "/shared"
"""Where the volume `shared-data` is mounted in every container that takes part."""
TMP_DIRECTORY = "/tmp"
"""Where the volume `tmp` is mounted in every container that takes part."""
INPUTS_FILE = f"{SHARED_DIRECTORY}/inputs.json"
"""The task's inputs as plain JSON; present only when every input has arrived."""
INPUTS_DIRECTORY = f"{TMP_DIRECTORY}/inputs"
"""Where the input downloader puts the files that `INPUTS_FILE` names."""
MODELS_DIRECTORY = "/models"
"""Where the model loader publishes: private to the pod, read-only for the server."""
MODEL_PATH = f"{MODELS_DIRECTORY}/current"
"""The model; a link to one complete version, swapped as a whole."""
READY_NAME = ".ready"
READY_FILE = f"{MODELS_DIRECTORY}/{READY_NAME}"
"""Present once `MODEL_PATH` is."""
METADATA_NAME = "metadata.json"
"""Name of a file beside it: a description of the model and of its download."""
ERROR_NAME = "error.json"
"""Name of a file beside it: the loader's termination message after a failure."""
STARTS_NAME = ".starts"
"""Name of a file beside it: how often the loader has started since it last published something,
left an error or received SIGTERM."""
MODEL_CACHE_DIRECTORY = "/model-cache"
"""Where the loader keeps complete versions; possibly a volume that many pods share."""
COLD_START_FILE = f"{SHARED_DIRECTORY}/cold-start.json"
"""The duration of the start, by phase."""
SUMMARY_FILE = f"{SHARED_DIRECTORY}/metrics-summary.json"
"""What the metrics exporter saw of its server."""
EXPORTER_PORT = 9090
"""The exporter's port, unless another is given."""
LIVE_PATH = "/live"
"""Where the exporter answers whether the server works."""
STARTED_PATH = "/started"
"""Where it answers the server's startup probe."""
EXPORTER_PATH = "/healthz"
"""Where it answers whether it works itself."""
EXPORTER_ALIASES = ("gen_ai", "ml")
"""The sets of further names of its metrics."""
START_CLOCK_FILE = f"{SHARED_DIRECTORY}/start-clock"
"""The time when the first container of a bounded start began."""
TERMINATION_LOG = "/dev/termination-log"
"""Kubernetes' default `terminationMessagePath`."""

INPUTS_VARIABLE = "INFERENCE_INPUTS"
"""Environment variable that holds `INPUTS_FILE` (on one machine: where it lies there)."""
PORT_VARIABLE = "INFERENCE_PORT"
"""Environment variable that holds the model server's port; a command may name it as
`$(INFERENCE_PORT)`."""
MODEL_PATH_VARIABLE = "INFERENCE_MODEL_PATH"
"""Environment variable that holds the path of the model, for a server that loads one."""
MODELFILE_VARIABLE = "INFERENCE_MODELFILE"
"""Environment variable that holds the Modelfile of a model to create."""
START_VARIABLE = "INFERENCE_START"
"""Environment variable that says how long the whole start may take: `{"seconds": 900, "clock":
START_CLOCK_FILE}`."""
PROGRAMS_VARIABLE = "INFERENCE_PROGRAMS"
"""Environment variable that carries the bundled programs to an image without this package."""
TERMINATION_LOG_VARIABLE = "INFERENCE_TERMINATION_LOG"
"""Environment variable that overrides `TERMINATION_LOG` where that path does not exist."""

MAX_TERMINATION_MESSAGE_BYTES = 4096
"""Bytes that the kubelet keeps of a termination message (kubernetes.io, "Determine the Reason for
Pod Failure")."""
MAX_SENTENCE_BYTES = 1000
"""Maximum size of its first line, which Flyte's console shows first."""
MAX_HINT_BYTES = 1000
"""Maximum size of a hint in its line of JSON; the message takes the rest."""

EXECUTION_VARIABLE = "FLYTE_INTERNAL_EXECUTION_ID"
"""Environment variable that Flyte sets in every container of a task's pod, init containers too
(flyteorg/flyte v1.16.8 `flyteplugins/.../flytek8s/k8s_resource_adds.go`, `DecorateEnvVars`)."""


class ExitCode(IntEnum):
    """The exit codes of the programs, from sysexits.h."""

    OK = 0
    USAGE = 64
    NO_INPUT = 66
    UNAVAILABLE = 69
    SOFTWARE = 70
    IO_ERROR = 74
    TEMPORARY = 75
    NO_PERMISSION = 77
    CONFIG = 78
    TERMINATED = 143
    """Ended by SIGTERM, as a shell reports it (128 + 15)."""
    INTERRUPTED = 130
    """Ended by Ctrl-C, as a shell reports it (128 + 2)."""
    FLYTE_USER_ERROR = 247
    """A failure that `retries=` counts: Flyte takes any other exit code of an init container for a
    fault of the system and tries four times (flyteorg/flyte v1.16.8 `pod_helper.go`,
    `unsignedSIGKILL`)."""


_PERMANENT = (ExitCode.USAGE, ExitCode.NO_INPUT, ExitCode.NO_PERMISSION, ExitCode.CONFIG)


def exit_code_of(error: Exception) -> int:
    """Return the exit code of a failure, from sysexits.h."""
    return error.exit_code if isinstance(error, InferenceError) else ExitCode.SOFTWARE


def exit_status(error: Exception, environ: Mapping[str, str]) -> int:
    """Return what a program that fails with `error` ends with.

    That is the failure's exit code. Under Flyte, a failure that another attempt cannot mend, and
    the verdict on a server or on the budget of its start, is a user error, so that `retries=`
    decides. What may pass (a store, a disk) keeps its code, and Flyte its own attempts.

    Args:
        error: What ended the program.
        environ: The program's environment variables.
    """
    code = exit_code_of(error)
    is_final = code in _PERMANENT or isinstance(error, ServerError)
    return ExitCode.FLYTE_USER_ERROR if is_final and EXECUTION_VARIABLE in environ else code


def termination_message(program: str, error: Exception) -> str:
    """Return why a program ended: a sentence for people, and below it a line of JSON for programs.

    It takes `MAX_TERMINATION_MESSAGE_BYTES` at most.

    Args:
        program: The program's name, e.g. `download_inputs`.
        error: What ended it.
    """
    message, _ = _message_and_hint(error)
    # names of files may hold bytes that are no characters
    words = " ".join(message.encode(errors="replace").decode().split())
    sentence = _truncate(f"{program} failed: {words}", MAX_SENTENCE_BYTES)
    room = MAX_TERMINATION_MESSAGE_BYTES - len(f"{sentence}\n".encode())
    return f"{sentence}\n{failure_line(program, error, max_bytes=room)}"


def failure_line(
    program: str, error: Exception, *, max_bytes: int = MAX_TERMINATION_MESSAGE_BYTES
) -> str:
    """Return one line of JSON that says why a program ended.

    Args:
        program: The program's name, e.g. `download_inputs`.
        error: What ended it. The hint of an `InferenceError` becomes a field of its own.
        max_bytes: Its maximum size.

    Returns:
        JSON with the keys `version`, `program`, `error`, `exit_code`, `message` and `hint`.
    """
    message, hint = _message_and_hint(error)
    fields = {
        "version": VERSION,
        "program": program,
        "error": type(error).__name__,
        "exit_code": exit_code_of(error),
        "message": "",
        "hint": _truncate(hint, MAX_HINT_BYTES),
    }
    # the kubelet cuts off longer messages, which would no longer be JSON
    room = max_bytes - len(json.dumps(fields))
    fields["message"] = _truncate(message, room + len(json.dumps("")))
    return json.dumps(fields)


def _message_and_hint(error: Exception) -> tuple[str, str]:
    if isinstance(error, InferenceError):
        return error.message, error.hint
    return str(error) or repr(error), "This is a defect of the program; its log has the traceback."


def _truncate(text: str, limit: int) -> str:
    """Return `text`, cut off with a `…` if it takes more than `limit` bytes of JSON."""
    if len(text) <= limit and len(json.dumps(text)) <= limit:
        return text

    def size(length: int) -> int:
        return len(json.dumps(text[:length] + "…"))

    longest = bisect.bisect_right(range(min(len(text), limit)), limit, key=size) - 1
    return text[:longest] + "…"


def write_termination_message(message: str) -> None:
    """Write `message` to the file that the kubelet reads, if that file can be written."""
    path = os.environ.get(TERMINATION_LOG_VARIABLE, TERMINATION_LOG)
    # outside a pod the path does not exist; the caller logs the message too
    with contextlib.suppress(OSError):
        Path(path).write_text(message, encoding="utf-8")
