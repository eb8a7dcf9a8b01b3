"""Reads the input ahead of the run, by at most a few hundred values."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any, Protocol

SIZE = 512
"""Values that are read ahead."""


class Feed(Protocol):
    """An input."""

    async def take(self) -> list[Any]:
        """Return the values that have arrived, or wait for the first; an empty list after the last.

        Raises:
            Exception: The error of the input, once all values before it were taken.
        """

    def close(self) -> None:
        """Read no more."""


class ThreadFeed:
    """An iterator, read in its own thread, because its next value may take long.

    The thread is a daemon: an input that never yields its next value does not keep a process alive
    after Ctrl-C.
    """

    def __init__(self, values: Iterator[Any]) -> None:
        self._values = values
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._changed = threading.Condition()
        self._buffer: list[Any] = []
        self._over = False
        """The input has ended, or was closed."""
        self._error: BaseException | None = None
        run = contextvars.copy_context().run
        threading.Thread(target=run, args=(self._run,), name="batch-input", daemon=True).start()

    async def take(self) -> list[Any]:
        """Return the values that have arrived."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            with self._changed:
                values, self._buffer = self._buffer, []
                over = self._over
                self._changed.notify()
            if over:
                # no later value sets it, and every further `take` must return at once
                self._ready.set()
            if values:
                return values
            if over and self._error is not None:
                raise self._error
            if over:
                return []

    def close(self) -> None:
        """Read no more."""
        with self._changed:
            self._over = True
            self._changed.notify()

    def _run(self) -> None:
        try:
            for value in self._values:
                if not self._put(value):
                    return
        except BaseException as error:  # `take` raises it
            # set before `_over`, which tells `take` that nothing more will change
            self._error = error
        with self._changed:
            self._over = True
        self._wake()

    def _put(self, value: Any) -> bool:
        with self._changed:
            while len(self._buffer) >= SIZE and not self._over:
                self._changed.wait()
            self._buffer.append(value)
            if len(self._buffer) == 1:
                self._wake()
            return not self._over

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, so no task waits any more
            self._loop.call_soon_threadsafe(self._ready.set)


class AsyncFeed:
    """An asynchronous iterator, read by a task."""

    def __init__(self, values: AsyncIterator[Any]) -> None:
        self._values = values
        self._buffer: list[Any] = []
        self._ready = asyncio.Event()
        self._room = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def take(self) -> list[Any]:
        """Return the values that have arrived."""
        await self._ready.wait()
        values, self._buffer = self._buffer, []
        self._room.set()
        if not self._task.done():
            self._ready.clear()
        elif not values:
            self._task.result()
        return values or ([] if self._task.done() else await self.take())

    def close(self) -> None:
        """Read no more."""
        self._task.cancel()

    async def _run(self) -> None:
        try:
            async for value in self._values:
                self._buffer.append(value)
                self._ready.set()
                while len(self._buffer) >= SIZE:
                    self._room.clear()
                    await self._room.wait()
        finally:
            asyncio.get_running_loop().call_soon(self._ready.set)  # after this task is done
