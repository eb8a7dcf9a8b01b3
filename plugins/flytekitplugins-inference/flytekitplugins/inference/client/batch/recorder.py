"""What is written: finished rows go to the journal, and from there in order to the output.

Rows that finish within a few milliseconds are committed together, since a commit costs about as
much for one as for hundreds. Whatever touches a file happens in the disk's thread.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

from ...errors import BatchFailedError
from .alarm import Alarm
from .faults import Fault
from .journal import Finished, Journal
from .output import OutputFile
from .progress import Counts
from .records import Failure, record_of_row
from .rows import Row
from .threads import Worker
from .work import RowAnswer

_GATHER_SECONDS = 0.002
"""Finished rows are gathered for this long before they are committed: what a kill may cost."""
_FAILURES_KEPT = 20


@dataclass(frozen=True, slots=True)
class Files:
    """Where results go, and the thread that may touch it."""

    journal: Journal
    output: OutputFile
    disk: Worker


class Recorder:
    """Writes the results of one run. Made and used on one event loop.

    Args:
        files: The journal and the output.
        counts: Kept true about rows that are finished.
        max_failures: More failed rows than this end the run; None for any number.
        wake: Rung whenever the backlog is shorter.
    """

    def __init__(
        self, files: Files, counts: Counts, *, max_failures: int | None, wake: Alarm
    ) -> None:
        self.failures: list[Failure] = []
        """The first ones."""
        self.written = asyncio.Event()
        """Set whenever records were written; whoever waits for it clears it."""
        self._files = files
        self._counts = counts
        self._max_failures = max_failures
        self._wake = wake
        self._finished: list[Finished] = []
        self._committing = 0
        self._position = 0
        """Of the record that is written next."""
        self._is_input_over = False
        self._has_news = asyncio.Event()

    @property
    def backlog(self) -> int:
        """Finished rows that are not on the disk yet."""
        return len(self._finished) + self._committing

    def finish(self, row: Row, outcome: RowAnswer | Fault, seconds: float) -> None:
        """Take a row's answer, or the fault that it failed with.

        Args:
            row: The row.
            outcome: What became of it.
            seconds: That its last request took.
        """
        fault = outcome if isinstance(outcome, Fault) else None
        try:
            record = record_of_row(row, outcome, seconds)
        except Exception as error:  # the output's own methods may raise anything
            fault = Fault("function", f"The output has no form as JSON: {error}.")
            record = record_of_row(row, fault, seconds)
        if fault is None:
            self._counts.succeeded += 1
        else:
            self._counts.failed += 1
        keep = fault is None or fault.final
        self._finished.append(Finished(row.key, row.content, keep, fault is not None, record))
        self._has_news.set()

    def resume(self, failed: list[bool]) -> None:
        """Count rows that an earlier run finished, and so are in the journal.

        Args:
            failed: Of each, whether it failed.
        """
        self._counts.resumed += len(failed)
        self._counts.failed += sum(failed)
        self._counts.succeeded += len(failed) - sum(failed)
        self._has_news.set()

    def end_input(self) -> None:
        """Expect no more rows than were read so far."""
        self._is_input_over = True
        self._has_news.set()

    async def run(self) -> None:
        """Write what is finished, until all rows are.

        Raises:
            BatchFailedError: More rows failed than `max_failures`.
        """
        while not (self._is_input_over and self._position == self._counts.read):
            await self._has_news.wait()
            self._has_news.clear()
            await asyncio.sleep(_GATHER_SECONDS)
            await self.commit()
            self.check_failures()
            self.written.set()
            self._wake.ring()

    async def commit(self) -> None:
        """Write what is finished now, and what that brings into order."""
        finished, self._finished = self._finished, []
        self._committing = len(finished)
        try:
            await self._files.disk.call(self._write, finished)
        finally:
            self._committing = 0

    def check_failures(self) -> None:
        """Raise when too many rows have failed.

        Raises:
            BatchFailedError: More rows failed than `max_failures`.
        """
        if self._max_failures is None or self._counts.failed <= self._max_failures:
            return
        raise BatchFailedError(
            f"{self._counts.failed:,} rows failed, and max_failures={self._max_failures} allows no "
            "more than that.",
            hint="What is finished is kept; the same call continues after it.",
            failures=[str(failure) for failure in self.failures[:5]],
        )

    async def complete(self) -> None:
        """Move the output to its place."""
        await self._files.disk.call(self._files.output.finish)

    async def close(self) -> None:
        """Let go of the output."""
        await self._files.disk.call(self._files.output.close)

    def _write(self, finished: list[Finished]) -> None:
        """Commit results, and append to the output what is now in order.

        Runs in the disk's thread.
        """
        journal, output = self._files.journal, self._files.output
        if finished:
            journal.add(finished)
        for position, failed, record in journal.in_order(self._position):
            if failed and len(self.failures) < _FAILURES_KEPT:
                fields = json.loads(record)
                self.failures.append(Failure(position, fields["id"], fields["error"]))
            output.write(f'{{"index": {position}, {record[1:]}')
            self._position = position + 1
        output.flush()
