"""Limits the requests in flight, and finds the best limit by measurement.

The throughput of a server that batches rises with the number of concurrent requests, up to a knee;
beyond it, requests only queue. Latency starts to rise well before throughput levels off, so latency
alone says too little: this limiter maximises measured throughput. It uses neither network nor clock
(times are arguments), so its tests run it against simulated servers.

1. Ramp: double the limit while that gains 5 % or more; three steps pass a knee at 64.
2. Hold: keep the limit, and occasionally try the next higher or lower one, more rarely the longer
   nothing changes. Go up if the gain exceeds the noise. Go down if the lower limit was as good
   several times, to reduce latency: a limit that is too low costs throughput, one that is too high
   only costs latency, which matters little to a batch.
3. Back off: if the server sheds load (429, 503) or does not answer in time, lower the limit at
   once, at most once per round trip, and raise it slowly. A single request says little about the
   load, so this depends on the share of recent refusals: `recent_requests`.

Throughput is measured by Little's law, N / R: requests in flight over the time that one takes,
weighted by size (tokens, if known). Unlike counting answers in a window, this needs no time to
settle after a change.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count, takewhile

from .in_flight import InFlight
from .recent_requests import RecentRequests

RAMP_GAIN = 1.05
"""The ramp continues while doubling raises throughput by at least this factor."""
GOOD_ENOUGH = 0.97
"""The chosen limit is kept while it reaches this share of the best throughput: smaller differences
are noise."""
AS_GOOD = 0.99
"""The share of the chosen limit's throughput at which a lower one is as good."""
MEASURED_ENOUGH = 2
"""How often both limits must be measured before the lower one can win."""
DRIFT = 0.25
"""A relative change of throughput at one limit that invalidates the measurements at all others."""
MAX_PATIENCE = 16
"""Epochs between two trials of a neighbour, at most."""


@dataclass(slots=True)
class Ticket:
    """One request that is in flight."""

    number: int
    epoch: int
    active: int
    """Requests in flight when it was sent, without stragglers."""
    sent_at: float


@dataclass(slots=True)
class _Throughput:
    """The measurements at one limit."""

    rate: float
    epoch: int
    """The epoch of the last measurement."""
    measured: int
    """The number of measurements; 0 for a quick one during the ramp."""

    @property
    def likely(self) -> float:
        """The rate, reduced in the ramp, where the first requests of a burst inflate it."""
        return self.rate if self.measured else GOOD_ENOUGH * self.rate

    def update(self, rate: float, epoch: int) -> None:
        self.measured += 1
        # the first full measurement replaces the ramp's; from the fourth on, the latest counts
        # 30 %, so that the rate follows the server
        self.rate += (rate - self.rate) * max(0.3, 1 / self.measured)
        self.epoch = epoch


class Limiter:
    """The limit of requests in flight.

    Args:
        ceiling: The highest limit.
        start: The first limit.
        shortest_epoch: The minimum duration of a measurement in seconds, and five times as long
            once the ramp is over; a shorter one would measure the noise of the local scheduler.
    """

    def __init__(self, ceiling: int, *, start: int = 16, shortest_epoch: float = 0.1) -> None:
        self.ceiling = ceiling
        self._steps = _steps(ceiling)
        self._at = max(index for index, limit in enumerate(self._steps) if limit <= max(start, 1))
        self._cap = len(self._steps) - 1
        """The highest step that is allowed; lowered when the server sheds load."""
        self._cap_patience = 4
        self._clean_epochs = 0
        self._ramping = True
        self._before_ramp: float | None = None
        """Throughput at the previous step of the ramp."""
        self._chosen = self._at
        """The best step so far; differs from the current one during a trial."""
        self._patience = 1
        self._stayed = 0
        self._measured: dict[int, _Throughput] = {}
        self._shortest_epoch = shortest_epoch
        self._queued = 0
        self._recent = RecentRequests()
        self._lowered_at = float("-inf")
        self.paused_until = float("-inf")
        """The server asked for no request before this time."""
        self._in_flight = InFlight()
        self.most_in_flight = 0
        """The most requests that ever were in flight."""
        self._now: float | None = None
        self._epoch = 0
        self._began: float | None = None
        """The start of this epoch; None before the first request."""
        self._answers = 0
        self._size = self._latency = 0.0
        """Sums over the answers of this epoch."""
        self._held = 0.0
        """Requests in flight, integrated over the time of this epoch."""

    @property
    def limit(self) -> int:
        """Requests that may be in flight."""
        return self._steps[self._at]

    @property
    def in_flight(self) -> int:
        """Requests that are in flight."""
        return len(self._in_flight)

    @property
    def has_room(self) -> bool:
        """Whether one more request may be sent. Stragglers use up the ceiling, not the limit."""
        return self._in_flight.active < self.limit and len(self._in_flight) < self.ceiling

    @property
    def settled(self) -> bool:
        """Whether the ramp is over."""
        return not self._ramping

    def send(self, now: float) -> Ticket:
        """Count a request that is sent now."""
        self._advance(now)
        number = self._in_flight.send()
        self.most_in_flight = max(self.most_in_flight, len(self._in_flight))
        return Ticket(number, self._epoch, self._in_flight.active, now)

    def answered(self, ticket: Ticket, now: float, *, size: float = 1.0) -> None:
        """Count an answer.

        Args:
            ticket: What `send` returned.
            now: The time, on the clock of `send`.
            size: What the answer cost the server: tokens, or one where they are unknown.
        """
        self._leave(ticket, now)
        self._in_flight.answered(self.limit)
        self._recent.add(refused=False, limit=self.limit)
        # Without enough input the limit is not the bottleneck, so such answers say nothing about
        # it. Neither do the first ones of a burst, which found the server emptier than it is at
        # this limit; the ramp is too short to leave those out.
        if (
            ticket.epoch != self._epoch
            or ticket.active < (0.75 if self._ramping else 0.9) * self.limit
        ):
            return
        self._answers += 1
        self._size += size
        self._latency += now - ticket.sent_at
        shortest = self._shortest_epoch if self._ramping else 5 * self._shortest_epoch
        long_enough = self._began is not None and now - self._began >= shortest
        if self._answers >= self._answers_needed() and long_enough:
            self._end_epoch(now)

    def failed(self, ticket: Ticket, now: float) -> None:
        """Count a request whose end says nothing about the server's load."""
        self._leave(ticket, now)

    def refused(
        self, ticket: Ticket, now: float, *, retry_after: float = 0.0, again: bool = False
    ) -> bool:
        """Count a request that the server shed (429, 503) or did not answer in time.

        If the server refuses many of the recent requests, the limit goes down, and no request is
        sent for as long as the server asks.

        Args:
            ticket: What `send` returned.
            now: The time.
            retry_after: Seconds for which the server wants to be left alone.
            again: Whether the same row was refused before, which says nothing new about the load.

        Returns:
            Whether the cause is this request, because the server answers nearly all others.
        """
        self._leave(ticket, now)
        if again:
            return self._recent.show_health
        if ticket.sent_at >= self._lowered_at:  # else it belongs to an overload that was handled
            self._recent.add(refused=True, limit=self.limit)
            if not self._recent.show_overload(self._in_flight.active):
                return self._recent.show_health
            self._back_off(now)
        self.paused_until = max(self.paused_until, now + retry_after)
        return False

    def _back_off(self, now: float) -> None:
        self._lowered_at = now
        self._ramping = False
        # each overload doubles the wait before the refused limit is allowed again
        self._cap_patience = min(2 * self._cap_patience, 8 * MAX_PATIENCE)
        self._cap = max(0, self._at - 1)
        self._measured = {step: one for step, one in self._measured.items() if step <= self._cap}
        # steps are 2/3 or 3/4 apart; 0.7 skips the smaller one: the load falls by a third or more
        lower = [step for step, limit in enumerate(self._steps) if limit <= 0.7 * self.limit]
        self._go(max(lower, default=0), now)
        # those refusals belong to the limit that was just lowered
        self._recent.clear()
        self._clean_epochs = 0

    def lower_ceiling(self, ticket: Ticket, now: float) -> None:
        """Count a request for which this process had no connection left, and allow no more."""
        self._leave(ticket, now)
        self.ceiling = max(1, min(self.ceiling, len(self._in_flight)))
        self._steps = [step for step in self._steps if step <= self.ceiling]
        last = len(self._steps) - 1
        self._cap = min(self._cap, last)
        self._chosen = min(self._chosen, last)
        self._measured = {step: one for step, one in self._measured.items() if step <= last}
        self._ramping = False
        self._go(min(self._at, last), now)

    def queue_seen(self, waiting: int) -> None:
        """Note how many requests wait inside the server: while many do, more do not help."""
        self._queued = waiting

    def _leave(self, ticket: Ticket, now: float) -> None:
        self._advance(now)
        self._in_flight.leave(ticket.number)

    def _advance(self, now: float) -> None:
        if self._now is not None:
            self._held += self._in_flight.active * (now - self._now)
        if self._began is None:
            self._began = now
        self._now = now

    def _answers_needed(self) -> int:
        return max(3 * self.limit // 4, 8) if self._ramping else max(2 * self.limit, 16)

    def _begin_epoch(self, now: float) -> None:
        self._epoch += 1
        self._began = now
        self._answers = 0
        self._size = self._latency = self._held = 0.0

    def _go(self, step: int, now: float) -> None:
        self._at = step
        self._stayed = 0
        self._begin_epoch(now)

    def _end_epoch(self, now: float) -> None:
        began = self._began if self._began is not None else now
        in_flight = self._held / max(now - began, 1e-9)
        self._note(in_flight * self._size / max(self._latency, 1e-9))
        self._recover_cap()
        step = self._next_ramp() if self._ramping else self._next_hold()
        if step == self._at:
            self._stayed += 1
            self._begin_epoch(now)
        else:
            self._go(step, now)

    def _note(self, rate: float) -> None:
        earlier = self._measured.get(self._at)
        if earlier is None:
            self._measured[self._at] = _Throughput(
                rate, self._epoch, measured=int(not self._ramping)
            )
        elif abs(rate - earlier.rate) > DRIFT * earlier.rate:  # the rows or the server changed
            self._measured = {self._at: _Throughput(rate, self._epoch, measured=1)}
            self._patience = 1
        else:
            earlier.update(rate, self._epoch)

    def _recover_cap(self) -> None:
        self._clean_epochs += 1
        if self._cap < len(self._steps) - 1 and self._clean_epochs >= self._cap_patience:
            self._cap += 1
            self._clean_epochs = 0

    def _next_ramp(self) -> int:
        rate = self._measured[self._at].rate
        gained = self._before_ramp is None or rate >= RAMP_GAIN * self._before_ramp
        step = self._doubled()
        if gained:
            self._chosen = self._at
        if gained and step > self._at and not self._queue_is_long():
            self._before_ramp = rate
            return step
        self._ramping = False
        self._chosen = self._best()
        return self._chosen

    def _next_hold(self) -> int:
        best = self._best()
        if best != self._chosen:  # the neighbour is better: continue in its direction
            self._chosen = best
            self._patience = 1
        if best != self._at:
            return best
        if self._stayed + 1 < self._patience:
            return self._at
        self._patience = min(2 * self._patience, MAX_PATIENCE)
        return self._neighbour()

    def _neighbour(self) -> int:
        """Return the next higher or lower step, whichever direction was tried longer ago."""
        up, down = min(self._at + 1, self._cap), max(self._at - 1, 0)
        if self._queue_is_long():
            return down
        tried_up = max(
            (one.epoch for step, one in self._measured.items() if step > self._at), default=-1
        )
        tried_down = max(
            (one.epoch for step, one in self._measured.items() if step < self._at), default=-1
        )
        return up if (tried_up <= tried_down and up > self._at) or down == self._at else down

    def _queue_is_long(self) -> bool:
        return self._queued > max(1, self.limit // 4)

    def _best(self) -> int:
        """Return the chosen step, a clearly better one, or a lower one that is as good."""
        measured = {step: one for step, one in self._measured.items() if step <= self._cap}
        if not measured:
            return min(self._at, self._cap)
        best = max(measured, key=lambda step: (measured[step].likely, -step))
        chosen = measured.get(self._chosen)
        if chosen is None or chosen.likely < GOOD_ENOUGH * measured[best].likely:
            return best
        trusted = {step for step, one in measured.items() if one.measured >= MEASURED_ENOUGH}
        lower = (
            step
            for step in trusted
            if self._chosen in trusted and measured[step].rate >= AS_GOOD * chosen.rate
        )
        return min((*lower, self._chosen))

    def _doubled(self) -> int:
        return max(
            step
            for step in range(self._cap + 1)
            if self._steps[step] <= 2 * self.limit or step == 0
        )


def _steps(ceiling: int) -> list[int]:
    """Return the possible limits: 1, 2, 3, 4, 6, 8, 12, … up to `ceiling`."""
    powers = takewhile(lambda power: power <= ceiling, (2**exponent for exponent in count()))
    between = {limit for power in powers for limit in (power, power * 3 // 2) if limit <= ceiling}
    return sorted(between | {ceiling})
