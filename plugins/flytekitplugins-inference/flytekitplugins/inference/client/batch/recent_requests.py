"""Judges from the last requests whether refusals come from the load or from the row.

An overloaded server refuses a large share of its requests. A request that is refused or never
answered while its neighbours are answered says nothing about the load: the same row would also be
refused on its own.
"""

from __future__ import annotations

from collections import deque

OVERLOADED_SHARE = 0.2
"""The share of refusals that counts as overload. If one row in a hundred is always refused, six in
a hundred requests are, because the row is retried five times. A server with one slot too few
refuses every request for that slot, and so soon refuses more than it answers."""
FEWEST = 16
"""The share is meaningless with fewer requests than this."""
LENGTH = 64
"""The minimum length of the history."""


class RecentRequests:
    """The outcomes of the last requests, twice as many as may be in flight."""

    def __init__(self) -> None:
        self._refused: deque[bool] = deque()
        self._count = 0
        """How many entries are True."""

    def add(self, *, refused: bool, limit: int) -> None:
        """Note an outcome.

        Args:
            refused: Whether the server shed the request, or did not answer it in time.
            limit: How many requests may be in flight.
        """
        self._refused.append(refused)
        self._count += refused
        while len(self._refused) > max(LENGTH, 2 * limit):
            self._count -= self._refused.popleft()

    @property
    def show_health(self) -> bool:
        """Whether the server answered nearly all requests; false without any."""
        return self._count < OVERLOADED_SHARE * len(self._refused)

    def show_overload(self, in_flight: int) -> bool:
        """Return whether the server refuses too many.

        Args:
            in_flight: Requests without an outcome so far. They count as not refused: a refusal
                arrives at once, an answer takes time.
        """
        requests = max(len(self._refused) + in_flight, FEWEST)
        return self._count >= OVERLOADED_SHARE * requests

    def clear(self) -> None:
        """Clear the history, because the limit has changed."""
        self._refused.clear()
        self._count = 0
