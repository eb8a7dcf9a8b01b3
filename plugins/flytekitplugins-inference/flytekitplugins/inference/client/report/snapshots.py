"""Snapshots of a server, by their source. The names are those of the JSON.

A number that nobody told is `None`, or has the value that it has before anything happened.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

__all__ = [
    "REST",
    "BatchStats",
    "ClientLatency",
    "ClientStats",
    "ColdStart",
    "ColdStartPhase",
    "ConcurrencyPoint",
    "LatencySummary",
    "MetricsTimes",
    "MetricsWindow",
    "OutageSpan",
    "PhaseSpan",
    "RequestFailure",
    "RequestTimeline",
    "RowFailure",
    "ServerInfo",
]


@dataclass(frozen=True, kw_only=True)
class ServerInfo:
    """What was started; unknown facts are empty and left out of the JSON."""

    kind: str = ""
    """The template's class."""
    url: str = ""
    model: str = ""
    image: str = ""
    gpus: int | None = None
    cpu: str = ""
    mem: str = ""


# The start: the report of the server gate

REST = "rest"
"""The name of what belongs to no phase."""


@dataclass(frozen=True, kw_only=True)
class ColdStartPhase:
    """A phase, as the gate reports it."""

    name: str
    seconds: float
    started: str
    """ISO 8601, as is the next one."""
    ended: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseSpan:
    """When a phase was; both times in seconds since the first phase began."""

    name: str
    began: float
    ended: float

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.began


@dataclass(frozen=True, kw_only=True)
class ColdStart:
    """How the server started."""

    version: int = 1
    phases: tuple[ColdStartPhase, ...]
    """In the order in which they appeared."""
    total_seconds: float | None = None
    outcome: str = ""
    """`ready`, or the name of the event that ended the wait."""

    @property
    def rest_seconds(self) -> float:
        """How much of the start belongs to no phase: before, between and after them.

        Kubernetes schedules the pod, pulls images and starts containers in that time.
        """
        covered = end = 0.0
        for span in self.spans():
            covered += max(0.0, span.ended - max(span.began, end))
            end = max(end, span.ended)
        return max(self.seconds - covered, 0.0)

    @property
    def seconds(self) -> float:
        """How long the whole start took."""
        ended = max((span.ended for span in self.spans()), default=0.0)
        return max(self.total_seconds or 0.0, ended)

    @property
    def longest(self) -> PhaseSpan:
        """The longest part: a phase, or the rest, which has no place of its own in time."""
        rest = PhaseSpan(name=REST, began=0.0, ended=self.rest_seconds)
        return max(*self.spans(), rest, key=lambda span: span.seconds)

    def spans(self) -> list[PhaseSpan]:
        """Return the phases by when they began; those without readable times are left out."""
        spans: list[tuple[str, float, float]] = []
        for phase in self.phases:
            with contextlib.suppress(ValueError):
                began = datetime.fromisoformat(phase.started).timestamp()
                ended = datetime.fromisoformat(phase.ended).timestamp()
                # a wall clock may be set back between the two
                spans.append((phase.name, began, max(began, ended)))
        first = min((began for _, began, _ in spans), default=0.0)
        spans.sort(key=lambda span: span[1:])
        return [
            PhaseSpan(name=name, began=began - first, ended=ended - first)
            for name, began, ended in spans
        ]


# What the clients of this process saw: `Record.snapshot()`


@dataclass(frozen=True, kw_only=True)
class LatencySummary:
    """Durations in seconds; `None` where none was counted."""

    count: int = 0
    mean: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


@dataclass(frozen=True, kw_only=True)
class ClientLatency(LatencySummary):
    """Durations whose extremes are known too; a server's histogram does not contain them."""

    min: float | None = None
    max: float | None = None


@dataclass(frozen=True, kw_only=True)
class RequestTimeline:
    """Counts over time, oldest first; all of one length."""

    cell_seconds: int = 1
    begun: tuple[int, ...] = ()
    answered: tuple[int, ...] = ()
    failed: tuple[int, ...] = ()

    def in_flight(self) -> list[int]:
        """Return how many requests were in flight at the end of each cell."""
        count = 0
        counts = []
        for begun, answered, failed in zip(self.begun, self.answered, self.failed, strict=True):
            count += begun - answered - failed
            counts.append(count)
        return counts


@dataclass(frozen=True, kw_only=True)
class RequestFailure:
    """An example of a failed request."""

    at: float
    """Seconds since the epoch."""
    seconds: float
    request: str
    """Method and path."""
    error: str
    """The error's name, or `status 500`."""
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class OutageSpan:
    """When the server was away; both times in seconds since the epoch."""

    began: float
    ended: float | None = None
    """`None` while it is away."""


@dataclass(frozen=True, kw_only=True)
class ClientStats:
    """Requests and their outcomes; see `Record`."""

    version: int = 1
    began: float = 0.0
    """Seconds since the epoch."""
    seconds: float = 0.0
    requests: int = 0
    answered: int = 0
    failed: int = 0
    repeats: Mapping[str, int] = field(default_factory=dict)
    """By an error's name or a status."""
    in_flight: int = 0
    most_in_flight: int = 0
    busy_seconds: float | None = None
    """How long at least one request was in flight; `None` in a report of an earlier version."""
    statuses: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)
    failures: tuple[RequestFailure, ...] = ()
    latency_seconds: ClientLatency = ClientLatency()
    first_byte_seconds: ClientLatency = ClientLatency()
    timeline: RequestTimeline = RequestTimeline()
    outages: tuple[OutageSpan, ...] = ()
    outage_count: int = 0
    """May be more than are listed."""

    @property
    def ended(self) -> float:
        """When the snapshot was taken, in seconds since the epoch."""
        return self.began + self.seconds


# What a batch did: `BatchResult.summary()`


@dataclass(frozen=True, kw_only=True)
class ConcurrencyPoint:
    """A batch at one moment."""

    seconds: float
    """Since it began."""
    finished: int | None = None
    limit: int | None = None
    """Requests that were allowed at once."""
    in_flight: int | None = None
    rows_per_second: float | None = None


@dataclass(frozen=True, kw_only=True)
class RowFailure:
    """A failed row."""

    index: int | None = None
    id: Any = None
    kind: str = ""
    message: str = ""
    status: int | None = None


@dataclass(frozen=True, kw_only=True)
class BatchStats:
    """One batch."""

    path: str | None = None
    rows: int = 0
    succeeded: int = 0
    failed: int = 0
    resumed: int = 0
    retried: int = 0
    duration: float = 0.0
    """Seconds."""
    rows_per_second: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    tokens_per_second: float = 0.0
    most_in_flight: int = 0
    max_concurrency: int = 0
    """0 if it is not reported."""
    concurrency: tuple[ConcurrencyPoint, ...] = ()
    failures: tuple[RowFailure, ...] = ()


# What the server said of itself: `Sampler.snapshot()`


@dataclass(frozen=True, kw_only=True)
class MetricsTimes:
    """For how many seconds each condition held."""

    seen: float = 0.0
    """The number of running requests was known; of these the next four."""
    idle: float = 0.0
    """Nothing ran at the sample, and no counter had moved since the one before."""
    unsure: float = 0.0
    """Nothing ran at the sample, and a counter had moved: the server worked for a part of it."""
    waiting: float = 0.0
    """Requests waited in the server's queue."""
    cache_full: float = 0.0
    """More than 90 % of the KV cache were in use."""


@dataclass(frozen=True, kw_only=True)
class MetricsWindow:
    """The server's metrics from the first sample on; mappings are by quantity.

    A quantity that the server does not tell is in none of them.
    """

    began: float = 0.0
    """Seconds since the epoch."""
    seconds: float = 0.0
    answered: int = 0
    """Samples."""
    unanswered: int = 0
    restarts: int = 0
    totals: Mapping[str, float] = field(default_factory=dict)
    """By how much each counter grew, so that what a server did before does not count."""
    most: Mapping[str, float] = field(default_factory=dict)
    """The highest level of each gauge and ratio."""
    times: MetricsTimes = MetricsTimes()
    histograms: Mapping[str, LatencySummary] = field(default_factory=dict)
    series: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    """All of one length: `at` (seconds since the first sample) and `seconds` of each stretch; in it
    the mean of each gauge and ratio, and the increase of each counter. `None`: not told."""

    @property
    def at(self) -> tuple[float, ...]:
        """When each stretch of the series ends, in seconds since the first sample."""
        return tuple(moment or 0.0 for moment in self.series.get("at", ()))
