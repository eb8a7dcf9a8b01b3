"""Sends rows from the queue as fast as the limit, the server and the disk allow."""

from __future__ import annotations

import asyncio
import time

from .alarm import Alarm
from .feed import SIZE
from .progress import Counts
from .recorder import Recorder
from .row_attempts import RowAttempts, ServerState
from .row_queue import RowQueue
from .rows import Row
from .threads import end_tasks


class Dispatcher:
    """Starts the requests of one run, each in its own task.

    Args:
        attempts: Makes the requests.
        server: Decides when one may be sent.
        queue: The rows.
        recorder: While it lags behind, nothing is sent.
        counts: Updated with each request.
        wake: Rings whenever a request may be due.
    """

    def __init__(
        self,
        attempts: RowAttempts,
        server: ServerState,
        *,
        queue: RowQueue,
        recorder: Recorder,
        counts: Counts,
        wake: Alarm,
    ) -> None:
        self._attempts = attempts
        self._server = server
        self._queue = queue
        self._recorder = recorder
        self._counts = counts
        self._wake = wake
        self._tasks: set[asyncio.Task[None]] = set()
        self._defect: BaseException | None = None
        """The exception of a task, which is a defect of this package."""

    @property
    def is_waiting(self) -> bool:
        """Whether the server may still answer requests."""
        return bool(self._tasks) and self._server.limiter.in_flight > 0

    async def run(self) -> None:
        """Send requests until all rows are finished."""
        while self._defect is None:
            self._send()
            if self._queue.is_over and not self._tasks:
                return
            # nothing can ring in between: no `await` separates this from `_send`
            self._wake.clear()
            await self._wake.wait()
        raise self._defect

    async def wait(self, seconds: float) -> None:
        """Wait until nothing is in flight, for at most `seconds`."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)

    async def cancel(self) -> None:
        """Cancel the requests in flight."""
        self._attempts.are_over = True
        await end_tasks([*self._tasks])

    def _send(self) -> None:
        while self._may_send():
            row = self._queue.take()
            if row is None:
                due = self._queue.seconds_until_due()
                if due is not None:
                    self._wake.ring_in(due)
                return
            self._start(row)

    def _may_send(self) -> bool:
        limiter = self._server.limiter
        if self._server.recovery.is_under_way or not limiter.has_room:
            return False
        if self._recorder.backlog > 4 * limiter.limit + SIZE:
            return False  # the disk lags behind
        pause = limiter.paused_until - time.monotonic()
        if pause > 0:
            self._wake.ring_in(pause)
        return pause <= 0

    def _start(self, row: Row) -> None:
        ticket = self._server.limiter.send(time.monotonic())
        self._counts.requests += 1
        task = asyncio.create_task(self._attempts.make(row, ticket))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and self._defect is None:
            self._defect = task.exception()
        self._wake.ring()
