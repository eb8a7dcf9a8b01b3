"""Runs a batch on its own event loop in its own thread, while the caller waits.

It therefore works inside a running event loop too, which it blocks, and signals can stop it in
order, because the main thread only waits for an event.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading

from .async_batch import AsyncBatch
from .result import BatchResult
from .signals import stopped_by_signals


def run_in_thread(batch: AsyncBatch) -> BatchResult:
    """Run a batch in a thread, on an event loop of its own; Ctrl-C and SIGTERM stop it in order."""
    loop = asyncio.new_event_loop()
    outcome: list[BatchResult | BaseException] = []
    has_ended = threading.Event()  # `Thread.join` is not safe with signals: see `signals`

    async def main() -> BatchResult:
        return await batch

    def run() -> None:
        try:
            with contextlib.closing(loop):
                outcome.append(loop.run_until_complete(main()))
                loop.run_until_complete(loop.shutdown_asyncgens())
        except BaseException as error:  # raised again where the batch was called
            outcome.append(error)
        finally:
            has_ended.set()

    def stop() -> None:
        with contextlib.suppress(RuntimeError):  # it has just ended
            loop.call_soon_threadsafe(batch.stop)

    thread = threading.Thread(
        target=contextvars.copy_context().run, args=(run,), name="batch", daemon=True
    )
    with stopped_by_signals(stop) as interruption:
        thread.start()
        try:
            has_ended.wait()
            if interruption.number:
                batch.say_how_to_continue()
        except BaseException:  # raised by a handler of the caller, or by a second Ctrl-C
            stop()
            if not interruption.at_once:
                has_ended.wait()
            batch.say_how_to_continue()
            raise
    (result,) = outcome
    if isinstance(result, BaseException):
        raise result
    return result
