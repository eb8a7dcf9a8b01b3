"""What the clients of this process observed of one model server, in constant memory.

Reports and error messages read it. All clients of one address share one record, from any thread
or event loop. Standard library only.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Histogram", "PendingRequest", "Record", "Timeline", "record_of"]

MAX_FAILURES = 20
"""How many failed requests are kept as examples: the first ones, which are closest to the cause."""
MAX_OUTAGES = 100
MAX_TEXT = 300
"""Characters of an error's text that are kept."""


class Histogram:
    """Durations in buckets whose width grows with the duration.

    Quantiles are therefore accurate to 2.5 %, however long or short the durations are.
    """

    SMALLEST_SECONDS = 1e-4
    GROWTH = 1.05
    BUCKETS = 400
    """The last one begins at 8 hours."""

    def __init__(self) -> None:
        self._counts = [0] * self.BUCKETS
        self.count = 0
        self.sum_seconds = 0.0
        self.min_seconds = math.inf
        self.max_seconds = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        index = (
            int(math.log(seconds / self.SMALLEST_SECONDS, self.GROWTH))
            if seconds > self.SMALLEST_SECONDS
            else 0
        )
        self._counts[min(index, self.BUCKETS - 1)] += 1
        self.count += 1
        self.sum_seconds += seconds
        self.min_seconds = min(self.min_seconds, seconds)
        self.max_seconds = max(self.max_seconds, seconds)

    def quantile(self, share: float) -> float | None:
        """Return the seconds that `share` (0 to 1) of the durations do not exceed, if any."""
        left = math.ceil(share * self.count)
        for index, count in enumerate(self._counts):
            left -= count
            if count and left <= 0:
                # a bucket's middle may lie outside of what was measured
                middle: float = self.SMALLEST_SECONDS * self.GROWTH ** (index + 0.5)
                return min(max(middle, self.min_seconds), self.max_seconds)
        return None

    def snapshot(self) -> dict[str, Any]:
        """Return count, mean and quantiles; all in seconds, `None` where nothing was counted."""
        if not self.count:
            return {
                "count": 0,
                "mean": None,
                "min": None,
                "p50": None,
                "p95": None,
                "p99": None,
                "max": None,
            }
        return {
            "count": self.count,
            "mean": self.sum_seconds / self.count,
            "min": self.min_seconds,
            **{f"p{percent}": self.quantile(percent / 100) for percent in (50, 95, 99)},
            "max": self.max_seconds,
        }


class Timeline:
    """Counts over time, in at most `CELLS` cells.

    A cell is one second wide until there are too many; then every two are merged into one.
    """

    CELLS = 512

    def __init__(self, kinds: tuple[str, ...]) -> None:
        self._kinds = {kind: index for index, kind in enumerate(kinds)}
        self._cells: list[list[int]] = []
        self.cell_seconds = 1

    def add(self, kind: str, at_seconds: float) -> None:
        """Count one event of a kind, so many seconds after the beginning."""
        while (index := int(max(at_seconds, 0) / self.cell_seconds)) >= self.CELLS:
            self._halve()
        while len(self._cells) <= index:
            self._cells.append([0] * len(self._kinds))
        self._cells[index][self._kinds[kind]] += 1

    def snapshot(self) -> dict[str, Any]:
        """Return the width of a cell in seconds, and the counts of each kind, oldest first."""
        columns = {
            kind: [cell[index] for cell in self._cells] for kind, index in self._kinds.items()
        }
        return {"cell_seconds": self.cell_seconds, **columns}

    def _halve(self) -> None:
        # an empty cell completes the last pair of an odd number
        pairs = zip(self._cells[::2], [*self._cells[1::2], [0] * len(self._kinds)], strict=False)
        self._cells = [[one + other for one, other in zip(*pair, strict=True)] for pair in pairs]
        self.cell_seconds *= 2


@dataclass(slots=True)
class PendingRequest:
    """A request in flight; identifies it in every later call."""

    name: str
    """Method and path, for examples of failures."""
    began: float
    first_byte_seconds: float | None = None
    status: int | None = None
    """The status of its answer, once the headers have arrived."""
    is_over: bool = False


@dataclass(slots=True)
class _Outage:
    began: float
    ended: float | None = None


@dataclass(slots=True)
class _State:
    requests: int = 0
    answered: int = 0
    failed: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    busy_seconds: float = 0.0
    """How long at least one request was in flight, up to `busy_since`."""
    busy_since: float = 0.0
    """Since when one is, while `in_flight` is not 0."""
    outages: int = 0
    returns: int = 0
    statuses: dict[int, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    repeats: dict[str, int] = field(default_factory=dict)


class Record:
    """The requests to one server and their outcomes.

    Args:
        clock: Returns seconds that never go back.
        wall_clock: Returns seconds since the epoch, for the times that a report shows.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._began = clock()
        self._epoch = wall_clock()
        self._state = _State()
        self._latency = Histogram()
        self._first_byte = Histogram()
        self._timeline = Timeline(("begun", "answered", "failed"))
        self._failures: list[dict[str, Any]] = []
        self._outages: list[_Outage] = []

    # Requests

    def begin(self, name: str) -> PendingRequest:
        """Record that a request begins.

        Its duration includes every wait, such as that for a server that went away.

        Args:
            name: The method and path of the request.
        """
        now = self._clock()
        with self._lock:
            state = self._state
            state.requests += 1
            if not state.in_flight:
                state.busy_since = now
            state.in_flight += 1
            state.most_in_flight = max(state.most_in_flight, state.in_flight)
            self._timeline.add("begun", now - self._began)
        return PendingRequest(name, now)

    def repeat(self, reason: str) -> None:
        """Record that a request is sent again; `reason` is the name of an error, or a status."""
        with self._lock:
            self._state.repeats[reason] = self._state.repeats.get(reason, 0) + 1

    def first_byte(self, request: PendingRequest) -> None:
        """Record that the first byte of a streamed answer arrived; later calls change nothing."""
        # without the lock, because only the reader of this answer calls it
        if request.first_byte_seconds is None:
            request.first_byte_seconds = self._clock() - request.began

    def end(self, request: PendingRequest, error: BaseException | None = None) -> None:
        """Record that a request is over; later calls change nothing.

        Args:
            request: The request.
            error: What ended it early. Without one, its status decides whether it succeeded.
        """
        now = self._clock()
        with self._lock:
            # the body reports its own end, and so does the client that closes it
            if request.is_over:
                return
            request.is_over = True
            state = self._state
            state.in_flight -= 1
            if not state.in_flight:
                state.busy_seconds += now - state.busy_since
            status = request.status
            if status is not None:
                state.statuses[status] = state.statuses.get(status, 0) + 1
            if error is None and status is not None and status < 400:
                self._succeed(request, now)
            else:
                self._fail(request, now, error)

    def _succeed(self, request: PendingRequest, now: float) -> None:
        self._state.answered += 1
        self._latency.add(now - request.began)
        if request.first_byte_seconds is not None:
            self._first_byte.add(request.first_byte_seconds)
        self._timeline.add("answered", now - self._began)

    def _fail(self, request: PendingRequest, now: float, error: BaseException | None) -> None:
        self._state.failed += 1
        self._timeline.add("failed", now - self._began)
        kind = type(error).__name__ if error is not None else f"status {request.status}"
        self._state.errors[kind] = self._state.errors.get(kind, 0) + 1
        if len(self._failures) < MAX_FAILURES:
            failure = {
                "at": self._at(now),
                "seconds": now - request.began,
                "request": request.name,
                "error": kind,
            }
            self._failures.append(
                {**failure, "text": str(error)[:MAX_TEXT] if error is not None else ""}
            )

    # Outages

    def server_left(self) -> None:
        """Record that the server does not answer; ignored if that is known already."""
        with self._lock:
            if self._state.outages == self._state.returns:
                self._state.outages += 1
                if len(self._outages) < MAX_OUTAGES:
                    self._outages.append(_Outage(self._clock()))

    def server_returned(self) -> None:
        """Record that the server answers; ignored if it was not away."""
        with self._lock:
            if self._state.outages > self._state.returns:
                self._state.returns += 1
                # beyond the limit, the last one listed is not the one that ends now
                if self._outages and self._state.returns <= MAX_OUTAGES:
                    self._outages[-1].ended = self._clock()

    @property
    def outages(self) -> tuple[int, int]:
        """How often the server went away, and how often it came back."""
        with self._lock:
            return self._state.outages, self._state.returns

    def _at(self, now: float) -> float:
        return self._epoch + now - self._began

    def snapshot(self) -> dict[str, Any]:
        """Return everything as plain JSON; times in seconds since the epoch, durations in seconds.

        Latencies cover requests that succeeded, from the call to the last byte of the answer,
        including every wait and retry. Only streamed answers have a latency to the first byte.
        """
        with self._lock:
            state, now = self._state, self._clock()
            return {
                "version": 1,
                "began": self._epoch,
                "seconds": now - self._began,
                "requests": state.requests,
                "answered": state.answered,
                "failed": state.failed,
                "repeats": dict(state.repeats),
                "in_flight": state.in_flight,
                "most_in_flight": state.most_in_flight,
                "busy_seconds": state.busy_seconds
                + (now - state.busy_since if state.in_flight else 0.0),
                "statuses": {
                    str(status): count for status, count in sorted(state.statuses.items())
                },
                "errors": dict(state.errors),
                "failures": [dict(failure) for failure in self._failures],
                "latency_seconds": self._latency.snapshot(),
                "first_byte_seconds": self._first_byte.snapshot(),
                "timeline": self._timeline.snapshot(),
                "outages": [
                    {
                        "began": self._at(one.began),
                        "ended": None if one.ended is None else self._at(one.ended),
                    }
                    for one in self._outages
                ],
                "outage_count": state.outages,
            }


_RECORDS: dict[str, Record] = {}
_LOCK = threading.Lock()


def record_of(url: str) -> Record:
    """Return the record of the server at `url`, the same for every caller in this process."""
    with _LOCK:
        return _RECORDS.setdefault(url, Record())
