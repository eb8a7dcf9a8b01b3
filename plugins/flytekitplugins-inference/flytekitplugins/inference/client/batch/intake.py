"""Moves rows from the input to the queue, unless the journal has their answers.

It never reads more rows than are about to be needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .alarm import Alarm
from .feed import AsyncFeed, Feed, ThreadFeed
from .progress import Counts
from .recorder import Files, Recorder
from .row_queue import RowQueue
from .rows import IdSource, Row, RowSource, identify


class Intake:
    """Reads the rows of one run. Made and used on one event loop.

    Args:
        source: The input.
        id_source: The column or function of a row's id; None to identify rows by content.
        files: The journal, which knows the rows that an earlier run finished.
        queue: Receives the rows to send.
        recorder: Receives the rows that are finished already.
        counts: Updated with the rows that were read.
        wake: Rung when there are rows to send, or no more will come.
        say: Writes a line for the user.
    """

    def __init__(
        self,
        source: RowSource,
        id_source: IdSource | None,
        files: Files,
        *,
        queue: RowQueue,
        recorder: Recorder,
        counts: Counts,
        wake: Alarm,
        say: Callable[[str], None],
    ) -> None:
        self._source = source
        self._id_source = id_source
        self._files = files
        self._queue = queue
        self._recorder = recorder
        self._counts = counts
        self._wake = wake
        self._say = say
        self._warned = False
        counts.total = source.total

    async def run(self) -> None:
        """Read all rows.

        Raises:
            Exception: The error of the input.
        """
        values = self._source.values
        feed: Feed = ThreadFeed(values) if isinstance(values, Iterator) else AsyncFeed(values)
        try:
            await self._queue.is_low.wait()
            while batch := await feed.take():
                todo, resumed = await self._files.disk.call(
                    self._register, batch, self._counts.read
                )
                self._take_in(todo, resumed)
                await self._queue.is_low.wait()
        finally:
            feed.close()
        self._counts.total = self._counts.read
        self._recorder.end_input()
        self._queue.close()
        self._wake.ring()

    def _register(self, values: list[Any], position: int) -> tuple[list[Row], list[bool]]:
        """Look rows up in the journal. Runs in the disk's thread."""
        rows = [
            identify(value, position + number, self._id_source)
            for number, value in enumerate(values)
        ]
        return self._files.journal.register(rows)

    def _take_in(self, todo: list[Row], resumed: list[bool]) -> None:
        self._counts.read += len(todo) + len(resumed)
        if resumed:
            self._recorder.resume(resumed)
        for row in todo:
            if row.incomparable and not self._warned:
                self._warned = True
                self._say(
                    f"row {row.position + 1} holds a value of type {row.incomparable}, which "
                    "cannot be compared between runs: a row that changed only there keeps its "
                    "earlier answer"
                )
            if row.fault is not None:
                self._recorder.finish(row, row.fault, 0.0)
        self._queue.add(row for row in todo if row.fault is None)
        self._wake.ring()
