"""What happened in a pod, as a list that only grows.

An event is a fact about one container, or about the pod as a whole (container `pod`). Details never
hold the value of an environment variable. Seconds count from the start of the pod.
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
"""What happened.

`noted`: what runs differs from the manifest · `pulling`, `pulled`: its image is brought ·
`started`: it runs (the primary: the body of the `with` block) ·
`passed`: its startup probe succeeded · `ready`, `unready`: its readiness probe changed ·
`unhealthy`: a probe failed so often that it is stopped · `exited`: nothing of it runs any more ·
`restarting`: it will be started again · `stopping`: it got SIGTERM · `killed`: it got SIGKILL ·
`ended`: the body of the `with` block is over · `stopped`: nothing of the pod runs any more.
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
    """Where time comes from."""

    def __call__(self) -> float:
        """Return seconds that never run backwards."""
        ...


class History:
    """The events of one pod so far.

    Args:
        clock: Where time comes from.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._events: list[
            Event
        ] = []  # appended to by several threads, which CPython's lists allow

    def record(self, container: str, kind: Kind, detail: str = "") -> None:
        """Add an event that happens now."""
        seconds = self._clock() - self._began
        self._events.append(Event(seconds=seconds, container=container, kind=kind, detail=detail))

    @property
    def events(self) -> tuple[Event, ...]:
        """All events so far, oldest first."""
        return tuple(self._events)
