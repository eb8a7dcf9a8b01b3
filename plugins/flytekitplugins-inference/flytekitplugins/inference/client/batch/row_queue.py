"""Queues rows: new ones in their order, and retries by the time at which they are due.

It uses no network, and its clock is an argument.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import count

from .rows import Row

_FEWEST_WAITING = 16
_DELAYED_AT_LEAST = 64


class RowQueue:
    """The rows of one run that are not in flight.

    Args:
        limit: Returns how many requests may be in flight now; the size of the queue depends on it.
        clock: Returns seconds that never go back.
    """

    def __init__(
        self, limit: Callable[[], int], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.is_low = asyncio.Event()
        """Set while the queue needs more new rows."""
        self.is_low.set()
        self._limit = limit
        self._clock = clock
        self._waiting: deque[Row] = deque()
        self._delayed: list[tuple[float, int, Row]] = []
        """A heap: the due time, a number that orders equal times, the row."""
        self._numbers = count()
        self._is_closed = False

    @property
    def is_over(self) -> bool:
        """Whether the input has ended and all its rows were taken."""
        return self._is_closed and not self._waiting and not self._delayed

    def add(self, rows: Iterable[Row]) -> None:
        """Append new rows."""
        self._waiting.extend(rows)
        if len(self._waiting) >= self._low_water():
            self.is_low.clear()

    def close(self) -> None:
        """Expect no more new rows."""
        self._is_closed = True

    def delay(self, row: Row, seconds: float) -> None:
        """Take back a row that is due again after `seconds`."""
        heapq.heappush(self._delayed, (self._clock() + seconds, next(self._numbers), row))

    def take(self) -> Row | None:
        """Return a row to send now, a retry that is due or a new row; None without any."""
        if self.seconds_until_due() == 0.0:
            return heapq.heappop(self._delayed)[2]
        # Delayed rows stay in memory. If there are very many, the server answers little, and new
        # rows would only join them.
        has_many_delayed = len(self._delayed) > 2 * self._limit() + _DELAYED_AT_LEAST
        row = self._waiting.popleft() if self._waiting and not has_many_delayed else None
        if len(self._waiting) < self._low_water():
            self.is_low.set()
        return row

    def sample(self) -> Row | None:
        """Return a random new row, which stays in the queue; None without any."""
        return random.choice(self._waiting) if self._waiting else None  # noqa: S311, not a secret

    def seconds_until_due(self) -> float | None:
        """Return in how many seconds a delayed row is due; None when no row is delayed."""
        return max(0.0, self._delayed[0][0] - self._clock()) if self._delayed else None

    def _low_water(self) -> int:
        return max(2 * self._limit(), _FEWEST_WAITING)
