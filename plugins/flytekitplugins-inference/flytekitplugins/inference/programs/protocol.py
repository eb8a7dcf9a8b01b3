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

from ..errors import InferenceError

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
MAX_HINT_BYTES = 1000
"""Maximum size of a hint in it; the message takes the rest."""


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


def termination_message(program: str, error: BaseException) -> str:
    """Return one line of JSON that says why a program ended.

    It takes `MAX_TERMINATION_MESSAGE_BYTES` at most.

    Args:
        program: The program's name, e.g. `download_inputs`.
        error: What ended it. The hint of an `InferenceError` becomes a field of its own.

    Returns:
        JSON with the keys `version`, `program`, `error`, `message` and `hint`.
    """
    if isinstance(error, InferenceError):
        message, hint = error.message, error.hint
    else:
        message = str(error) or repr(error)
        hint = "This is a defect of the program; its log has the traceback."
    fields = {
        "version": VERSION,
        "program": program,
        "error": type(error).__name__,
        "message": "",
        "hint": _truncate(hint, MAX_HINT_BYTES),
    }
    # the kubelet cuts off longer messages, which would no longer be JSON
    room = MAX_TERMINATION_MESSAGE_BYTES - len(json.dumps(fields))
    fields["message"] = _truncate(message, room + len(json.dumps("")))
    return json.dumps(fields)


def _truncate(text: str, limit: int) -> str:
    """Return `text`, cut off with a `…` if it takes more than `limit` bytes of JSON."""
    if len(text) <= limit and len(json.dumps(text)) <= limit:
        return text

    def size(length: int) -> int:
        return len(json.dumps(text[:length] + "…"))

    longest = bisect.bisect_right(range(min(len(text), limit)), limit, key=size) - 1
    return text[:longest] + "…"


def write_termination_message(line: str) -> None:
    """Write `line` to the file that the kubelet reads, if that file can be written."""
    path = os.environ.get(TERMINATION_LOG_VARIABLE, TERMINATION_LOG)
    # outside a pod the path does not exist; the caller logs the line too
    with contextlib.suppress(OSError):
        Path(path).write_text(line, encoding="utf-8")
