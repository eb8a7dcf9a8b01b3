"""The output of the containers: written line by line to a stream, with a tail of each in memory.

Each line is written at once, after the container's name. Undecodable bytes are replaced, and
control sequences are removed. A carriage return overwrites the line, as on a terminal, so a
progress bar is one line.
"""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping

KEPT_LINES = 1000
"""Lines kept in memory per container."""
MAX_LINE_CHARACTERS = 4000
"""A longer line is cut, both on the stream and in memory."""

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


class PodOutput:
    """The lines of all containers of one pod.

    Args:
        stream: Where lines are written; `None` only keeps them.
        environ: Environment variables; a `NO_COLOR` that is not empty turns colours off
            (https://no-color.org).
    """

    def __init__(self, stream: TextIO | None, environ: Mapping[str, str] = os.environ) -> None:
        self._stream = stream
        self._coloured = stream is not None and not environ.get("NO_COLOR") and _is_terminal(stream)
        self._lock = threading.Lock()
        self._kept: dict[str, deque[str]] = {}
        self._colours: dict[str, int] = {}

    def write_line(self, container: str, text: str) -> None:
        """Keep one line of a container and write it with the container's name in front."""
        with self._lock:
            self._kept.setdefault(container, deque(maxlen=KEPT_LINES)).append(text)
            colour = self._colours.setdefault(
                container, _COLOURS[len(self._colours) % len(_COLOURS)]
            )
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


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False
