"""An event that can also be set by a timer."""

from __future__ import annotations

import asyncio

_MARGIN_SECONDS = 0.001
"""A timer of asyncio may fire too early by the resolution of its clock."""


class Alarm:
    """Wakes one task, now or later. Used on one event loop."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def ring(self) -> None:
        """Wake the waiting task, or the next one that waits."""
        self._event.set()

    def ring_in(self, seconds: float) -> None:
        """Ring after `seconds`, unless a timer rings earlier."""
        loop = asyncio.get_running_loop()
        moment = loop.time() + seconds + _MARGIN_SECONDS
        if self._timer is not None and loop.time() < self._timer.when() <= moment:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(moment, self.ring)

    async def wait(self) -> None:
        """Return when it rings, at once when it has since the last `clear`."""
        await self._event.wait()

    def clear(self) -> None:
        """Forget that it rang."""
        self._event.clear()
