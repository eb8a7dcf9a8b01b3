"""Runs a batch: from the rows to requests, and from answers to the journal and the output.

Nothing blocks the event loop: one thread reads the input, another writes the journal and the
output. Memory is bounded at each step: rows are read only when they are about to be needed,
finished ones go to the disk at once, and nothing is sent while the disk lags behind.

    Intake ──▶ RowQueue ──▶ Dispatcher ──▶ RowAttempts ──▶ Recorder ──▶ journal ──▶ output
                  ▲                           │                         └──▶ Flyte's checkpoint
                  └───────   retried   ───────┘

The parts that decide use no network and take the time as an argument: `Limiter` (how many requests
at once), `Availability` (whether the server is up), `RetryPolicy` (whether a row is retried),
`RowQueue` (which row is next).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from ...facts.wording import duration
from .alarm import Alarm
from .availability import Availability
from .breaker import Breaker
from .caller import BatchEndpoint, Caller
from .checkpoint import CheckpointedJournal, CheckpointSaver
from .dispatcher import Dispatcher
from .intake import Intake
from .limiter import Limiter
from .monitor import Monitor
from .progress import Counts, Progress
from .recorder import Files, Recorder
from .recovery import Recovery
from .retry_policy import RetryPolicy
from .row_attempts import RowAttempts, ServerState
from .row_queue import RowQueue
from .rows import IdSource, RowSource
from .threads import Worker, end_tasks, until_done

STOP_SECONDS = 20.0
"""How long a run that is stopped waits for the requests in flight. Kubernetes kills a pod 30 s
after SIGTERM by default (`terminationGracePeriodSeconds`), and the last upload of the checkpoint
needs some of that."""
_STOP_SAVE_SECONDS = 1.0
"""How often the checkpoint is saved meanwhile: on spot machines, the kill may come earlier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunParts:
    """The opened parts of a run."""

    endpoint: BatchEndpoint
    caller: Caller
    limiter: Limiter
    source: RowSource
    id_source: IdSource | None
    files: Files
    checkpoint: CheckpointedJournal | None
    uploader: Worker
    """The thread that writes the checkpoint: flytekit's checkpoint is not thread-safe."""
    progress: Progress
    max_retries: int
    max_failures: int | None
    allow_all_failed: bool
    outage_seconds: float


class Runner:
    """One run. Made and used on one event loop.

    Args:
        parts: The opened parts.
        note: Called every few seconds, and at the end of the run, whatever its outcome.
    """

    def __init__(
        self, parts: RunParts, note: Callable[[Runner], None] = lambda runner: None
    ) -> None:
        self.parts = parts
        self.counts = Counts()
        wake = Alarm()
        availability = Availability(parts.outage_seconds)
        recovery = Recovery(
            parts.endpoint.url,
            self._is_server_well,
            availability,
            parts.progress.say,
        )
        self._server = ServerState(parts.limiter, availability, Breaker(), recovery)
        queue = RowQueue(lambda: parts.limiter.limit)
        self.recorder = Recorder(
            parts.files,
            self.counts,
            max_failures=parts.max_failures,
            allow_all_failed=parts.allow_all_failed,
            wake=wake,
        )
        self._intake = Intake(
            parts.source,
            parts.id_source,
            parts.files,
            queue=queue,
            recorder=self.recorder,
            counts=self.counts,
            wake=wake,
            say=parts.progress.say,
        )
        self._attempts = RowAttempts(
            parts.caller,
            self._server,
            RetryPolicy(parts.max_retries, parts.outage_seconds),
            queue=queue,
            recorder=self.recorder,
            counts=self.counts,
            say=parts.progress.say,
        )
        self._dispatcher = Dispatcher(
            self._attempts,
            self._server,
            queue=queue,
            recorder=self.recorder,
            counts=self.counts,
            wake=wake,
        )
        self.monitor = Monitor(
            parts.endpoint.url,
            self._server,
            counts=self.counts,
            progress=parts.progress,
            note=lambda: note(self),
        )
        self._saver = CheckpointSaver(
            parts.checkpoint, disk=parts.files.disk, uploader=parts.uploader, say=parts.progress.say
        )
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Process all rows.

        Raises:
            BatchFailedError: More rows failed than `max_failures`, or all of them.
            ServerNotReadyError: The server was gone for longer than `outage_seconds`.
            CancelledError: It was stopped, or its task was cancelled.
        """
        read = asyncio.create_task(self._intake.run())
        send = asyncio.create_task(self._dispatcher.run())
        save = asyncio.create_task(self._saver.run())
        write = asyncio.create_task(self.recorder.run())
        beside = [asyncio.create_task(part) for part in (self.monitor.run(), self._stopped())]
        if self.parts.endpoint.metrics_url:
            watch = self.monitor.watch_queue(self.parts.caller)
            beside.append(asyncio.create_task(watch))
        try:
            # those beside never end by themselves; one that fails ends the run
            await until_done([read, send, write], [save, *beside])
            self.recorder.check_failures()
            await self.recorder.complete()
            self.recorder.check_any_succeeded()
        except asyncio.CancelledError:
            # else the task that awaits the batch was cancelled, and nobody wants the answers
            if self._stop.is_set():
                await end_tasks([read, send, save])
                await self._server.recovery.cancel()
                await self._wait_for_answers()
            raise
        finally:
            # everything that adds rows or requests ends first; what is finished is written last
            await end_tasks([read, send, save, write, *beside])
            await self._dispatcher.cancel()
            await self._server.recovery.cancel()
            await self._keep_what_is_finished()
            self.monitor.end()
            # no `await` follows, so a reader of records that this wakes sees a run that is done
            self.recorder.written.set()

    def stop(self) -> None:
        """End `run` in order.

        It sends nothing more, waits for the requests in flight, keeps finished rows and is then
        cancelled.
        """
        self._attempts.are_last = True
        self._stop.set()

    async def _is_server_well(self) -> bool:
        return await self._attempts.is_server_well()

    async def _stopped(self) -> None:
        await self._stop.wait()
        raise asyncio.CancelledError

    async def _wait_for_answers(self) -> None:
        """Wait at most `STOP_SECONDS` until nothing is in flight; answers are still written."""
        until = time.monotonic() + STOP_SECONDS
        in_flight = self._server.limiter.in_flight
        if in_flight:
            self.parts.progress.say(
                f"stopping; waiting up to {duration(STOP_SECONDS)} for the answers to "
                f"{in_flight} requests (Ctrl-C ends at once)",
                always=True,
            )
        while self._dispatcher.is_waiting and (left := until - time.monotonic()) > 0:
            await self._saver.save()
            await self._dispatcher.wait(min(left, _STOP_SAVE_SECONDS))

    async def _keep_what_is_finished(self) -> None:
        try:
            if self.recorder.backlog:
                await self.recorder.commit()
            await self._saver.save()
        finally:
            await self.recorder.close()
