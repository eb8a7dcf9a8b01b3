"""Helpers for threads and concurrent tasks."""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


class Worker:
    """A thread for blocking calls, which it makes one after another.

    Unlike a thread of an executor it is a daemon: a disk or a store that never answers does not
    keep the process alive after Ctrl-C.

    Its calls see the context variables of its creator: flytekit keeps the task's context in one.

    Args:
        name: The thread's name, for debuggers.
    """

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._run,), name=name, daemon=True).start()

    async def call(self, function: Callable[..., Result], *args: Any) -> Result:
        """Return the result of `function` in the thread, or raise its exception."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()

        def settle(result: Any, error: BaseException | None) -> None:
            if future.cancelled():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        def work() -> None:
            result, failure = None, None
            try:
                result = function(*args)
            except StopIteration as error:  # a future refuses it
                failure = RuntimeError(f"{function} raised StopIteration")
                failure.__cause__ = error
            except BaseException as error:  # passed on to the task that awaits the call
                failure = error  # type: ignore[assignment]
            # a run that was stopped does not wait for a disk or a store that hangs
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, result, failure)

        self._calls.put(work)
        return await future

    def close(self) -> None:
        """End the thread after the queued calls."""
        self._calls.put(None)

    def _run(self) -> None:
        while (work := self._calls.get()) is not None:
            work()


async def until_done(work: list[asyncio.Task[None]], beside: list[asyncio.Task[None]]) -> None:
    """Wait until all of `work` is done; raise as soon as any task fails."""
    pending = {*work, *beside}
    while not pending.isdisjoint(work):
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()


async def end_tasks(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel tasks, and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
