"""Waits for a server that went away; a single task polls it, however many rows wait."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from ...facts.wording import duration
from .availability import Availability


class Recovery:
    """Polls the server until it answers.

    Args:
        url: The server's address, for messages.
        is_up: The health check.
        availability: The state of the server.
        say: Writes a line for the user.
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
        """Whether the server is being polled, so that no request should be sent."""
        return self._task is not None

    async def wait(self) -> bool:
        """Wait for the server; return whether it had been away."""
        if self._task is None:
            self._task = asyncio.create_task(self._probe())
        return await asyncio.shield(self._task)  # other rows wait for the same task

    async def cancel(self) -> None:
        """Stop polling."""
        if self._task is not None:
            # for the case that no row waits any more: each waits behind a shield
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _probe(self) -> bool:
        while not await self._is_up():
            if not self._availability.is_away:
                patience = duration(self._availability.outage_seconds)
                self._say(
                    f"{self._url} {self._availability.trouble}; waiting up to {patience} for it"
                )
            pause = self._availability.probe_failed()
            await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311, not a secret
        was_away = self._availability.probe_answered()
        if was_away:
            self._say(f"{self._url} is back")
        self._task = None
        return was_away
