"""Makes one request for a row, and acts on its answer or fault."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from .availability import Availability
from .breaker import Breaker
from .caller import Caller
from .faults import ANSWERED, UNAVAILABLE, Fault, fault_of_exception
from .limiter import Limiter, Ticket
from .progress import Counts
from .recorder import Recorder
from .recovery import Recovery
from .retry_policy import RetryPolicy, Verdict, backoff
from .row_queue import RowQueue
from .rows import Row
from .work import RowAnswer


@dataclass(frozen=True, slots=True)
class ServerState:
    """A run's view of its server."""

    limiter: Limiter
    """How many requests it can handle."""
    availability: Availability
    """Whether it is available."""
    breaker: Breaker
    """Whether it fails every row."""
    recovery: Recovery
    """Waits for it while it is unavailable."""


class RowAttempts:
    """Makes requests for rows, and passes each row to the recorder or back to the queue.

    Args:
        caller: Sends the requests.
        server: Notified of each answer and fault.
        policy: Decides the consequence of a fault.
        queue: Receives rows that are retried.
        recorder: Receives finished rows.
        counts: Updated with requests and tokens.
        say: Writes a line for the user.
    """

    def __init__(
        self,
        caller: Caller,
        server: ServerState,
        policy: RetryPolicy,
        *,
        queue: RowQueue,
        recorder: Recorder,
        counts: Counts,
        say: Callable[[str], None],
    ) -> None:
        self.are_last = False
        """Whether the run is stopping, so that failed rows are left to the next run."""
        self.are_over = False
        """Whether the run cancels its requests; else the user's function is what was cancelled."""
        self._caller = caller
        self._server = server
        self._policy = policy
        self._queue = queue
        self._recorder = recorder
        self._counts = counts
        self._say = say
        self._last_failed: Row | None = None
        self._warned = False

    async def make(self, row: Row, ticket: Ticket) -> None:
        """Make one request for a row.

        Args:
            row: The row.
            ticket: The limiter's ticket for this request.
        """
        try:
            answer = await self._caller.call(row)
        except asyncio.CancelledError:
            if self.are_over:
                raise
            message = "It was cancelled, though this run did not cancel it (CancelledError)."
            await self._failed(row, ticket, Fault("function", message))
        except Exception as error:  # the user's function may raise anything
            await self._failed(row, ticket, fault_of_exception(error))
        else:
            self._answered(row, ticket, answer)

    def _answered(self, row: Row, ticket: Ticket, answer: RowAnswer) -> None:
        now = time.monotonic()
        self._server.availability.answered()
        self._server.breaker.answered(row)
        # embeddings write no tokens; without any count, all answers weigh the same
        size = max(answer.completion_tokens or answer.prompt_tokens, 1)
        self._server.limiter.answered(ticket, now, size=size)
        row.attempts += 1
        self._counts.prompt_tokens += answer.prompt_tokens
        self._counts.completion_tokens += answer.completion_tokens
        self._recorder.finish(row, answer, now - ticket.sent_at)

    async def _failed(self, row: Row, ticket: Ticket, fault: Fault) -> None:
        now = time.monotonic()
        # not recorded, so that the next run sends the row again
        if self.are_last and fault.retryable:
            self._server.limiter.failed(ticket, now)
            return
        pause = self._server.availability.pause_asked(fault)
        self._note_load(row, ticket, fault, pause)
        self._note_server(row, fault)
        may_be_away = fault.kind in ("disconnected", "unreachable") or self._server.breaker.is_open
        # after the ticket was returned: a row that waits here must not take up the limit
        was_away = may_be_away and await self._server.recovery.wait()
        verdict = self._policy.decide(row, fault, now=now, server_was_away=was_away)
        if verdict is Verdict.FAIL:
            self._recorder.finish(row, fault, now - ticket.sent_at)
            return
        self._counts.retried += verdict is Verdict.RETRY
        self._queue.delay(row, pause + backoff(row))

    def _note_load(self, row: Row, ticket: Ticket, fault: Fault, pause: float) -> None:
        """Return the ticket, and tell the limiter what the fault says about the load."""
        limiter, now = self._server.limiter, time.monotonic()
        if fault.kind in ("overloaded", "timeout"):
            row.refusals += limiter.refused(ticket, now, retry_after=pause, again=row.refusals > 0)
        elif fault.kind == "no_files":
            limiter.lower_ceiling(ticket, now)
            if not self._warned:
                self._warned = True
                self._say(
                    "this process has too many open files, so it sends fewer requests at a time; "
                    "raise its limit (ulimit -n)"
                )
        else:
            limiter.failed(ticket, now)

    def _note_server(self, row: Row, fault: Fault) -> None:
        """Note what the fault says about the server."""
        breaker = self._server.breaker
        if fault.kind in ANSWERED:
            breaker.answered()
        elif fault.kind in UNAVAILABLE:
            self._last_failed = row
            breaker.failed(row, fault, in_flight=self._server.limiter.in_flight)
        # these two may be the row's: alone they are no outage, however long the retries take
        if breaker.is_open or fault.kind not in ("server_error", "timeout"):
            self._server.availability.failed(fault)

    async def is_server_well(self) -> bool:
        """Return whether the server is up, and answers a row again if it failed all."""
        if not await self._caller.is_up():
            return False
        breaker = self._server.breaker
        row = breaker.proven or self._queue.sample() or self._last_failed
        if not breaker.is_open or row is None:
            return True
        self._counts.requests += 1
        try:
            await self._caller.call(row)
        except asyncio.CancelledError:
            if self.are_over or self.are_last:
                raise
        except Exception as error:  # the user's function may raise anything
            fault = fault_of_exception(error)
            if fault.kind in UNAVAILABLE:
                self._server.availability.failed(fault)
                return False
        breaker.answered()
        self._server.availability.answered()
        return True
