"""Which of the last requests a server refused or left unanswered: is it the load, or is it the row?

A server that has too much to do turns away a good part of what it gets. A request that is refused,
or never answered, while its neighbours are answered says nothing about the load: the same row would
be refused if it came alone.
"""

from __future__ import annotations

from collections import deque

OVERLOADED_SHARE = 0.2
"""Of the last requests. One row in a hundred that is always refused makes up six in a hundred
requests, since it is asked again five times; a server with one slot too few refuses whatever comes
for that slot, and so soon more than it answers."""
FEWEST = 16
"""A share of fewer requests than this says nothing."""
LENGTH = 64
"""Requests that are looked back upon at least, once there were so many."""


class RecentRequests:
    """The outcomes of the last requests, twice as many as may be in flight."""

    def __init__(self) -> None:
        self._refused: deque[bool] = deque()
        self._count = 0
        """How many of them are True."""

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
        """Whether the server answered nearly all of them. Without any, nothing is known."""
        return self._count < OVERLOADED_SHARE * len(self._refused)

    def show_overload(self, in_flight: int) -> bool:
        """Return whether the server refuses too many.

        Args:
            in_flight: Requests that are neither answered nor refused so far. They count as not
                refused: a refusal comes at once, an answer takes its time.
        """
        requests = max(len(self._refused) + in_flight, FEWEST)
        return self._count >= OVERLOADED_SHARE * requests

    def clear(self) -> None:
        """Forget all of them, because the limit is another one now."""
        self._refused.clear()
        self._count = 0
