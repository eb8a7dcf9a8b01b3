"""Writes finished rows to the journal, and from there in order to the output.

Rows that finish within a few milliseconds are committed together, because a commit costs about the
same for one row as for hundreds. All file access happens in the disk's thread.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

from ...errors import BatchFailedError
from .alarm import Alarm
from .common_fault import CommonFault
from .faults import Fault
from .journal import Finished, Journal
from .output import OutputFile
from .progress import Counts
from .records import Failure, record_of_row
from .rows import Row
from .threads import Worker
from .work import RowAnswer

_GATHER_SECONDS = 0.002
"""How long finished rows are collected before a commit; a kill loses at most these."""
_FAILURES_KEPT = 20


@dataclass(frozen=True, slots=True)
class Files:
    """The files of the results, and the only thread that may access them."""

    journal: Journal
    output: OutputFile
    disk: Worker


class Recorder:
    """Writes the results of one run. Made and used on one event loop.

    Args:
        files: The journal and the output.
        counts: Updated with the finished rows.
        max_failures: More failed rows than this end the run; None for no limit.
        allow_all_failed: Whether a run may end without an answer to any row.
        wake: Rung whenever the backlog has become shorter.
    """

    def __init__(
        self,
        files: Files,
        counts: Counts,
        *,
        max_failures: int | None,
        allow_all_failed: bool,
        wake: Alarm,
    ) -> None:
        self.failures: list[Failure] = []
        """The first failed rows."""
        self.written = asyncio.Event()
        """Set whenever records were written; the waiting task clears it."""
        self._files = files
        self._counts = counts
        self._max_failures = max_failures
        self._allow_all_failed = allow_all_failed
        self._common = CommonFault()
        self._wake = wake
        self._finished: list[Finished] = []
        self._committing = 0
        self._position = 0
        """The position of the next record to write."""
        self._is_input_over = False
        self._has_news = asyncio.Event()

    @property
    def backlog(self) -> int:
        """Finished rows that are not on the disk yet."""
        return len(self._finished) + self._committing

    def finish(self, row: Row, outcome: RowAnswer | Fault, seconds: float) -> None:
        """Record the answer or the fault of a row.

        Args:
            row: The row.
            outcome: The answer or the fault.
            seconds: The duration of its last request.
        """
        fault = outcome if isinstance(outcome, Fault) else None
        try:
            record = record_of_row(row, outcome, seconds)
        except Exception as error:  # the output's own methods may raise anything
            fault = Fault("function", f"The output has no form as JSON: {error}.")
            record = record_of_row(row, fault, seconds)
        if fault is None:
            self._counts.succeeded += 1
            self._counts.answered += 1
            self._common.succeeded()
        else:
            self._counts.failed += 1
            self._common.failed(fault)
        # a rerun tries the others again: their cause may be gone by then
        keep = fault is None or fault.final
        self._finished.append(Finished(row.key, row.content, keep, fault is not None, record))
        self._has_news.set()

    def resume(self, failed: list[bool]) -> None:
        """Count rows that an earlier run finished and that are thus in the journal.

        Args:
            failed: For each row, whether it failed.
        """
        self._counts.resumed += len(failed)
        self._counts.failed += sum(failed)
        self._counts.succeeded += len(failed) - sum(failed)
        if not all(failed):
            self._common.succeeded()
        self._has_news.set()

    def end_input(self) -> None:
        """Expect no more rows than were read so far."""
        self._is_input_over = True
        self._has_news.set()

    async def run(self) -> None:
        """Write finished rows until all are written.

        Raises:
            BatchFailedError: As `check_failures` says.
        """
        while not (self._is_input_over and self._position == self._counts.read):
            await self._has_news.wait()
            self._has_news.clear()
            await asyncio.sleep(_GATHER_SECONDS)
            await self.commit()
            # after the commit, so that finished rows are kept even if this ends the run
            self.check_failures()
            self.written.set()
            self._wake.ring()

    async def commit(self) -> None:
        """Commit the finished rows, and write those that are next in order to the output."""
        # rows that finish during the write belong to the next commit
        finished, self._finished = self._finished, []
        self._committing = len(finished)
        try:
            await self._files.disk.call(self._write, finished)
        finally:
            self._committing = 0

    def check_failures(self) -> None:
        """Raise when too many rows have failed.

        Raises:
            BatchFailedError: More rows failed than `max_failures`, or all fail in the same way.
        """
        common = self._common
        if common.fault is not None and common.is_everyones and not self._allow_all_failed:
            raise BatchFailedError(
                f"One row after another fails in the same way, {common.alike:,} so far: "
                f"{common.fault.message}",
                hint="Finished rows are kept, and the same call asks these rows again. "
                "allow_all_failed=True goes on.",
            )
        if self._max_failures is None or self._counts.failed <= self._max_failures:
            return
        raise BatchFailedError(
            f"{self._counts.failed:,} rows failed, and max_failures={self._max_failures} allows no "
            "more than that.",
            hint="Finished rows are kept; the same call continues after them.",
            failures=[str(failure) for failure in self.failures[:5]],
        )

    def check_any_succeeded(self) -> None:
        """Raise when every row has failed.

        Raises:
            BatchFailedError: Every row has failed.
        """
        counts = self._counts
        if self._allow_all_failed or not counts.failed or counts.succeeded:
            return
        raise BatchFailedError(
            f"All {counts.failed:,} rows failed." if counts.failed > 1 else "The only row failed.",
            hint=f"{self._files.output.path} holds the reason of each. allow_all_failed=True "
            "returns such a result.",
            failures=[str(failure) for failure in self.failures[:5]],
        )

    async def complete(self) -> None:
        """Rename the output to its final path."""
        await self._files.disk.call(self._files.output.finish)

    async def close(self) -> None:
        """Close the output."""
        await self._files.disk.call(self._files.output.close)

    def _write(self, finished: list[Finished]) -> None:
        """Commit results, and append the rows that are next in order to the output.

        Runs in the disk's thread.
        """
        journal, output = self._files.journal, self._files.output
        if finished:
            journal.add(finished)
        for position, failed, record in journal.in_order(self._position):
            if failed and len(self.failures) < _FAILURES_KEPT:
                fields = json.loads(record)
                self.failures.append(Failure(position, fields["id"], fields["error"]))
            # the journal's record has no index: it outlives the run, a row's position does not
            output.write(f'{{"index": {position}, {record[1:]}')
            self._position = position + 1
        output.flush()
