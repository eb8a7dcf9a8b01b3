"""How many requests are in flight at once: finds the server's knee by itself.

A server that batches answers more rows per second the more it has at once, up to a knee; beyond it
rows only wait. Its latency grows long before that, so latency alone says too little: this limiter
maximises measured throughput. It knows neither network nor clock (times are arguments), so its
tests run it against simulated servers.

1. Ramp: double while that gains a twentieth or more; a knee at 64 is passed after three steps.
2. Hold: stay, and now and then try the next higher or lower limit, more rarely the longer nothing
   changes. Go up when that is better by more than noise; go down when the lower one was seen to be
   as good several times, for latency's sake: a limit that is too low costs throughput, one that is
   too high only latency, which a batch does not mind.
3. Back off: when the server sheds load (429, 503) or does not answer in time, go down at once, at
   most once per round trip, and come back slowly. A single request says little about the load, so
   this goes by the share of the recent ones: `recent_requests`.

Throughput is measured by Little's law, N / R: requests in flight over the time that one takes,
weighted by size (tokens, where known). Unlike counting answers in a window it needs no time to
settle after a change.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count, takewhile

from .in_flight import InFlight
from .recent_requests import RecentRequests

RAMP_GAIN = 1.05
"""Doubling goes on while it brings at least this factor."""
GOOD_ENOUGH = 0.97
"""The share of the best throughput with which the chosen limit is kept: what differs by less is
noise."""
AS_GOOD = 0.99
"""The share of the chosen limit's throughput at which a lower one is as good."""
MEASURED_ENOUGH = 2
"""Times that both have to be measured before the lower one is believed."""
DRIFT = 0.25
"""Relative change of throughput at one limit after which what was measured at others no longer
counts."""
MAX_PATIENCE = 16
"""Epochs between two tries of a neighbour, once nothing has changed for long."""


@dataclass(slots=True)
class Ticket:
    """One request that is in flight."""

    number: int
    epoch: int
    active: int
    """Requests in flight with it, without stragglers."""
    sent_at: float


@dataclass(slots=True)
class _Throughput:
    """What was measured at one limit."""

    rate: float
    epoch: int
    """When last."""
    measured: int
    """How often; 0 when only in the ramp, in a hurry."""

    @property
    def likely(self) -> float:
        """The rate, less what the first of a burst make it look better in the ramp."""
        return self.rate if self.measured else GOOD_ENOUGH * self.rate

    def update(self, rate: float, epoch: int) -> None:
        self.measured += 1
        self.rate += (rate - self.rate) * max(0.3, 1 / self.measured)
        self.epoch = epoch


class Limiter:
    """The limit of requests in flight.

    Args:
        ceiling: The limit is never higher.
        start: The first limit.
        shortest_epoch: Seconds that a measurement takes at least, five times that once the ramp is
            over; below that the noise of this machine's scheduler is measured.
    """

    def __init__(self, ceiling: int, *, start: int = 16, shortest_epoch: float = 0.1) -> None:
        self.ceiling = ceiling
        self._steps = _steps(ceiling)
        self._at = max(index for index, limit in enumerate(self._steps) if limit <= max(start, 1))
        self._cap = len(self._steps) - 1
        """The highest step that is allowed, lowered when the server sheds load."""
        self._cap_patience = 4
        self._clean_epochs = 0
        self._ramping = True
        self._before_ramp: float | None = None
        """Throughput at the step before, while ramping."""
        self._chosen = self._at
        """The best step so far; another one is in use while it is tried."""
        self._patience = 1
        self._stayed = 0
        self._measured: dict[int, _Throughput] = {}
        self._shortest_epoch = shortest_epoch
        self._queued = 0
        self._recent = RecentRequests()
        self._lowered_at = float("-inf")
        self.paused_until = float("-inf")
        """No request is sent before, because the server asked for that."""
        self._in_flight = InFlight()
        self._now: float | None = None
        self._epoch = 0
        self._began: float | None = None
        """When this epoch did; None before the first request."""
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
        # Without enough input the limit is not what holds the server back, so nothing is learned
        # about it. Nor from the first of a burst, which saw the server emptier than it is at this
        # limit; the ramp has no time for that.
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
        """Count a request that ended without saying anything about the server's load."""
        self._leave(ticket, now)

    def refused(
        self, ticket: Ticket, now: float, *, retry_after: float = 0.0, again: bool = False
    ) -> bool:
        """Count a request that the server shed (429, 503) or did not answer in time.

        When it refuses a good part of what it gets, the limit goes down, and nothing is sent for as
        long as the server asks.

        Args:
            ticket: What `send` returned.
            now: The time.
            retry_after: Seconds for which the server wants to be left alone.
            again: Whether this was returned for the same row before: then it is nothing new.

        Returns:
            Whether it is this request that the server refuses, since it answers nearly all others.
        """
        self._leave(ticket, now)
        if again:
            return self._recent.show_health
        if ticket.sent_at >= self._lowered_at:  # otherwise: the same overload, seen again
            self._recent.add(refused=True, limit=self.limit)
            if not self._recent.show_overload(self._in_flight.active):
                return self._recent.show_health
            self._back_off(now)
        self.paused_until = max(self.paused_until, now + retry_after)
        return False

    def _back_off(self, now: float) -> None:
        self._lowered_at = now
        self._ramping = False
        self._cap_patience = min(2 * self._cap_patience, 8 * MAX_PATIENCE)
        self._cap = max(0, self._at - 1)
        self._measured = {step: seen for step, seen in self._measured.items() if step <= self._cap}
        lower = [step for step, limit in enumerate(self._steps) if limit <= 0.7 * self.limit]
        self._go(max(lower, default=0), now)
        self._recent.clear()
        self._clean_epochs = 0

    def queue_seen(self, waiting: int) -> None:
        """Note how many requests wait inside the server: while some do, more do not help."""
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
        elif abs(rate - earlier.rate) > DRIFT * earlier.rate:  # the rows or the server have changed
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
        if best != self._chosen:  # the neighbour that was tried is better: go on in that direction
            self._chosen = best
            self._patience = 1
        if best != self._at:
            return best
        if self._stayed + 1 < self._patience:
            return self._at
        self._patience = min(2 * self._patience, MAX_PATIENCE)
        return self._neighbour()

    def _neighbour(self) -> int:
        """Return the next higher or lower step, whichever direction was looked into longer ago."""
        up, down = min(self._at + 1, self._cap), max(self._at - 1, 0)
        if self._queue_is_long():
            return down
        looked_up = max(
            (seen.epoch for step, seen in self._measured.items() if step > self._at), default=-1
        )
        looked_down = max(
            (seen.epoch for step, seen in self._measured.items() if step < self._at), default=-1
        )
        return up if (looked_up <= looked_down and up > self._at) or down == self._at else down

    def _queue_is_long(self) -> bool:
        return self._queued > max(1, self.limit // 4)

    def _best(self) -> int:
        """Return the chosen step, one that is clearly better, or a lower one that is as good."""
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
    """Return the limits that are used: 1, 2, 3, 4, 6, 8, 12, … up to `ceiling`."""
    powers = takewhile(lambda power: power <= ceiling, (2**exponent for exponent in count()))
    between = {limit for power in powers for limit in (power, power * 3 // 2) if limit <= ceiling}
    return sorted(between | {ceiling})
