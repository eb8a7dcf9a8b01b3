"""What becomes of a row whose request failed: whose fault that is, and when it is asked again.

It knows neither network nor clock.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum

from .faults import Fault
from .rows import Row

BACKOFF_BASE_SECONDS = 0.25
BACKOFF_CAP_SECONDS = 20.0
"""Pauses between two requests for a row double from the one to the other."""
MAX_REFUSALS = 5
"""Times that a server may refuse a row while it answers nearly all others. At random it happens to
fewer than one row in fifteen thousand, even when the server refuses a fifth of all requests."""


class Verdict(Enum):
    """What follows."""

    WAIT = "wait"
    """The row is asked again; the server was not able to take it."""
    RETRY = "retry"
    """The row is asked again; this failure is one of the few that it may have."""
    FAIL = "fail"
    """The row has failed."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often rows are asked again.

    Args:
        max_retries: Times that a row is asked again after a failure of its own.
        outage_seconds: How long the server may be gone.
    """

    max_retries: int
    outage_seconds: float

    def decide(self, row: Row, fault: Fault, *, now: float, server_was_away: bool) -> Verdict:
        """Return what follows from a fault, and count it when it is held against the row."""
        if fault.kind == "overloaded" and row.refusals > MAX_REFUSALS:
            row.attempts += row.refusals
            return Verdict.FAIL
        if not self._is_held_against(row, fault, now, server_was_away=server_was_away):
            return Verdict.WAIT
        row.attempts += fault.kind != "invalid_row"
        if fault.retryable and row.attempts <= self.max_retries:
            return Verdict.RETRY
        return Verdict.FAIL

    def _is_held_against(
        self, row: Row, fault: Fault, now: float, *, server_was_away: bool
    ) -> bool:
        """Return whether a fault is the row's; a busy or absent server's is not.

        A connection that broke is, also when the server is down: this row may be what brings it
        down.
        """
        if fault.kind == "unreachable":
            return not server_was_away
        if fault.kind != "overloaded":
            return True
        if row.overloaded_since is None:
            row.overloaded_since = now
        # three times: when all rows are refused, that ends the run before it fails any
        return now - row.overloaded_since > 3 * self.outage_seconds


def backoff(row: Row) -> float:
    """Return the seconds until a row is asked again: twice as long after each failure of its own.

    A refusal makes the pause no longer, since the server answers others meanwhile. Chance keeps
    rows that failed together from coming back together.
    """
    longest = min(BACKOFF_CAP_SECONDS, BACKOFF_BASE_SECONDS * 2.0**row.attempts)
    return random.uniform(longest / 2, longest)  # noqa: S311, not a secret
