"""The frozen numbers of a report, and values computed from them without I/O.

Texts of a task, a server or a model are unescaped here; `page` escapes them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from .json_fields import to_json
from .metrics import INTERVAL_SECONDS
from .snapshots import BatchStats, ClientStats, ColdStart, MetricsWindow, ServerInfo

__all__ = [
    "VERSION",
    "Advice",
    "IdleTime",
    "ReportData",
    "ServerData",
    "idle_time",
    "most_in_flight",
    "request_count",
]

VERSION = 1
"""The version of the JSON; incremented if a reader of the old form would misread the new one."""


@dataclass(frozen=True, kw_only=True)
class Advice:
    """One thing to change, and why."""

    rule: str
    """A short, stable name, for programs that read the JSON."""
    severity: int
    """3: something failed; 2: time or money is lost; 1: good to know."""
    title: str
    """The observation, as a sentence without a full stop."""
    evidence: str
    """The numbers that support it."""
    action: str
    """What to do."""


@dataclass(frozen=True, kw_only=True)
class ServerData:
    """One model server."""

    name: str = ""
    """Its name in a pod with several."""
    about: ServerInfo = field(default_factory=ServerInfo)
    cold_start: ColdStart | None = None
    """`None` if no gate ran."""
    clients: ClientStats = field(default_factory=ClientStats)
    batches: tuple[BatchStats, ...] = ()
    """In the order in which they ended."""
    metrics: MetricsWindow | None = None
    """`None` if the metrics were not sampled."""
    advice: tuple[Advice, ...] = ()
    """The most urgent first."""


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything that a report shows."""

    version: int = VERSION
    title: str = "Inference"
    made: float
    """Seconds since the epoch."""
    running: bool = False
    """Whether the task was still running."""
    error: str = ""
    """The exception of the task's function; empty if there was none."""
    servers: tuple[ServerData, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values; NaN and infinity, which JSON lacks, become `None`."""
        value: dict[str, Any] = to_json(self)
        for server in value["servers"]:
            about = server["about"].items()
            server["about"] = {name: fact for name, fact in about if fact not in ("", None)}
        return value

    def to_json(self) -> str:
        """Return it as JSON."""
        return json.dumps(self.to_dict(), allow_nan=False) + "\n"


def request_count(server: ServerData) -> int:
    """Return how many requests the task made: those of its clients, and the rows of batches."""
    return server.clients.requests + sum(batch.rows for batch in server.batches)


def most_in_flight(server: ServerData) -> int:
    """Return the most requests that the task's clients and batches had in flight."""
    points = (point.in_flight or 0 for batch in server.batches for point in batch.concurrency)
    most = (batch.most_in_flight for batch in server.batches)
    return max(server.clients.most_in_flight, *points, *most, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class IdleTime:
    """How long a server was idle, out of the observed time."""

    seconds: float
    """For certain."""
    observed: float
    unsure: float = 0.0
    """How much longer it may have been idle: the source cannot tell."""
    is_told_by_server: bool
    """Whether the source is the server's metrics; otherwise it is the clients' record."""

    @property
    def source(self) -> str:
        """The source and its resolution, as they follow the word `by` in a sentence."""
        own = f"its own metrics, read every {INTERVAL_SECONDS:g} s"
        return own if self.is_told_by_server else "what the clients sent"


def idle_time(server: ServerData) -> IdleTime | None:
    """Return how long the server was idle.

    The clients know it exactly: when at least one request was in flight. They do not know of
    others. So the server's own metrics count where nobody here sent a request, or where they show
    more work than the clients sent. Those are samples: in a stretch in which a counter moved and
    nothing runs at its end, the server worked for an unknown part.

    Returns:
        `None` if neither covers any time.
    """
    clients, metrics = server.clients, server.metrics
    by_clients = by_server = None
    if clients.requests and clients.busy_seconds is not None and clients.seconds:
        # requests that wait for a server that went away are no work, and it is not idle either
        away = sum((outage.ended or clients.ended) - outage.began for outage in clients.outages)
        observed = max(clients.seconds - away, 0.0)
        busy = max(clients.busy_seconds - away, 0.0)
        by_clients = IdleTime(
            seconds=max(observed - busy, 0.0), observed=observed, is_told_by_server=False
        )
    if metrics and metrics.times.seen:
        times = metrics.times
        by_server = IdleTime(
            seconds=times.idle, observed=times.seen, unsure=times.unsure, is_told_by_server=True
        )
    if by_clients is None or by_server is None:
        return by_clients or by_server
    busy_for_certain = by_server.observed - by_server.seconds - by_server.unsure
    busy_for_clients = by_clients.observed - by_clients.seconds
    # each stretch in which the server is busy may be wrong by one interval at both of its ends
    is_asked_by_others = busy_for_certain > 1.5 * busy_for_clients + 2 * INTERVAL_SECONDS
    return by_server if is_asked_by_others else by_clients
