"""Watches a run: shows its progress, and ends it if the server is gone for too long.

It also reads how many requests wait inside the server, if the server's metrics say so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from itertools import count

from ...errors import ServerNotReadyError
from ...facts.wording import duration
from .caller import Caller
from .progress import Counts, Progress
from .row_attempts import ServerState
from .series import Point, Series

_TICK_SECONDS = 0.25
_TICKS_PER_NOTE = 8
"""How many ticks pass between two updates of the report."""
_QUEUE_SECONDS = 1.0
"""The pause between two reads of the server's metrics."""


class Monitor:
    """Watches one run.

    Args:
        url: The server's address, for messages.
        server: The run's view of the server.
        counts: The counts so far; the monitor adds the limit and the requests in flight.
        progress: Displays the counts.
        note: Called every few seconds, and at the end.
    """

    def __init__(
        self,
        url: str,
        server: ServerState,
        *,
        counts: Counts,
        progress: Progress,
        note: Callable[[], None],
    ) -> None:
        self.series = Series()
        self.began = time.monotonic()
        self._url = url
        self._server = server
        self._counts = counts
        self._progress = progress
        self._note = note

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.began

    async def run(self) -> None:
        """Update the display four times a second.

        Raises:
            ServerNotReadyError: The server was gone for longer than `outage_seconds`.
        """
        limiter = self._server.limiter
        for number in count():
            await asyncio.sleep(_TICK_SECONDS)
            self._counts.in_flight = limiter.in_flight
            self._counts.limit = limiter.limit
            self._progress.update(self._counts, now=self.elapsed)
            self._check_outage()
            self.series.offer(
                Point(
                    round(self.elapsed, 2),
                    self._counts.finished,
                    limiter.limit,
                    limiter.in_flight,
                    round(self._progress.rates.rows, 2),
                )
            )
            if number % _TICKS_PER_NOTE == 0:
                self._note()

    async def watch_queue(self, caller: Caller) -> None:
        """Report the server's queue length to the limiter, as long as its metrics contain it."""
        # one miss ends it: this is only a hint, and rendering its metrics costs a server time
        while (waiting := await caller.queue_length()) is not None:
            self._server.limiter.queue_seen(waiting)
            await asyncio.sleep(_QUEUE_SECONDS)

    def end(self) -> None:
        """Show the final counts."""
        self._counts.in_flight = 0
        self._progress.update(self._counts, now=self.elapsed, last=True)
        self._note()

    def _check_outage(self) -> None:
        availability = self._server.availability
        fault = availability.outage()
        if fault is None:
            return
        hint = (
            f"{self._counts.finished:,} rows are finished and kept; the same call continues after "
            "them."
        )
        if fault.kind == "timeout":
            hint += " If the model needs longer for a row, raise deadline=."
        trouble = "failed every request" if fault.kind == "server_error" else "not answered"
        raise ServerNotReadyError(
            f"{self._url} has {trouble} for {duration(availability.outage_seconds)}. The "
            f"last fault: {fault.message}",
            hint=hint,
        )
