"""The output of the containers: written line by line to a stream, with a tail of each in memory.

Each line is written at once, after the container's name. Undecodable bytes are replaced, and
control sequences are removed. A carriage return overwrites the line, as on a terminal, so a
progress bar is one line.

After the start a server's log would bury what the user's own function prints, so by default only
warnings are written then, and the lines before a failure. A file keeps every line.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

from ..errors import ConfigError
from .events import POD

if TYPE_CHECKING:
    from collections.abc import Mapping

KEPT_LINES = 1000
"""Lines kept in memory per container."""
MAX_LINE_CHARACTERS = 4000
"""A longer line is cut, both on the stream and in memory."""

LOG_VARIABLE = "INFERENCE_LOCAL_LOG"
"""Environment variable: how much of the containers' lines is written."""
Verbosity = Literal["all", "start", "none"]
VERBOSITIES: tuple[Verbosity, ...] = ("all", "start", "none")
SHOWN_BEFORE_A_FAILURE = 20
"""Lines of a container that are written when it fails after the start."""

_WARNING = re.compile(
    r"\b(WARN|WARNING|ERROR|CRITICAL|FATAL|PANIC|Traceback|[A-Z]\w*(?:Error|Exception))\b"
)
_MAX_PENDING_BYTES = 1 << 16
_COLOURS = (36, 35, 32, 34, 33, 96, 95, 92)  # ANSI foreground colours that read on light and dark
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0b-\x1f\x7f]"
)


class LineSplitter:
    """Turns chunks of bytes into lines of text."""

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, chunk: bytes) -> list[str]:
        """Take the next bytes; return the lines that are now complete."""
        *complete, self._pending = (self._pending + chunk).split(b"\n")
        if len(self._pending) > _MAX_PENDING_BYTES:
            # a progress bar sends carriage returns only; what the last one overwrote is not needed
            self._pending = self._pending[self._pending.rfind(b"\r") + 1 :]
        # still too long after the last carriage return, so it is one endless line
        if len(self._pending) > _MAX_PENDING_BYTES:
            complete.append(self._pending)
            self._pending = b""
        return [_as_text(line) for line in complete]

    def flush(self) -> list[str]:
        """Return the text after the last line break, if any."""
        rest = self._pending
        self._pending = b""
        return [_as_text(rest)] if rest.strip() else []


def _as_text(line: bytes) -> str:
    visible = line.rstrip(b"\r").rpartition(b"\r")[2]
    text = _CONTROL.sub("", visible.decode("utf-8", "replace"))
    return text if len(text) <= MAX_LINE_CHARACTERS else text[:MAX_LINE_CHARACTERS] + " …"


def verbosity_of(environ: Mapping[str, str]) -> Verbosity:
    """Return how much is written: what `INFERENCE_LOCAL_LOG` says, else `start`.

    Raises:
        ConfigError: If it says something else.
    """
    text = environ.get(LOG_VARIABLE, "").strip().lower() or "start"
    if text not in VERBOSITIES:
        raise ConfigError(
            f"{LOG_VARIABLE}={text!r} is none of {', '.join(VERBOSITIES)}.",
            hint="all writes every line, start those of the start and warnings, none nothing.",
        )
    return text


class PodOutput:
    """The lines of all containers of one pod.

    Args:
        stream: Where lines are written; `None` only keeps them.
        environ: Environment variables; a `NO_COLOR` that is not empty turns colours off
            (https://no-color.org), and `INFERENCE_LOCAL_LOG` says how much is written.
        name: The pod's name, for the file that keeps every line, whatever is written; empty keeps
            only tails in memory.

    Raises:
        ConfigError: If `INFERENCE_LOCAL_LOG` is not understood.
    """

    def __init__(
        self,
        stream: TextIO | None,
        environ: Mapping[str, str] = os.environ,
        *,
        name: str = "",
    ) -> None:
        self._verbosity = verbosity_of(environ)
        self._is_started = False
        self._is_file_told = False
        self._hidden: dict[str, deque[str]] = {}
        self._path = _new_file(name) if name else None
        self._file = self._path.open("a", encoding="utf-8") if self._path else None
        self._stream = stream
        self._coloured = stream is not None and not environ.get("NO_COLOR") and _is_terminal(stream)
        self._lock = threading.Lock()
        self._kept: dict[str, deque[str]] = {}
        self._colours: dict[str, int] = {}

    def write_line(self, container: str, text: str) -> None:
        """Keep one line of a container and write it with the container's name in front."""
        with self._lock:
            self._kept.setdefault(container, deque(maxlen=KEPT_LINES)).append(text)
            self._keep_in_file(container, text)
            if self._is_shown(container, text):
                self._write(container, text)
            else:
                self._tell_of_file()
                hidden = self._hidden.setdefault(container, deque(maxlen=SHOWN_BEFORE_A_FAILURE))
                hidden.append(text)

    def end_start(self) -> None:
        """Write less from now on: the start is over."""
        self._is_started = True

    def show_before_failure(self, container: str) -> None:
        """Write the last lines of a container that were not written: they say why it fails."""
        with self._lock:
            hidden = self._hidden.pop(container, ())
            for text in hidden if self._verbosity == "start" else ():
                self._write(container, text)

    def close(self) -> None:
        """Close the file. Lines may still be written to the stream."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None
            # nothing was said, so nobody looks for it
            if self._path is not None and not self._kept:
                self._path.unlink(missing_ok=True)

    def _tell_of_file(self) -> None:
        """Name the file when the first line is not written."""
        if self._verbosity == "start" and self._path is not None and not self._is_file_told:
            self._is_file_told = True
            self._write(POD, f"further lines go to {self._path}; {LOG_VARIABLE}=all shows them")

    def _is_shown(self, container: str, text: str) -> bool:
        if self._verbosity != "start":
            return self._verbosity == "all"
        return not self._is_started or container == POD or _WARNING.search(text) is not None

    def _keep_in_file(self, container: str, text: str) -> None:
        if self._file is None:
            return
        try:
            self._file.write(f"[{container}] {text}\n")
            self._file.flush()
        except OSError:  # a full disk must not end the servers
            self._file = None

    def _write(self, container: str, text: str) -> None:
        colour = self._colours.setdefault(container, _COLOURS[len(self._colours) % len(_COLOURS)])
        if self._stream is None:
            return
        prefix = f"\x1b[{colour}m[{container}]\x1b[0m" if self._coloured else f"[{container}]"
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        # a stream in another encoding must not end the pod because of a server's emoji
        line = f"{prefix} {text}\n".encode(encoding, "replace").decode(encoding)
        try:
            self._stream.write(line)
            self._stream.flush()
        # the reader is gone or the stream closed: the servers run on, and the tail stays
        except (OSError, ValueError):
            self._stream = None

    def tail(self, container: str, lines: int) -> tuple[str, ...]:
        """Return the last lines of a container, oldest first."""
        with self._lock:
            recent = self._kept.get(container, ())
            return tuple(recent)[-lines:] if lines > 0 else ()


def _new_file(name: str) -> Path:
    """Return a new file for a pod's lines. It stays when the pod's own directory goes."""
    handle, path = tempfile.mkstemp(prefix=f"inference-{name}-", suffix=".log")
    os.close(handle)
    return Path(path)


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False
