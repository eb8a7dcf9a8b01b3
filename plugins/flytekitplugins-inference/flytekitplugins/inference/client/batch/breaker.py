"""Tells a server that fails every row from rows that fail.

A status of 5xx, a broken connection or no answer in time may be the row's fault or the server's. It
is the row's as long as others are answered. When `FEWEST_ROWS` rows have failed so for the first
time and none was answered meanwhile, the breaker opens: nothing is sent but one probe at a time,
until the server answers it or `outage_seconds` are over. Retries do not open it: rows that failed
before often fail again, and at the end of a run only such rows are left.

The best probe is a row that was answered before: if it is answered again, the server works, and the
faults are those of the rows. Without such a row, rows that wait are tried at random.

It uses neither network nor clock.
"""

from __future__ import annotations

from .faults import Fault
from .rows import Row

FEWEST_ROWS = 8
"""That so many bad rows stand side by side is less likely than that the server is broken."""
BROKEN = frozenset({"server_error", "timeout", "disconnected", "overloaded"})
"""The faults that a broken server has for every row."""


class Breaker:
    """Counts the rows that failed since the last answer."""

    def __init__(self) -> None:
        self.proven: Row | None = None
        """The last row that the server answered in this run."""
        self._failed: set[int] = set()
        self._is_open = False

    @property
    def is_open(self) -> bool:
        """Whether the server seems to fail every row."""
        return self._is_open

    def answered(self, row: Row | None = None) -> None:
        """Note an answer, also one that fails its row."""
        self.proven = row or self.proven
        self._failed.clear()
        self._is_open = False

    def failed(self, row: Row, fault: Fault, *, in_flight: int) -> None:
        """Note the fault of a row.

        Args:
            row: The row.
            fault: What happened.
            in_flight: Requests whose end is not known yet: more failures than these are needed.
        """
        # a server that says when to come back (`Retry-After`) is asked then, and not before
        if fault.kind not in BROKEN or row.attempts or fault.retry_after:
            return
        self._failed.add(row.position)
        if len(self._failed) >= max(FEWEST_ROWS, in_flight):
            self._is_open = True
