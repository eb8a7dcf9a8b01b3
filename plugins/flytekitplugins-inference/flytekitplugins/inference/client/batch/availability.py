"""Judges from answers, faults and health checks whether the server is available.

It uses no network, and its clock is an argument, so its tests are tables of events.

A server counts as silent from the first fault that may mean that it is gone (`faults.UNAVAILABLE`)
until it answers anything at all (`faults.ANSWERED`, or an answer). A silence of more than
`outage_seconds` ends the run. Two things do not count: pauses that the server asked for
(`Retry-After`), and the time before an observed restart: a server that is back gets the full time
for its first answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from .faults import ANSWERED, UNAVAILABLE, Fault

PROBE_BASE_SECONDS = 0.1
PROBE_CAP_SECONDS = 2.0
"""Pauses between two health checks double from the one to the other."""


class Availability:
    """The state of one server.

    Args:
        outage_seconds: How long the server may be gone, shed every request, or leave all
            unanswered.
        clock: Seconds that never go back.
    """

    def __init__(
        self, outage_seconds: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.outage_seconds = outage_seconds
        self.last_fault: Fault | None = None
        """The last fault that may mean that the server is gone."""
        self._clock = clock
        self._silent_since: float | None = None
        """Moved forward by the seconds that the server asked for."""
        self._reserved_until = 0.0
        """The end of the last pause that the server asked for."""
        self._reserved_seconds = 0.0
        """All such pauses of this silence."""
        self._failed_probes = 0

    @property
    def is_away(self) -> bool:
        """Whether the last health check got no answer."""
        return self._failed_probes > 0

    @property
    def trouble(self) -> str:
        """What is wrong with the server, for the user."""
        is_error = self.last_fault is not None and self.last_fault.kind == "server_error"
        return "fails every request" if is_error else "does not answer"

    def pause_asked(self, fault: Fault) -> float:
        """Return the pause that the server asks for, in seconds, limited to `outage_seconds`."""
        return min(fault.retry_after, self.outage_seconds)

    def answered(self) -> None:
        """Note an answer."""
        self._silent_since = None

    def failed(self, fault: Fault) -> None:
        """Note the fault of a request."""
        if fault.kind in ANSWERED:
            self._silent_since = None
        elif fault.kind in UNAVAILABLE:
            self.last_fault = fault
            self._reserve(self.pause_asked(fault))

    def probe_failed(self) -> float:
        """Note a health check without an answer; return the seconds until the next one."""
        pause = min(PROBE_CAP_SECONDS, PROBE_BASE_SECONDS * 2.0**self._failed_probes)
        self._failed_probes += 1
        return pause

    def probe_answered(self) -> bool:
        """Note a health check that was answered; return whether the server had been away."""
        was_away = self.is_away
        self._failed_probes = 0
        if was_away:
            self._silent_since = self._clock()
        return was_away

    def outage(self) -> Fault | None:
        """Return the last fault when the silence is longer than allowed, otherwise None."""
        since = self._silent_since
        is_over = since is not None and self._clock() - since > self.outage_seconds
        return self.last_fault if is_over else None

    def _reserve(self, seconds: float) -> None:
        """Exclude a pause that the server asked for from the silence.

        Pauses of one silence overlap, so only the new part counts. Together they are at most as
        long as an outage may be: a server that says "later" for ever counts as gone, too.
        """
        now = self._clock()
        if self._silent_since is None:
            self._silent_since = now
            self._reserved_until = now
            self._reserved_seconds = 0.0
        longer = min(
            now + seconds - max(now, self._reserved_until),
            self.outage_seconds - self._reserved_seconds,
        )
        if longer > 0:
            self._reserved_until = now + seconds
            self._reserved_seconds += longer
            self._silent_since += longer
