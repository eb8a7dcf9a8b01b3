"""A batch on the running event loop."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Generator
from itertools import islice
from typing import Any

from ...errors import ConfigError
from .batch_options import BatchArguments
from .opening import open_run
from .result import BatchResult
from .runner import Runner

_RECORDS_AT_ONCE = 256
"""Records that an `async for` reads from the journal at once."""


class AsyncBatch:
    """A batch that is awaited, or iterated over. Each starts it, so it is done once."""

    def __init__(self, arguments: BatchArguments) -> None:
        self.result: BatchResult | None = None
        """Once it is over."""
        self._arguments = arguments
        self._started = False
        self._is_stopped = False
        self._task: asyncio.Task[Any] | None = None
        self._runner: Runner | None = None

    def __await__(self) -> Generator[Any, None, BatchResult]:
        return self._run().__await__()

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        self._start()
        async with open_run(self._arguments) as (runner, make_result):
            run = asyncio.create_task(runner.run())
            try:
                async for record in _records(runner, run):
                    yield record
                await run
                self.result = make_result()
            finally:
                # the caller may have left its loop over the records early
                run.cancel()
                await asyncio.gather(run, return_exceptions=True)

    async def _run(self) -> BatchResult:
        self._start()
        self._task = asyncio.current_task()
        if self._is_stopped:
            # a signal arrived between the thread's start and this
            raise asyncio.CancelledError
        async with open_run(self._arguments) as (runner, make_result):
            self._runner = runner
            await runner.run()
            self.result = make_result()
        return self.result

    def stop(self) -> None:
        """Stop an awaited batch in order, or immediately on the second call.

        Call it on the event loop of the batch. Whoever awaits the batch gets `CancelledError`.
        """
        if self._runner is not None and not self._is_stopped:
            self._runner.stop()
        elif self._task is not None:
            self._task.cancel()
        self._is_stopped = True

    def say_how_to_continue(self) -> None:
        """Tell the user after Ctrl-C or SIGTERM that no finished work is lost."""
        if self._arguments.output is not None and self._arguments.resume:
            sys.stderr.write("batch: stopped; what is finished is kept, the same call continues\n")

    def _start(self) -> None:
        if self._started:
            raise ConfigError(
                "This batch was started before.",
                hint="Call abatch again; it continues what is there.",
            )
        self._started = True


async def _records(runner: Runner, run: asyncio.Task[None]) -> AsyncIterator[dict[str, Any]]:
    """Yield the records in order as they arrive, until the run is over."""
    journal, disk = runner.parts.files.journal, runner.parts.files.disk
    first = 0

    def read() -> list[tuple[int, bool, str]]:
        return list(islice(journal.in_order(first), _RECORDS_AT_ONCE))

    while True:
        # read before the journal: a record written after the last read must not be missed
        is_over = run.done()
        runner.recorder.written.clear()
        records = await disk.call(read)
        for position, _, record in records:
            yield {"index": position, **json.loads(record)}
        first += len(records)
        if not records and is_over:
            return
        if not records:
            await runner.recorder.written.wait()
