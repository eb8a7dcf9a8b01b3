"""The run itself: rows in, requests out, answers to the journal, records in order to the output.

One event loop, on which nothing blocks: the input is read in one thread, the journal and the output
are written in another. Memory is bounded at each step: rows are read only when they are about to be
needed, finished ones leave for the disk at once, and nothing is sent while either lags behind.

    input ──▶ waiting rows ──▶ requests in flight ──▶ finished rows ──▶ journal ──▶ output
                  ▲                    │                                   └──▶ Flyte's checkpoint
                  └──── delayed rows ◀─┘ (to be asked again)
"""

from __future__ import annotations

import asyncio
import heapq
import json
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from ...errors import BatchFailedError, ServerNotReadyError
from ...facts.wording import duration
from .caller import Caller, Endpoint
from .checkpoint import CheckpointedJournal
from .faults import ANSWERED, UNAVAILABLE, Fault, fault_of_exception
from .feed import SIZE, AsyncFeed, Feed, ThreadFeed
from .journal import Finished, Journal
from .limiter import Limiter, Ticket
from .output import Output
from .progress import Counts, Progress
from .rows import IdSource, Row, Source, identify
from .threads import Worker
from .work import Answer, Work

_GATHER_SECONDS = 0.002
"""Finished rows are gathered for this long before they are committed: what a kill may cost."""
STOP_SECONDS = 20.0
"""How long a run that is stopped waits for the requests in flight. Kubernetes kills a pod 30 s
after SIGTERM by default (`terminationGracePeriodSeconds`), and the last upload of the checkpoint
needs some of that."""
_STOP_SAVE_SECONDS = 1.0
"""How often the checkpoint is saved meanwhile: the kill may come earlier, as on spot machines."""
_TICK_SECONDS = 0.25
_TICKS_PER_NOTE = 8
"""How often a report is told how far the run is."""
_SERIES_LENGTH = 240
"""Points of the series over time; when there are more, every second is dropped."""
_FAILURES_KEPT = 20
_BACKOFF_BASE, _BACKOFF_CAP = 0.25, 20.0
_PROBE_BASE, _PROBE_CAP = 0.1, 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a run behaves; none of it changes an answer."""

    deadline: float = 60.0
    """Seconds that one request may take."""
    max_retries: int = 5
    """Times that a row is asked again after a failure of its own."""
    max_failures: int | None = None
    """More failed rows than this end the run."""
    outage_seconds: float = 300.0
    """How long the server may be gone, shed every request, or leave all unanswered."""


@dataclass(frozen=True, slots=True)
class Point:
    """The run at one moment."""

    seconds: float
    """Since it began."""
    finished: int
    """Rows."""
    limit: int
    in_flight: int
    rows_per_second: float


@dataclass(slots=True)
class Failure:
    """One row that failed."""

    position: int
    id: Any
    error: dict[str, Any]

    def __str__(self) -> str:
        name = f"row {self.position + 1}" + (f" (id {self.id!r})" if self.id is not None else "")
        return f"{name}: {self.error['kind']}: {self.error['message']}"


@dataclass(slots=True)
class Sources:
    """Where the run takes from and puts to."""

    rows: Source
    id_source: IdSource | None
    journal: Journal
    output: Output
    checkpoint: CheckpointedJournal | None
    disk: Worker
    """The thread of the journal, the output and the segments of the checkpoint."""
    uploader: Worker
    """The thread that writes the checkpoint: flytekit's is not safe for two."""


@dataclass(slots=True)
class Engine:
    """One run. Made and used on one event loop.

    Args:
        endpoint: The server.
        work: What is done with each row.
        caller: Sends the requests.
        sources: Input, journal, output.
        limiter: How many requests are in flight.
        options: How the run behaves.
        progress: Where it is shown.
        note: Called every few seconds, and when the run has ended in any way.
    """

    endpoint: Endpoint
    work: Work
    caller: Caller
    sources: Sources
    limiter: Limiter
    options: Options
    progress: Progress
    note: Callable[[Engine], None] = lambda engine: None
    counts: Counts = field(default_factory=Counts)
    series: list[Point] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    written: int = 0
    """Records in the output."""
    advanced: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever records were written."""
    began: float = field(default_factory=time.monotonic)
    _waiting: deque[Row] = field(default_factory=deque)
    _delayed: list[tuple[float, int, Row]] = field(default_factory=list)
    """A heap: when to ask again, a number, the row."""
    _numbers: Iterator[int] = field(default_factory=count)
    _finished: list[Finished] = field(default_factory=list)
    _committing: int = 0
    _exhausted: bool = False
    _requests: set[asyncio.Task[None]] = field(default_factory=set)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    """The run is to end in order before its rows do."""
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    """Something may be sent, or the run is over."""
    _need_rows: asyncio.Event = field(default_factory=asyncio.Event)
    _has_finished: asyncio.Event = field(default_factory=asyncio.Event)
    _recovery: asyncio.Task[bool] | None = None
    """Waits for the server while it is down."""
    _unavailable_since: float | None = None
    """When the server was first seen unavailable, with no real answer since; later by what it told
    us to wait."""
    _told_until: float = 0.0
    _told_seconds: float = 0.0
    """How long the server has told us to wait since then."""
    _last_fault: Fault | None = None
    _alarm: asyncio.TimerHandle | None = None
    """Sets `_wake` when the next delayed row is due."""
    _defect: BaseException | None = None
    """What a request's task raised, which is a defect of this module."""
    _series_every: int = 1

    async def run(self) -> None:
        """Work on all rows.

        Raises:
            BatchFailedError: More rows failed than `max_failures`.
            ServerNotReadyError: The server was gone for longer than `outage_seconds`.
        """
        self.counts.total = self.sources.rows.total
        self._need_rows.set()
        sending = [asyncio.create_task(part) for part in (self._read(), self._send(), self._save())]
        commit = asyncio.create_task(self._commit())
        beside = [
            asyncio.create_task(part)
            for part in (self._tick(), self._watch_queue(), self._stopped())
        ]
        read, send, save = sending
        try:
            await _until_done([read, send, commit], [save, *beside])
            self._check_failures()
            await self.sources.disk.call(self.sources.output.finish)
        except asyncio.CancelledError:
            if self._stop.is_set():
                await _cancel([*sending, *self._recoveries()])
                await self._wait_for_answers()
            raise
        finally:
            await _cancel([*sending, commit, *beside, *self._requests, *self._recoveries()])
            await self._keep_what_is_finished()
            self.counts.in_flight = 0
            self.progress.update(self.counts, now=self._elapsed(), last=True)
            self.note(self)
            self.advanced.set()

    def stop(self) -> None:
        """Have `run` send nothing more, wait for the requests in flight, keep what is finished and be cancelled."""
        self._stop.set()

    async def _stopped(self) -> None:
        await self._stop.wait()
        raise asyncio.CancelledError

    async def _wait_for_answers(self) -> None:
        """Wait until nothing is in flight any more, at most `STOP_SECONDS`. What comes is committed as ever."""
        until = time.monotonic() + STOP_SECONDS
        if self.limiter.in_flight:
            self.progress.say(
                f"stopping; waiting up to {duration(STOP_SECONDS)} for the answers to "
                f"{self.limiter.in_flight} requests"
                " (Ctrl-C ends at once)",
                always=True,
            )
        while self._requests and self.limiter.in_flight and (left := until - time.monotonic()) > 0:
            if self.sources.checkpoint is not None:
                await self._save_now(self.sources.checkpoint)
            await asyncio.wait(self._requests, timeout=min(left, _STOP_SAVE_SECONDS))

    def _recoveries(self) -> list[asyncio.Task[bool]]:
        return [] if self._recovery is None else [self._recovery]

    # Reading

    async def _read(self) -> None:
        values, position = self.sources.rows.values, 0
        feed: Feed = ThreadFeed(values) if isinstance(values, Iterator) else AsyncFeed(values)
        try:
            while not self._exhausted:
                await self._need_rows.wait()
                taken = await feed.take()
                self._exhausted = not taken
                todo, resumed = await self.sources.disk.call(self._register, taken, position)
                position += len(taken)
                self._take_in(todo, resumed)
        finally:
            feed.close()
        self.counts.total = position
        self._wake.set()

    def _register(self, values: list[Any], position: int) -> tuple[list[Row], list[bool]]:
        rows = [
            identify(value, position + number, self.sources.id_source)
            for number, value in enumerate(values)
        ]
        return self.sources.journal.register(rows)

    def _take_in(self, todo: list[Row], resumed: list[bool]) -> None:
        self.counts.read += len(todo) + len(resumed)
        if resumed:
            self.counts.resumed += len(resumed)
            self.counts.failed += sum(resumed)
            self.counts.succeeded += len(resumed) - sum(resumed)
            self._has_finished.set()  # the output goes on with what an earlier run finished
        for row in todo:
            if row.fault is not None:
                self._finish(row, row.fault, 0.0)
            else:
                self._waiting.append(row)
        if len(self._waiting) >= self._low_water():
            self._need_rows.clear()
        self._wake.set()

    def _low_water(self) -> int:
        return max(2 * self.limiter.limit, 16)

    # Sending

    async def _send(self) -> None:
        while self._defect is None:
            while self._may_send() and (row := self._next_row()) is not None:
                self._start(row)
            if self._exhausted and not self._waiting and not self._delayed and not self._requests:
                self._has_finished.set()
                return
            self._wake.clear()
            await self._wake.wait()
        raise self._defect

    def _may_send(self) -> bool:
        now = time.monotonic()
        if self._recovery is not None or self.limiter.in_flight >= self.limiter.limit:
            return False
        if self._backlog() > 4 * self.limiter.limit + SIZE:
            return False  # the disk lags behind
        if self.limiter.paused_until > now:
            self._wake_in(self.limiter.paused_until - now)
            return False
        return True

    def _next_row(self) -> Row | None:
        if self._delayed:
            wait = self._delayed[0][0] - time.monotonic()
            if wait <= 0:
                return heapq.heappop(self._delayed)[2]
            self._wake_in(wait)
        many_delayed = len(self._delayed) > 2 * self.limiter.limit + 64  # they are in memory
        row = self._waiting.popleft() if self._waiting and not many_delayed else None
        if len(self._waiting) < self._low_water():
            self._need_rows.set()
        return row

    def _start(self, row: Row) -> None:
        ticket = self.limiter.send(time.monotonic())
        self.counts.requests += 1
        task = asyncio.create_task(self._ask(row, ticket))
        self._requests.add(task)
        task.add_done_callback(self._asked)

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._requests.discard(task)
        if not task.cancelled() and self._defect is None:
            self._defect = task.exception()
        self._wake.set()

    def _wake_in(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        moment = loop.time() + seconds + 0.001
        if self._alarm is not None and loop.time() < self._alarm.when() <= moment:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = loop.call_at(moment, self._wake.set)

    async def _ask(self, row: Row, ticket: Ticket) -> None:
        try:
            answer = await self.caller.call(row)
        except (
            Exception
        ) as error:  # the user's function may raise anything; it is the row's failure
            await self._handle(row, ticket, fault_of_exception(error))
            return
        now = time.monotonic()
        self._unavailable_since = None
        self.limiter.answered(
            ticket, now, size=max(answer.completion_tokens or answer.prompt_tokens, 1)
        )
        row.attempts += 1
        self.counts.prompt_tokens += answer.prompt_tokens
        self.counts.completion_tokens += answer.completion_tokens
        self._finish(row, answer, now - ticket.sent_at)

    async def _handle(self, row: Row, ticket: Ticket, fault: Fault) -> None:
        now = time.monotonic()
        if self._stop.is_set() and fault.retryable:  # the next run asks again
            self.limiter.failed(ticket, now)
            return
        retry_after = min(fault.retry_after, self.options.outage_seconds)
        if fault.kind in ("overloaded", "timeout"):
            self.limiter.overloaded(ticket, now, retry_after=retry_after)
        else:
            self.limiter.failed(ticket, now)
        self._note_availability(fault, now, told_to_wait=retry_after)
        was_down = fault.kind in ("disconnected", "unreachable") and await self._server_was_down()
        if not self._counts(row, fault, now, was_down=was_down):
            self._delay(row, retry_after)
            return
        row.attempts += fault.kind != "invalid_row"
        if fault.retryable and row.attempts <= self.options.max_retries:
            self.counts.retried += 1
            self._delay(row, retry_after)
        else:
            self._finish(row, fault, now - ticket.sent_at)

    def _counts(self, row: Row, fault: Fault, now: float, *, was_down: bool) -> bool:
        """Return whether a fault is held against the row; a busy or absent server is not.

        A connection that broke is, also when the server is down: this row may be what brings it
        down.
        """
        if fault.kind == "unreachable":
            return not was_down
        if fault.kind != "overloaded":
            return True
        if row.overloaded_since is None:
            row.overloaded_since = now
        # three times: when all rows are refused, that ends the run before it fails any
        return now - row.overloaded_since > 3 * self.options.outage_seconds

    def _delay(self, row: Row, at_least: float) -> None:
        """Ask a row again later: after twice as long each time, with jitter so that rows do not come back together."""
        longest = min(_BACKOFF_CAP, _BACKOFF_BASE * 2.0**row.attempts)
        moment = time.monotonic() + at_least + random.uniform(longest / 2, longest)  # noqa: S311, not a secret
        heapq.heappush(self._delayed, (moment, next(self._numbers), row))

    # A server that is gone

    def _note_availability(self, fault: Fault, now: float, *, told_to_wait: float) -> None:
        if fault.kind in ANSWERED:
            self._unavailable_since = None
        elif fault.kind in UNAVAILABLE:
            self._last_fault = fault
            if self._unavailable_since is None:
                self._unavailable_since = now
                self._told_until = now
                self._told_seconds = 0.0
            self._unavailable_since += self._newly_told(told_to_wait, now)

    def _newly_told(self, seconds: float, now: float) -> float:
        """Return how much longer the server wants to be left alone; in all, at most as long as it may be gone."""
        until = now + seconds
        longer = min(
            until - max(now, self._told_until), self.options.outage_seconds - self._told_seconds
        )
        if longer <= 0:
            return 0.0
        self._told_until = until
        self._told_seconds += longer
        return longer

    async def _server_was_down(self) -> bool:
        """Return whether the server is gone, once it is back. Nothing is sent meanwhile."""
        if self._recovery is None:
            self._recovery = asyncio.create_task(self._recover())
        return await asyncio.shield(self._recovery)

    async def _recover(self) -> bool:
        was_down = False
        for attempt in count():
            if await self.caller.is_up():
                break
            if not was_down:
                was_down = True
                self.progress.say(
                    f"{self.endpoint.url} does not answer; waiting up to {self._patience()} for it"
                )
            longest = min(_PROBE_CAP, _PROBE_BASE * 2.0**attempt)
            await asyncio.sleep(random.uniform(longest / 2, longest))  # noqa: S311, not a secret
        if was_down:
            self.progress.say(f"{self.endpoint.url} is back")
            self._unavailable_since = time.monotonic()  # its first answers have all the time again
        self._recovery = None
        self._wake.set()
        return was_down

    def _check_outage(self) -> None:
        since, fault = self._unavailable_since, self._last_fault
        if (
            since is None
            or fault is None
            or time.monotonic() - since <= self.options.outage_seconds
        ):
            return
        counts = self.counts
        raise ServerNotReadyError(
            f"{self.endpoint.url} has given no answer for {self._patience()}; the last it did: "
            f"{fault.message}",
            hint=f"{counts.finished:,} rows are finished and kept; the same call continues after "
            "them."
            + (
                " If the model needs longer for a row, raise deadline=."
                if fault.kind == "timeout"
                else ""
            ),
        )

    def _patience(self) -> str:
        return duration(self.options.outage_seconds)

    # Finishing

    def _finish(self, row: Row, outcome: Answer | Fault, seconds: float) -> None:
        fault = outcome if isinstance(outcome, Fault) else None
        try:
            record = _record(row, outcome, seconds)
        except (TypeError, ValueError, RecursionError) as error:
            fault = Fault("function", f"The output has no form as JSON: {error}.")
            record = _record(row, fault, seconds)
        if fault is None:
            self.counts.succeeded += 1
        else:
            self.counts.failed += 1
        keep = fault is None or fault.final
        self._finished.append(Finished(row.key, row.content, keep, fault is not None, record))
        self._has_finished.set()

    async def _commit(self) -> None:
        while True:
            await self._has_finished.wait()
            self._has_finished.clear()
            await asyncio.sleep(_GATHER_SECONDS)
            await self._commit_now()
            if self._exhausted and self.written == self.counts.read and not self._finished:
                return

    async def _commit_now(self) -> None:
        finished, self._finished = self._finished, []
        self._committing = len(finished)
        try:
            await self.sources.disk.call(self._write, finished)
        finally:
            self._committing = 0
        self._check_failures()
        self.advanced.set()
        self._wake.set()

    def _write(self, finished: list[Finished]) -> None:
        """Commit results, and append to the output what is now in order. Called in the disk's thread."""
        if finished:
            self.sources.journal.add(finished)
        for position, failed, record in self.sources.journal.in_order(self.written):
            if failed and len(self.failures) < _FAILURES_KEPT:
                fields = json.loads(record)
                self.failures.append(Failure(position, fields["id"], fields["error"]))
            self.sources.output.write(f'{{"index": {position}, {record[1:]}')
            self.written = position + 1
        self.sources.output.flush()

    def _backlog(self) -> int:
        return len(self._finished) + self._committing

    def _check_failures(self) -> None:
        allowed = self.options.max_failures
        if allowed is None or self.counts.failed <= allowed:
            return
        raise BatchFailedError(
            f"{self.counts.failed:,} rows failed, and max_failures={allowed} allows no more than "
            "that.",
            hint="What is finished is kept; the same call continues after it.",
            failures=[str(failure) for failure in self.failures[:5]],
        )

    async def _keep_what_is_finished(self) -> None:
        try:
            if self._finished:
                await self.sources.disk.call(self._write, self._finished)
                self._finished = []
            if self.sources.checkpoint is not None:
                await self._save_now(self.sources.checkpoint)
        finally:
            await self.sources.disk.call(self.sources.output.close)

    # Beside the work

    async def _tick(self) -> None:
        for number in count():
            await asyncio.sleep(_TICK_SECONDS)
            self.counts.in_flight = self.limiter.in_flight
            self.counts.limit = self.limiter.limit
            self.progress.update(self.counts, now=self._elapsed())
            self._check_outage()
            if number % self._series_every == 0:
                self._add_point()
            if number % _TICKS_PER_NOTE == 0:
                self.note(self)

    def _add_point(self) -> None:
        rate = round(self.progress.rates.rows, 2)
        seconds, limiter = round(self._elapsed(), 2), self.limiter
        self.series.append(
            Point(seconds, self.counts.finished, limiter.limit, limiter.in_flight, rate)
        )
        if len(self.series) > _SERIES_LENGTH:
            self.series = self.series[::2]
            self._series_every *= 2

    async def _watch_queue(self) -> None:
        if not self.endpoint.metrics_url:
            return
        while (waiting := await self.caller.queue_length()) is not None:
            self.limiter.queue_seen(waiting)
            await asyncio.sleep(1.0)

    async def _save(self) -> None:
        checkpoint = self.sources.checkpoint
        if checkpoint is None:
            return
        while True:
            # Half a percent of the work, so that with the upload's own time at most one percent of
            # it is lost.
            await asyncio.sleep(min(5.0, max(1.0, 0.005 * self._elapsed())))
            await self._save_now(checkpoint)

    async def _save_now(self, checkpoint: CheckpointedJournal) -> None:
        more = True
        while more:
            more = await self.sources.disk.call(checkpoint.collect)
            if not await self.sources.uploader.call(checkpoint.upload, self.progress.say):
                return

    def _elapsed(self) -> float:
        return time.monotonic() - self.began


def _record(row: Row, outcome: Answer | Fault, seconds: float) -> str:
    """Return the record without its index, which a later run may change."""
    answer = outcome if isinstance(outcome, Answer) else Answer(None)
    fields = {
        "id": row.id,
        "error": outcome.to_json() if isinstance(outcome, Fault) else None,
        "output": answer.output,
        "finish_reason": answer.finish_reason,
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "attempts": row.attempts,
        "seconds": round(seconds, 4),
    }
    text = json.dumps(fields, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except (
        UnicodeEncodeError
    ):  # half of a surrogate pair, which a model may write; no file can hold it as it is
        text = json.dumps(fields, allow_nan=False)
    return text


async def _until_done(work: list[asyncio.Task[None]], beside: list[asyncio.Task[None]]) -> None:
    """Return when all of `work` is done; raise as soon as anything fails."""
    pending = {*work, *beside}
    while not pending.isdisjoint(work):
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()


async def _cancel(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
