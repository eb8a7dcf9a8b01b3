"""How long a sidecar that ended waits to be started again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """When a sidecar that ended is started again.

    As on a kubelet the first restart is immediate and the waits double after that; but from one
    second instead of ten, and up to half a minute instead of five, because somebody is watching.
    """

    base_seconds: float = 1.0
    """Seconds before the second restart in a row."""
    cap_seconds: float = 30.0
    """Seconds at most."""
    reset_seconds: float = 600.0
    """A run that lasts so long clears the count of the ends before it."""

    def delay(self, ends: int) -> float:
        """Return the seconds before the restart that follows the given number of ends in a row."""
        if ends <= 1:
            return 0.0
        doublings = min(ends - 2, 32)  # a float has an end
        return min(self.cap_seconds, self.base_seconds * 2.0**doublings)
