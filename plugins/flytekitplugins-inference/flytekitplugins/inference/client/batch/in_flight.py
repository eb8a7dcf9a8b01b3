"""The requests that are in flight, and which of them the others have overtaken."""

from __future__ import annotations

from collections import OrderedDict

OVERTAKEN = 4
"""A request is a straggler when so many times the limit were answered after it was sent. One that
gets its fair share of the server is answered after about one time the limit."""


class InFlight:
    """Requests by the number that each got when it was sent.

    A request that is never answered takes no part in the server's work, and must not take the place
    of one that does. Age alone would not tell it from a server that is slow to all: then nobody is
    overtaken.
    """

    def __init__(self) -> None:
        self._active: OrderedDict[int, int] = OrderedDict()
        """Number to how many answers there were when it was sent, in order."""
        self._stragglers: set[int] = set()
        self._sent = 0
        self._answers = 0

    def __len__(self) -> int:
        return len(self._active) + len(self._stragglers)

    @property
    def active(self) -> int:
        """How many are no stragglers."""
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
