"""Tracks the requests in flight, and which of them later requests have overtaken."""

from __future__ import annotations

from collections import OrderedDict

OVERTAKEN = 4
"""A request is a straggler once this many times the limit were answered after it was sent. With a
fair share of the server, a request is answered after about as many answers as the limit."""


class InFlight:
    """Requests by number, in the order of sending.

    A request that is never answered costs the server no work, so it must not take the place of
    another. Its age alone does not identify it: if the server is slow for all requests, none is
    overtaken.
    """

    def __init__(self) -> None:
        self._active: OrderedDict[int, int] = OrderedDict()
        """Number → count of answers when it was sent; in order."""
        self._stragglers: set[int] = set()
        self._sent = 0
        self._answers = 0

    def __len__(self) -> int:
        return len(self._active) + len(self._stragglers)

    @property
    def active(self) -> int:
        """How many requests are not stragglers."""
        return len(self._active)

    def send(self) -> int:
        """Add a request; return its number."""
        self._sent += 1
        self._active[self._sent] = self._answers
        return self._sent

    def leave(self, number: int) -> None:
        """Remove a request that is over."""
        if self._active.pop(number, None) is None:
            self._stragglers.discard(number)

    def answered(self, limit: int) -> None:
        """Note an answer.

        Args:
            limit: How many requests may be in flight.
        """
        self._answers += 1
        overtaken = self._answers - OVERTAKEN * limit
        while self._active:
            first = next(iter(self._active))
            if self._active[first] > overtaken:
                return
            del self._active[first]
            self._stragglers.add(first)
