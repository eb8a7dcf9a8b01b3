"""The back-off between restarts of a sidecar."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """The waits before restarts of a sidecar.

    As on a kubelet, the first restart is immediate and the waits double after that. They start at
    one second instead of ten and end at half a minute instead of five, because a person is waiting.
    """

    base_seconds: float = 1.0
    """Seconds before the second restart in a row."""
    cap_seconds: float = 30.0
    """Maximum seconds before a restart."""
    reset_seconds: float = 600.0
    """A run of this length resets the count of ends in a row."""

    def delay(self, ends: int) -> float:
        """Return the seconds before the restart that follows the given number of ends in a row."""
        if ends <= 1:
            return 0.0
        # bounded: `2.0 ** n` raises OverflowError from 1024 on
        doublings = min(ends - 2, 32)
        return min(self.cap_seconds, self.base_seconds * 2.0**doublings)
