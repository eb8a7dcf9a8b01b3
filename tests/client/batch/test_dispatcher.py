"""When a request is sent, with attempts that only note their row."""

from __future__ import annotations

import asyncio
import math
import time
from types import SimpleNamespace
from typing import Any

import pytest

from flytekitplugins.inference.client.batch.alarm import Alarm
from flytekitplugins.inference.client.batch.dispatcher import Dispatcher
from flytekitplugins.inference.client.batch.limiter import Limiter
from flytekitplugins.inference.client.batch.progress import Counts
from flytekitplugins.inference.client.batch.row_queue import RowQueue
from flytekitplugins.inference.client.batch.rows import Row


class RowAttempts:
    """Requests that are answered when the test says so."""

    def __init__(self, limiter: Limiter) -> None:
        self.limiter = limiter
        self.sent: list[int] = []
        self.answers = asyncio.Event()
        self.error: Exception | None = None

    async def make(self, row: Row, ticket: Any) -> None:
        self.sent.append(row.position)
        await self.answers.wait()
        self.limiter.failed(ticket, time.monotonic())
        if self.error is not None:
            raise self.error


class Parts:
    """A dispatcher for ten rows, at most four at once."""

    def __init__(self) -> None:
        self.wake = Alarm()
        self.limiter = Limiter(4)
        self.recovery = SimpleNamespace(is_under_way=False)
        self.recorder = SimpleNamespace(backlog=0)
        self.attempts: Any = RowAttempts(self.limiter)
        queue = RowQueue(lambda: self.limiter.limit)
        queue.add(Row(position, None) for position in range(10))
        queue.close()
        server: Any = SimpleNamespace(limiter=self.limiter, recovery=self.recovery)
        self.dispatcher = Dispatcher(
            self.attempts,
            server,
            queue=queue,
            recorder=self.recorder,  # type: ignore[arg-type]
            counts=Counts(),
            wake=self.wake,
        )

    async def settle(self) -> list[int]:
        """Let all tasks go as far as they can; return the rows that were sent."""
        for _ in range(10):
            await asyncio.sleep(0)
        return self.attempts.sent


def test_as_many_are_in_flight_as_the_limit_says_and_then_the_next() -> None:
    async def main() -> None:
        parts = Parts()
        run = asyncio.create_task(parts.dispatcher.run())
        assert await parts.settle() == [0, 1, 2, 3]
        assert parts.dispatcher.is_waiting
        parts.attempts.answers.set()
        await run
        assert parts.attempts.sent == list(range(10))
        assert not parts.dispatcher.is_waiting

    asyncio.run(main())


@pytest.mark.parametrize("reason", ["recovery", "disk", "pause"])
def test_nothing_is_sent_while_the_server_or_the_disk_needs_time(reason: str) -> None:
    async def main() -> None:
        parts = Parts()
        parts.recovery.is_under_way = reason == "recovery"
        parts.recorder.backlog = 10_000 if reason == "disk" else 0
        parts.limiter.paused_until = math.inf if reason == "pause" else 0.0
        run = asyncio.create_task(parts.dispatcher.run())
        assert await parts.settle() == []
        parts.recovery.is_under_way = False
        parts.recorder.backlog = 0
        parts.limiter.paused_until = 0.0
        parts.wake.ring()
        assert await parts.settle() == [0, 1, 2, 3]
        run.cancel()
        await parts.dispatcher.cancel()
        assert parts.attempts.are_over

    asyncio.run(main())


def test_a_defect_of_this_package_ends_the_run() -> None:
    async def main() -> None:
        parts = Parts()
        parts.attempts.error = ZeroDivisionError()
        parts.attempts.answers.set()
        with pytest.raises(ZeroDivisionError):
            await parts.dispatcher.run()
        await parts.dispatcher.cancel()

    asyncio.run(main())


def test_with_nothing_in_flight_nothing_is_waited_for() -> None:
    async def main() -> None:
        await asyncio.wait_for(Parts().dispatcher.wait(3600), 60)

    asyncio.run(main())
