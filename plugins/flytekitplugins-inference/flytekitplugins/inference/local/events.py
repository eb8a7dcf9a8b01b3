"""The history of a pod: an append-only list of events.

An event concerns one container, or the pod as a whole (container `pod`). Details never contain the
value of an environment variable. Seconds count from the start of the pod.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal, Protocol

Kind = Literal[
    "noted",
    "pulling",
    "pulled",
    "started",
    "passed",
    "ready",
    "unready",
    "unhealthy",
    "exited",
    "restarting",
    "stopping",
    "killed",
    "stopped",
    "ended",
]
"""The kinds of events.

`noted`: the local run differs from the manifest · `pulling`, `pulled`: its image is downloaded ·
`started`: it runs (the primary: the body of the `with` block) ·
`passed`: its startup probe succeeded · `ready`, `unready`: its readiness probe changed ·
`unhealthy`: a probe failed too often, so it is stopped · `exited`: all its processes have ended ·
`restarting`: it will be started again · `stopping`: it got SIGTERM · `killed`: it got SIGKILL ·
`ended`: the body of the `with` block has ended · `stopped`: all containers have ended.
"""

POD = "pod"
"""The `container` of events that concern the pod as a whole, and the prefix of its lines in the
output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One fact in the history of a pod."""

    seconds: float
    """Seconds since the pod was started."""
    container: str
    """The container's name, or `pod`."""
    kind: Kind
    """What happened."""
    detail: str = ""
    """More about it, for a person; for `exited` the exit code comes first."""

    def __str__(self) -> str:
        text = f"{self.seconds:8.1f} s  {self.container}: {self.kind}"
        return f"{text} ({self.detail})" if self.detail else text


class Clock(Protocol):
    """A source of time."""

    def __call__(self) -> float:
        """Return seconds that never run backwards."""
        ...


class History:
    """The events of one pod so far.

    Args:
        clock: The source of time.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        # several threads append without a lock: `list.append` is atomic in CPython
        self._events: list[Event] = []

    def record(self, container: str, kind: Kind, detail: str = "") -> None:
        """Add an event that happens now."""
        seconds = self._clock() - self._began
        self._events.append(Event(seconds=seconds, container=container, kind=kind, detail=detail))

    @property
    def events(self) -> tuple[Event, ...]:
        """All events so far, oldest first."""
        return tuple(self._events)
