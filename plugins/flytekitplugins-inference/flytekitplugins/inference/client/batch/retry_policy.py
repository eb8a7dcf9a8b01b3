"""Decides whether and when a row is retried after a failed request.

It uses neither network nor clock.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum

from .faults import Fault
from .rows import Row

BACKOFF_BASE_SECONDS = 0.25
BACKOFF_CAP_SECONDS = 20.0
"""The first and the longest pause between two requests for a row; each pause doubles the last."""
MAX_REFUSALS = 5
"""How often a server may refuse a row while it answers nearly all others. By chance, this happens
to fewer than one row in fifteen thousand, even if the server refuses a fifth of all requests."""


class Verdict(Enum):
    """The consequence of a fault."""

    WAIT = "wait"
    """The row is retried; the server was unable to take it."""
    RETRY = "retry"
    """The row is retried; the failure counts towards its limit."""
    FAIL = "fail"
    """The row has failed."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often rows are retried.

    Args:
        max_retries: How often a row is retried after a failure of its own.
        outage_seconds: How long the server may be gone.
    """

    max_retries: int
    outage_seconds: float

    def decide(self, row: Row, fault: Fault, *, now: float, server_was_away: bool) -> Verdict:
        """Return the consequence of a fault, and count the fault if the row is to blame."""
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
        """Return whether the row is to blame for a fault, rather than a busy or absent server.

        A broken connection counts against the row even if the server is down: the row may be what
        crashes it.
        """
        if fault.kind == "no_files":
            return False
        if fault.kind == "unreachable":
            return not server_was_away
        if fault.kind != "overloaded":
            return True
        if row.overloaded_since is None:
            row.overloaded_since = now
        # three times, so that a server that refuses all rows ends the run before any row fails
        return now - row.overloaded_since > 3 * self.outage_seconds


def backoff(row: Row) -> float:
    """Return the seconds until a row is retried: twice as long after each failure of its own.

    A refusal does not extend the pause, because the server answers other rows meanwhile. A random
    part keeps rows that failed together from coming back together.
    """
    longest = min(BACKOFF_CAP_SECONDS, BACKOFF_BASE_SECONDS * 2.0**row.attempts)
    return random.uniform(longest / 2, longest)  # noqa: S311, not a secret
