"""Waits for a server that went away.

However many requests wait, a single thread polls the server until it is back.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
import time
from enum import Enum
from typing import TYPE_CHECKING

from . import health

if TYPE_CHECKING:
    from .health import HealthAnswer
    from .record import Record

__all__ = ["Finding", "OutageWatch", "watch_of"]

FIRST_PAUSE_SECONDS = 0.05
MAX_PAUSE_SECONDS = 1.0
"""The longest pause between two questions: rare enough not to disturb a server that loads its model
for a minute, and short enough to notice within a second that it is ready."""


class Finding(Enum):
    """The outcome of waiting for a server."""

    THERE = "there"
    """The server had not been away."""
    BACK = "back"
    """The server had been away and answers again."""
    AWAY = "away"
    """The server does not answer."""


class OutageWatch:
    """Polls one server while requests wait for it, from any thread or event loop.

    Args:
        url: The readiness address.
        api_key: Sent with each question.
        record: Notified when the server goes away and comes back.
    """

    def __init__(self, url: str, *, api_key: str, record: Record) -> None:
        self._url = url
        self._api_key = api_key
        self._record = record
        self._lock = threading.Lock()
        self._waiting = 0
        self._future: concurrent.futures.Future[Finding] | None = None
        self.last: HealthAnswer | None = None
        """What the server answered last; `None` before the first question."""

    def wait(self, seconds: float) -> Finding:
        """Wait until the server answers, for at most `seconds`."""
        future = self._join()
        try:
            return future.result(max(seconds, 0))
        except concurrent.futures.TimeoutError:
            return Finding.AWAY
        finally:
            self._leave()

    async def wait_async(self, seconds: float) -> Finding:
        """As `wait`, in an event loop of asyncio."""
        future = self._join()
        try:
            return await asyncio.wait_for(_in_loop(future), max(seconds, 0))
        except (asyncio.TimeoutError, TimeoutError):  # two classes before Python 3.11
            return Finding.AWAY
        finally:
            self._leave()

    def _join(self) -> concurrent.futures.Future[Finding]:
        with self._lock:
            self._waiting += 1
            if self._future is None:
                # a daemon: a server that never returns must not keep the process alive
                self._future = concurrent.futures.Future()
                threading.Thread(
                    target=self._ask, args=(self._future,), name="inference-outage", daemon=True
                ).start()
            return self._future

    def _leave(self) -> None:
        with self._lock:
            self._waiting -= 1

    def _ask(self, future: concurrent.futures.Future[Finding]) -> None:
        pause, finding = FIRST_PAUSE_SECONDS, Finding.THERE
        while True:
            answer = self.last = health.ask(self._url, api_key=self._api_key)
            if answer.is_there:
                self._record.server_returned()
            else:
                self._record.server_left()
                # for every request that waits, also for those that joined after the server had left
                finding = Finding.BACK
            # under the lock, so that no request joins a thread that is about to end
            with self._lock:
                if answer.is_there or not self._waiting:
                    self._future = None
                    break
            time.sleep(pause)
            pause = min(2 * pause, MAX_PAUSE_SECONDS)
        if answer.is_there:
            # outside the lock: it calls back into event loops
            future.set_result(finding)


def _in_loop(future: concurrent.futures.Future[Finding]) -> asyncio.Future[Finding]:
    """Return a future of the running loop that is done when `future` is, and cannot cancel it."""
    loop = asyncio.get_running_loop()
    # not `asyncio.wrap_future`: cancelling its result would cancel `future`, which others share
    result: asyncio.Future[Finding] = loop.create_future()

    def finish() -> None:
        if not result.done():
            result.set_result(future.result())

    def notify(_: concurrent.futures.Future[Finding]) -> None:
        with contextlib.suppress(RuntimeError):  # a loop that was closed while it waited
            loop.call_soon_threadsafe(finish)

    future.add_done_callback(notify)
    return result


_WATCHES: dict[tuple[str, str], OutageWatch] = {}
_LOCK = threading.Lock()


def watch_of(url: str, *, api_key: str, record: Record) -> OutageWatch:
    """Return the watch of a readiness address, the same for every client in this process."""
    with _LOCK:
        return _WATCHES.setdefault((url, api_key), OutageWatch(url, api_key=api_key, record=record))
