"""Waiting for a server that went away: one task asks for it, however many rows wait."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from ...facts.wording import duration
from .availability import Availability


class Recovery:
    """Asks whether the server is there, until it is.

    Args:
        url: The server's, for people.
        is_up: The health check.
        availability: What is known of the server.
        say: Writes a line for people.
    """

    def __init__(
        self,
        url: str,
        is_up: Callable[[], Awaitable[bool]],
        availability: Availability,
        say: Callable[[str], None],
    ) -> None:
        self._url = url
        self._is_up = is_up
        self._availability = availability
        self._say = say
        self._task: asyncio.Task[bool] | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether the server is being asked, so that nothing else should be sent."""
        return self._task is not None

    async def wait(self) -> bool:
        """Return, once the server is there, whether it had been away."""
        if self._task is None:
            self._task = asyncio.create_task(self._probe())
        return await asyncio.shield(self._task)

    async def cancel(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _probe(self) -> bool:
        while not await self._is_up():
            if not self._availability.is_away:
                patience = duration(self._availability.outage_seconds)
                self._say(f"{self._url} does not answer; waiting up to {patience} for it")
            pause = self._availability.probe_failed()
            await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311, not a secret
        was_away = self._availability.probe_answered()
        if was_away:
            self._say(f"{self._url} is back")
        self._task = None
        return was_away
