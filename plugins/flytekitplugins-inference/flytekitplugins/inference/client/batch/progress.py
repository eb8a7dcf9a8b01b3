"""Shows the progress of a batch: a live line in a terminal, occasional plain lines elsewhere."""

from __future__ import annotations

import io
import shutil
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TextIO

from ...facts.wording import duration

_WINDOW_SECONDS = 10.0
"""The period over which rates are measured."""
_PLAIN_SECONDS = 15.0
"""The pause between two lines without a terminal."""
_BAR_WIDTH = 20


@dataclass(slots=True)
class Counts:
    """The counts of a run so far."""

    total: int | None = None
    """Rows of the input, once that is known."""
    read: int = 0
    succeeded: int = 0
    failed: int = 0
    answered: int = 0
    """Rows that got an answer in this run."""
    resumed: int = 0
    """Rows that an earlier run had finished; they are among the succeeded and failed."""
    retried: int = 0
    """Requests that were retried."""
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    in_flight: int = 0
    limit: int = 0

    @property
    def finished(self) -> int:
        """Rows with an answer or a failure."""
        return self.succeeded + self.failed

    @property
    def computed(self) -> int:
        """Rows that this run finished."""
        return self.finished - self.resumed

    @property
    def tokens(self) -> int:
        """Tokens read and written by the model in this run."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(slots=True)
class Rates:
    """Recent rows and tokens per second."""

    rows: float = 0.0
    tokens: float = 0.0
    _samples: deque[tuple[float, int, int]] = field(default_factory=deque)

    def update(self, now: float, counts: Counts) -> None:
        """Add the counts at a moment."""
        self._samples.append((now, counts.computed, counts.tokens))
        # one sample older than the window stays, so that the rates cover all of it
        while len(self._samples) > 2 and now - self._samples[1][0] >= _WINDOW_SECONDS:
            self._samples.popleft()
        began, rows, tokens = self._samples[0]
        if now > began:
            self.rows = (counts.computed - rows) / (now - began)
            self.tokens = (counts.tokens - tokens) / (now - began)


class Progress:
    """Shows the counts of one run.

    Args:
        shown: Whether to write at all.
        stream: The output stream; standard error if None.
    """

    def __init__(self, *, shown: bool = True, stream: TextIO | None = None) -> None:
        # a process without a console has no standard error
        self._stream = stream or sys.stderr or io.StringIO()
        self._shown = shown
        self._live = shown and _is_terminal(self._stream)
        self._last = time.monotonic()
        self.rates = Rates()

    def say(self, text: str, *, always: bool = False) -> None:
        """Write a line that stays.

        Args:
            text: The line.
            always: Whether to write it also when progress is not shown.
        """
        if self._shown or always:
            self._write(f"{self._clear()}batch: {text}\n")

    def update(self, counts: Counts, *, now: float, last: bool = False) -> None:
        """Show the counts.

        Args:
            counts: The counts so far.
            now: Seconds on a monotonic clock.
            last: Whether the run is over, so that this line stays.
        """
        self.rates.update(now, counts)
        line = render(counts, self.rates, bar=self._live)
        if self._live:
            # a line of full width wraps in some terminals, and `_clear` clears one line only
            width = shutil.get_terminal_size().columns - 1
            self._write(f"{self._clear()}{line[:width]}" + ("\n" if last else ""))
        elif self._shown and (last or now - self._last >= _PLAIN_SECONDS):
            self._last = now
            self._write(f"batch: {line}\n")

    def _clear(self) -> str:
        return "\r\x1b[2K" if self._live else ""

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # a closed terminal must not stop the batch
            self._shown = self._live = False


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, OSError, ValueError):  # not every replacement of a stream has it
        return False


def render(counts: Counts, rates: Rates, *, bar: bool) -> str:
    """Return the counts in one line."""
    done, total = counts.finished, counts.total
    parts = [f"{done:,} of {total:,} rows" if total is not None else f"{done:,} rows"]
    if total:
        parts[0] += f" ({done / total:.0%})"
    if bar and total:
        filled = min(_BAR_WIDTH, _BAR_WIDTH * done // total)
        parts[0] = f"[{'█' * filled}{'·' * (_BAR_WIDTH - filled)}] {parts[0]}"
    parts.append(f"{rates.rows:,.1f} rows/s")
    if counts.tokens:
        parts.append(f"{rates.tokens:,.0f} tokens/s")
    parts += [f"{counts.in_flight} in flight", f"{counts.failed:,} failed"]
    if total is not None and rates.rows > 0:
        parts.append(f"ETA {duration(max(total - done, 0) / rates.rows)}")
    return ", ".join(parts)
