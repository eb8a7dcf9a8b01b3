"""The frozen numbers of a report, and values computed from them without I/O.

Texts of a task, a server or a model are unescaped here; `page` escapes them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from .json_fields import to_json
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
    return max(server.clients.most_in_flight, max(points, default=0))


@dataclass(frozen=True, kw_only=True, slots=True)
class IdleTime:
    """How long a server was idle, out of the observed time."""

    seconds: float
    observed: float
    is_told_by_server: bool
    """Whether the source is the server's metrics; otherwise it is the clients' record."""

    @property
    def source(self) -> str:
        """The source, as it follows the word `by` in a sentence."""
        return "its own metrics" if self.is_told_by_server else "what the clients sent"


def idle_time(server: ServerData) -> IdleTime | None:
    """Return how long the server was idle.

    The server's own metrics take precedence: they include requests of other clients. Without them,
    a cell of the clients' timeline without a request in flight counts as idle.

    Returns:
        `None` if neither covers at least one cell.
    """
    if server.metrics and server.metrics.times.seen:
        times = server.metrics.times
        return IdleTime(seconds=times.idle, observed=times.seen, is_told_by_server=True)
    clients = server.clients
    if not clients.requests:
        return None
    timeline = clients.timeline
    counts = timeline.in_flight()
    pairs = zip([0, *counts], timeline.begun, strict=False)
    busy = sum(1 for before, new in pairs if before or new)
    cells = max(int(clients.seconds / timeline.cell_seconds), len(counts))
    # nothing happened after the end of the timeline, so requests in flight there still are
    quiet_after = cells - len(counts) if counts and not counts[-1] else 0
    return IdleTime(
        seconds=float((len(counts) - busy + quiet_after) * timeline.cell_seconds),
        observed=float(cells * timeline.cell_seconds),
        is_told_by_server=False,
    )
