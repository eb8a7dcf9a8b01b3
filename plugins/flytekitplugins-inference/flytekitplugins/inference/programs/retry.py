"""Retries and a pool of threads, for every program that downloads."""

from __future__ import annotations

import math
import random
import threading
import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from ..errors import InferenceError, SourceUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """Exponential back-off with full jitter.

    Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    attempts: int = 8
    """Number of attempts in total; with the default back-off they take about half a minute."""
    backoff_seconds: float = 0.5
    """Upper bound of the first wait; it doubles with each further one."""
    max_backoff_seconds: float = 20.0
    """Upper bound of every wait."""
    max_retry_after_seconds: float = 300.0
    """The longest `Retry-After` that is honoured. The hub counts requests in windows of five
    minutes."""
    until: float = math.inf
    """No attempt begins after this moment of `time.monotonic()`."""

    def gives_up(self, attempt: int, error: InferenceError) -> bool:
        """Return whether attempt number `attempt` (from 1), which failed with `error`, is the last.

        It also is if the source's `Retry-After` is longer than the remaining time: an earlier
        attempt would be refused as well.
        """
        wish = retry_after_of(error)
        is_over = time.monotonic() + wish >= self.until or wish > self.max_retry_after_seconds
        return is_over or not error.retryable or attempt >= self.attempts

    def wait(
        self, attempt: int, stop: threading.Event, *, error: InferenceError | None = None
    ) -> None:
        """Wait before the next attempt, or until `stop` is set.

        Args:
            attempt: The number of the failed attempt, from 1.
            stop: Ends the wait early.
            error: Why it failed; its `Retry-After` may make the wait longer.
        """
        # full jitter: pods that one outage stopped together must not come back together
        bound = min(self.max_backoff_seconds, self.backoff_seconds * 2 ** (attempt - 1))
        # a little more than the source asks for, because other clients got the same answer
        wish = retry_after_of(error) * random.uniform(1, 1.1)  # noqa: S311 (no secret)
        stop.wait(max(random.uniform(0, bound), wish))  # noqa: S311 (no secret)

    def call(self, action: Callable[[], _T], stop: threading.Event) -> _T:
        """Return what `action` returns; try again on retryable errors."""
        attempt = 1
        while True:
            try:
                return action()
            except InferenceError as error:
                if self.gives_up(attempt, error) or stop.is_set():
                    raise
                failure = error
            self.wait(attempt, stop, error=failure)
            attempt += 1


def retry_after_of(error: InferenceError | None) -> float:
    """Return the seconds of a source's `Retry-After`; 0 for other errors, or without the header."""
    return error.retry_after_seconds if isinstance(error, SourceUnavailableError) else 0.0


class Crew:
    """A few threads that work through any number of tasks.

    Args:
        size: Number of threads.
        tick: Called every `tick_seconds` while they work.
        tick_seconds: See `tick`.
    """

    def __init__(
        self, size: int, tick: Callable[[], None] = lambda: None, *, tick_seconds: float = 5.0
    ) -> None:
        self._size = size
        self._tick = tick
        self._tick_seconds = tick_seconds
        self.stop = threading.Event()
        """Set when the work ends early; long waits and reads check it."""

    def run(self, tasks: Iterable[Callable[[], None]]) -> None:
        """Take `tasks` from the iterable one at a time, run them, and return when all are done.

        An exception, whether from SIGTERM or from a task, ends this without waiting for threads.
        """
        iterator, lock = iter(tasks), threading.Lock()

        def work() -> None:
            while not self.stop.is_set():
                # a generator raises ValueError if two threads advance it at the same time
                with lock:
                    task = next(iterator, None)
                if task is None:
                    return
                task()

        self.stop.clear()
        executor = ThreadPoolExecutor(self._size)
        try:
            pending = {executor.submit(work) for _ in range(self._size)}
            next_tick = time.monotonic() + self._tick_seconds
            while pending:
                done, pending = wait(
                    pending, timeout=self._tick_seconds, return_when=FIRST_COMPLETED
                )
                # `result` raises what a task raised; the values themselves are not used
                deque((future.result() for future in done), maxlen=0)
                if time.monotonic() >= next_tick:
                    self._tick()
                    next_tick = time.monotonic() + self._tick_seconds
        finally:
            # a thread in a blocking read ends later, by its stall timeout; nobody waits for it here
            self.stop.set()
            executor.shutdown(wait=False, cancel_futures=True)

    def map(
        self, action: Callable[[_T], object], items: Iterable[_T]
    ) -> list[tuple[_T, InferenceError]]:
        """Run `action` on every item and return those that failed."""
        failures: list[tuple[_T, InferenceError]] = []

        def task(item: _T) -> None:
            try:
                action(item)
            except InferenceError as error:
                failures.append((item, error))

        self.run(_bind(task, item) for item in items)
        return failures


# a lambda in the loop of `map` would see the loop's latest item, not its own
def _bind(task: Callable[[_T], None], item: _T) -> Callable[[], None]:
    return lambda: task(item)
