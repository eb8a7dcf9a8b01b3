"""The numbers of a report: frozen, plain JSON, and what can be computed from them without asking anybody.

What a task, a server or a model wrote is in here as it came; escaping belongs to `page`.
"""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

__all__ = [
    "VERSION",
    "Advice",
    "Phase",
    "ReportData",
    "ServerData",
    "asked",
    "idle",
    "in_flight",
    "most_in_flight",
    "phases",
]

VERSION = 1
"""Of the JSON; raised when a reader of the old form would misread the new one."""


@dataclass(frozen=True, kw_only=True)
class Advice:
    """One thing to change, and why."""

    rule: str
    """A short, stable name, for programs that read the JSON."""
    severity: int
    """3: something failed; 2: time or money is lost; 1: good to know."""
    title: str
    """What was found, as a sentence without a full stop."""
    evidence: str
    """The numbers it rests on."""
    action: str
    """What to do."""


@dataclass(frozen=True, kw_only=True)
class ServerData:
    """One model server."""

    name: str = ""
    """Its name in a pod with several."""
    about: dict[str, Any] = field(default_factory=dict)
    """What was started: `kind`, `url`, `model`, `image`, `gpus`, `cpu`, `mem`; what is not known is
    missing."""
    cold_start: dict[str, Any] | None = None
    """The server gate's report: `phases` (each with `name`, `seconds`, `started`, `ended`),
    `total_seconds`, `outcome`. `None` where no gate waited."""
    clients: dict[str, Any] = field(default_factory=dict)
    """`Record.snapshot()`: what the clients of this process saw."""
    batches: tuple[dict[str, Any], ...] = ()
    """`BatchResult.summary()` of each batch, in the order in which they ended."""
    metrics: dict[str, Any] | None = None
    """`Sampler.snapshot()`: what the server said of itself. `None` where it was not sampled."""
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
    """Whether the task was still at work."""
    error: str = ""
    """What the task's function raised; empty when it did not."""
    servers: tuple[ServerData, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it; what JSON does not have (NaN, infinity) is `None`."""
        value: dict[str, Any] = _plain(asdict(self))
        return value

    def to_json(self) -> str:
        """Return it as JSON."""
        return json.dumps(self.to_dict(), allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | None) else str(value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """A part of a cold start; both times in seconds since its first part began."""

    name: str
    began: float
    ended: float

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.began


def phases(cold_start: dict[str, Any] | None) -> list[Phase]:
    """Return the parts of a cold start in the order in which they began; those without readable times are left out."""
    spans: list[tuple[str, float, float]] = []
    for phase in (cold_start or {}).get("phases", ()):
        with contextlib.suppress(ValueError):
            began, ended = (
                datetime.fromisoformat(phase[key]).timestamp() for key in ("started", "ended")
            )
            spans.append((phase["name"], began, max(began, ended)))
    first = min((began for _, began, _ in spans), default=0.0)
    return sorted(
        (
            Phase(name=name, began=began - first, ended=ended - first)
            for name, began, ended in spans
        ),
        key=lambda phase: (phase.began, phase.ended),
    )


def asked(server: ServerData) -> int:
    """Return how many requests the task made, as far as is known: those of its clients, and the rows of batches."""
    rows = (batch.get("rows") for batch in server.batches)
    return int(server.clients.get("requests", 0)) + sum(
        count for count in rows if isinstance(count, int)
    )


def most_in_flight(server: ServerData) -> int:
    """Return how many requests the task had under way at most, by its clients and its batches."""
    points = (
        point.get("in_flight")
        for batch in server.batches
        for point in batch.get("concurrency") or ()
    )
    most = max((count for count in points if isinstance(count, int)), default=0)
    return max(most, int(server.clients.get("most_in_flight", 0)))


def in_flight(clients: dict[str, Any]) -> list[int]:
    """Return how many requests were under way at the end of each cell of the clients' timeline."""
    timeline = clients["timeline"]
    under_way = 0
    counts = []
    for begun, answered, failed in zip(
        timeline["begun"], timeline["answered"], timeline["failed"], strict=True
    ):
        under_way += begun - answered - failed
        counts.append(under_way)
    return counts


def idle(server: ServerData) -> tuple[float, float, str] | None:
    """Return the seconds in which the server had nothing to do, the seconds seen, and who says so.

    The server's own metrics go first: they know of requests from elsewhere. Without them, a cell of
    the clients' timeline in which no request was under way was idle.

    Returns:
        `None` when neither was seen for as long as a cell.
    """
    times = (server.metrics or {}).get("times", {})
    if times.get("seen"):
        return times["idle"], times["seen"], "server"
    clients = server.clients
    if not clients.get("requests"):
        return None
    width = clients["timeline"]["cell_seconds"]
    counts = in_flight(clients)
    begun = clients["timeline"]["begun"]
    busy = sum(1 for before, new in zip([0, *counts], begun, strict=False) if before or new)
    cells = max(int(clients["seconds"] / width), len(begun))
    quiet_after = cells - len(begun) if counts and not counts[-1] else 0
    return float((len(begun) - busy + quiet_after) * width), float(cells * width), "clients"
