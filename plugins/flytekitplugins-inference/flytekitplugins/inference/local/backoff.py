"""How long a sidecar that ended waits to be started again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """When a sidecar that ended is started again.

    As on a kubelet the first restart is immediate and the waits double after that; but from one
    second instead of ten, and up to half a minute instead of five, because somebody is watching.
    """

    base: float = 1.0
    """Seconds before the second restart in a row."""
    cap: float = 30.0
    """Seconds at most."""
    reset: float = 600.0
    """A run of this many seconds is forgiven all before it."""

    def delay(self, ends: int) -> float:
        """Return the seconds before the restart that follows the given number of ends in a row."""
        return 0.0 if ends <= 1 else min(self.cap, self.base * 2.0 ** min(ends - 2, 32))
