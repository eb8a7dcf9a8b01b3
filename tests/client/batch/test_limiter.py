"""The limiter against simulated servers, on a clock that is a number."""

from __future__ import annotations

import heapq
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from flytekitplugins.inference.client.batch.in_flight import OVERTAKEN, InFlight
from flytekitplugins.inference.client.batch.limiter import Limiter, Ticket
from flytekitplugins.inference.client.batch.recent_requests import RecentRequests

Curve = Callable[[int], float]
"""Rows in service to the throughput of all of them together, in units of size per second."""


@dataclass
class Simulation:
    """A server that shares its throughput among its requests, and a client that keeps the limit."""

    limiter: Limiter
    curve: Curve
    slots: int = 10**9
    """More requests than this wait inside the server."""
    shed_above: int = 10**9
    """More requests than this are answered with 429."""
    retry_after: float = 0.0
    sizes: Callable[[], float] = lambda: 1.0
    refuses: Callable[[], bool] = lambda: False
    """Whether a request is refused at once whatever the load."""
    hangs: Callable[[], bool] = lambda: False
    """Whether a request is never answered, and costs the server nothing."""
    deadline: float = 60.0
    gap: float = 0.0
    """Seconds the client needs between an answer and its next request."""
    now: float = 0.0
    done: int = 0
    shed: int = 0
    limits: list[int] = field(default_factory=list)
    """The limit after each row."""
    _service: list[tuple[float, int, Ticket, float]] = field(default_factory=list)
    """Requests in service: when they finish in shared time, a number, ticket, size."""
    _queue: list[tuple[Ticket, float]] = field(default_factory=list)
    _wakes: list[float] = field(default_factory=list)
    """When the client is ready for its next requests."""
    _hanging: list[tuple[float, Ticket]] = field(default_factory=list)
    """Requests that are never answered, and when the client has waited long enough for each."""
    _admitted: int = 0
    _shared: float = 0.0
    """What each request in service has got so far, had it been there always."""

    def run(self, rows: int) -> float:
        """Return the rows per second."""
        began, last = self.now, self.done + rows
        while self.done < last:
            self._send()
            self._admit()
            self._next_event()
        return rows / (self.now - began)

    @property
    def limit(self) -> float:
        """The usual limit of late, whatever is tried right now."""
        return statistics.median(self.limits[-len(self.limits) // 3 :])

    def _send(self) -> None:
        limiter = self.limiter
        while (
            limiter.has_room
            and limiter.in_flight - len(self._hanging) + len(self._wakes) < limiter.limit
            and self.now >= limiter.paused_until
        ):
            ticket = limiter.send(self.now)
            if self.hangs():
                self._hanging.append((self.now + self.deadline, ticket))
            elif self.refuses() or limiter.in_flight - len(self._hanging) > self.shed_above:
                self.shed += 1
                self.now += 1e-4
                limiter.refused(ticket, self.now, retry_after=self.retry_after)
            else:
                self._queue.append((ticket, self.sizes()))

    def _admit(self) -> None:
        while self._queue and len(self._service) < self.slots:
            ticket, size = self._queue.pop(0)
            self._admitted += 1
            heapq.heappush(self._service, (self._shared + size, self._admitted, ticket, size))

    def _next_event(self) -> None:
        each = self.curve(len(self._service)) / max(len(self._service), 1)
        finish = (
            self.now + (self._service[0][0] - self._shared) / each
            if self._service
            else float("inf")
        )
        wake = min(self._wakes, default=float("inf"))
        resume = self.limiter.paused_until if self.limiter.paused_until > self.now else float("inf")
        late = self._hanging[0][0] if self._hanging else float("inf")
        until = min(finish, wake, resume, late)
        assert until < float("inf"), "nothing will ever happen"
        self._shared += (until - self.now) * each
        self.now = until
        if until == finish:
            _, _, ticket, size = heapq.heappop(self._service)
            self.limiter.answered(ticket, self.now, size=size)
            self.done += 1
            self.limits.append(self.limiter.limit)
            if self.gap:
                self._wakes.append(self.now + self.gap)
        elif until == wake:
            self._wakes.remove(wake)
        elif until == late:
            self.limiter.refused(self._hanging.pop(0)[1], self.now)


def linear_up_to(knee: int, each: float = 10.0) -> Curve:
    return lambda requests: each * min(requests, knee)


def continuous_batching(half: int, most: float = 1000.0) -> Curve:
    """Throughput that rises ever more slowly, as latency grows with each request."""
    return lambda requests: most * requests / (requests + half)


def thrashing(knee: int, each: float = 10.0) -> Curve:
    """Throughput that falls beyond the knee, as when a cache is too small for all sequences."""
    return lambda requests: (
        each * (requests if requests <= knee else knee * (knee / requests) ** 0.5)
    )


@pytest.mark.parametrize("knee", [1, 2, 5, 8, 12, 16, 40, 64, 100, 256])
def test_slots_with_a_queue_are_filled_and_not_flooded(knee: int) -> None:
    simulation = Simulation(Limiter(512), lambda requests: 10.0 * requests, slots=knee)
    simulation.run(40 * knee + 200)
    assert simulation.run(100 * knee) >= 0.95 * 10 * knee
    assert simulation.limit <= max(3 * knee, 32)  # sixteen is where it starts


@pytest.mark.parametrize("knee", [8, 32, 64])
def test_the_knee_is_found_within_few_rows(knee: int) -> None:
    """A run of 200 rows per slot has spent no more than a tenth of them when the limit is right."""
    simulation = Simulation(Limiter(512), lambda requests: 10.0 * requests, slots=knee)
    simulation.run(20 * knee)
    assert simulation.limiter.settled
    assert knee <= simulation.limit <= 2 * knee


@pytest.mark.parametrize("half", [4, 16, 64])
def test_a_server_that_batches_continuously_is_used_up_to_where_more_brings_little(
    half: int,
) -> None:
    simulation = Simulation(Limiter(512), continuous_batching(half))
    simulation.run(6000)
    assert simulation.run(6000) >= 0.92 * 1000 * 512 / (512 + half)


@pytest.mark.parametrize("knee", [8, 24, 96])
def test_a_server_that_gets_slower_beyond_its_knee_is_kept_near_it(knee: int) -> None:
    simulation = Simulation(Limiter(512), thrashing(knee))
    simulation.run(60 * knee)
    assert simulation.run(200 * knee) >= 0.93 * 10 * knee
    assert simulation.limit <= 1.5 * knee


def test_rows_of_very_different_sizes_do_not_mislead() -> None:
    chance = random.Random(7)
    sizes = lambda: chance.choice([1.0, 4.0, 40.0])  # noqa: E731
    simulation = Simulation(Limiter(512), lambda requests: 100.0 * requests, slots=32, sizes=sizes)
    simulation.run(2000)
    assert simulation.run(8000) >= 0.95 * 100 * 32 / 15


def test_the_pause_between_an_answer_and_the_next_request_is_covered_by_a_higher_limit() -> None:
    simulation = Simulation(Limiter(512), lambda requests: 10.0 * requests, slots=16, gap=0.02)
    simulation.run(1000)
    assert simulation.run(4000) >= 0.95 * 160


def test_a_server_that_sheds_load_is_asked_less() -> None:
    simulation = Simulation(Limiter(512), lambda requests: 10.0 * requests, shed_above=40)
    simulation.run(4000)
    before = simulation.shed
    assert simulation.run(4000) >= 0.7 * 400
    assert simulation.shed - before < 0.02 * 4000
    assert max(simulation.limits[-2000:]) <= 48


def test_retry_after_is_waited_for() -> None:
    limiter = Limiter(64)
    tickets = [limiter.send(1.0) for _ in range(limiter.limit)]
    for ticket in tickets[:3]:
        limiter.refused(ticket, 1.5, retry_after=30.0)
    assert limiter.paused_until < 1.5, "one row in many may be refused for ever"
    limiter.refused(tickets[3], 2.0, retry_after=30.0)
    assert limiter.paused_until == 32.0
    limiter.refused(tickets[4], 2.5, retry_after=5.0)
    assert limiter.paused_until == 32.0


def test_one_overload_lowers_the_limit_once_however_many_requests_see_it() -> None:
    limiter = Limiter(64, start=32)
    tickets = [limiter.send(0.0) for _ in range(32)]
    for ticket in tickets:
        limiter.refused(ticket, 1.0)
    assert limiter.limit == 16
    tickets = [limiter.send(2.0) for _ in range(16)]
    for ticket in tickets:
        limiter.refused(ticket, 3.0)
    assert limiter.limit == 8


def test_the_limit_is_never_below_one_nor_above_the_ceiling() -> None:
    limiter = Limiter(5)
    for now in range(20):
        limiter.refused(limiter.send(float(now)), now + 0.5)
    assert limiter.limit == 1
    simulation = Simulation(Limiter(5), linear_up_to(1000))
    simulation.run(500)
    assert max(simulation.limits) == 5
    assert Limiter(1).limit == 1


def chance(share: float, seed: int) -> Callable[[], bool]:
    source = random.Random(seed)
    return lambda: source.random() < share


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.01, 0.06], ids=["1 %", "1 % asked six times"])
@pytest.mark.parametrize("slots", [4, 48])
def test_rows_that_are_always_refused_do_not_slow_down_the_others(
    slots: int, share: float, seed: int
) -> None:
    alone = Simulation(Limiter(512), lambda requests: 10.0 * requests, slots=slots).run(6000)
    simulation = Simulation(
        Limiter(512), lambda requests: 10.0 * requests, slots=slots, refuses=chance(share, seed)
    )
    assert simulation.run(6000) >= 0.95 * alone


@pytest.mark.parametrize("deadline", [1.0, 10.0, 60.0])
@pytest.mark.parametrize(("slots", "share"), [(4, 0.01), (4, 0.06), (48, 0.01)])
def test_rows_that_are_never_answered_do_not_slow_down_the_others(
    slots: int, share: float, deadline: float
) -> None:
    alone = Simulation(Limiter(512), lambda requests: 10.0 * requests, slots=slots).run(6000)
    simulation = Simulation(
        Limiter(512),
        lambda requests: 10.0 * requests,
        slots=slots,
        hangs=chance(share, 1),
        deadline=deadline,
    )
    assert simulation.run(6000) >= 0.9 * alone


def test_requests_that_are_never_answered_use_up_the_ceiling_and_not_the_limit() -> None:
    limiter = Limiter(16)
    hanging = [limiter.send(0.0) for _ in range(15)]
    for now in range(100):
        limiter.answered(limiter.send(float(now)), now + 0.5)
    assert limiter.in_flight == 15
    assert limiter.has_room
    limiter.send(100.0)
    assert not limiter.has_room
    for ticket in hanging:
        limiter.failed(ticket, 101.0)
    assert limiter.in_flight == 1


def test_a_refusal_is_the_rows_own_when_nearly_all_others_are_answered() -> None:
    limiter = Limiter(64)
    assert not limiter.refused(limiter.send(0.0), 0.1), "nothing is known yet"
    for now in range(1, 20):
        limiter.answered(limiter.send(float(now)), now + 0.5)
    assert limiter.refused(limiter.send(20.0), 20.1)
    before = limiter.limit
    assert all(limiter.refused(limiter.send(21.0), 21.1, again=True) for _ in range(100))
    assert limiter.limit == before, "the same row again says nothing new"
    assert not all(limiter.refused(limiter.send(22.0), 22.1) for _ in range(20))
    assert limiter.limit < before


@pytest.mark.parametrize(
    ("history", "in_flight", "health", "overload"),
    [
        ("", 0, False, False),
        ("R", 0, False, False),
        ("RRR", 0, False, False),
        ("RRRR", 0, False, True),
        ("RRRR", 12, False, True),
        ("RRRR", 17, False, False),
        ("AAAAR", 0, False, False),
        ("AAAAAR", 0, True, False),
        ("A" * 40 + "R" * 9, 0, True, False),
        ("A" * 40 + "R" * 10, 0, False, True),
        ("R" * 40 + "A" * 64, 0, True, False),
        ("A" * 640 + "R" * 13, 0, False, True),
    ],
)
def test_the_load_is_judged_by_the_last_requests(
    history: str, in_flight: int, health: bool, overload: bool
) -> None:
    recent = RecentRequests()
    for outcome in history:
        recent.add(refused=outcome == "R", limit=16)
    assert recent.show_health is health
    assert recent.show_overload(in_flight) is overload
    recent.clear()
    assert not recent.show_health
    assert not recent.show_overload(0)


def test_a_request_is_a_straggler_once_many_others_have_overtaken_it() -> None:
    requests = InFlight()
    first = requests.send()
    for _ in range(OVERTAKEN * 10 - 1):
        number = requests.send()
        requests.leave(number)
        requests.answered(10)
    second = requests.send()
    assert (len(requests), requests.active) == (2, 2)
    requests.answered(10)
    assert (len(requests), requests.active) == (2, 1)
    requests.leave(first)
    assert (len(requests), requests.active) == (1, 1)
    requests.leave(second)
    assert (len(requests), requests.active) == (0, 0)


def test_a_server_that_becomes_slower_and_faster_again_is_followed() -> None:
    simulation = Simulation(Limiter(512), lambda requests: 10.0 * requests, slots=64)
    simulation.run(3000)
    simulation.slots = 8
    simulation.run(4000)
    assert simulation.run(2000) >= 0.95 * 80
    simulation.slots = 64
    simulation.run(6000)
    assert simulation.run(6000) >= 0.9 * 640


def test_a_noisy_plateau_does_not_draw_the_limit_below_the_knee() -> None:
    """A lower limit that looks as good by chance would cost throughput; it has to be seen again."""
    noise = random.Random(5)
    simulation = Simulation(
        Limiter(512), lambda requests: 10.0 * requests * noise.uniform(0.85, 1.15), slots=128
    )
    simulation.run(4000)
    assert simulation.limit >= 96


def test_without_enough_rows_nothing_is_concluded() -> None:
    """A client that has only one row at a time says nothing about a limit of sixteen."""
    limiter = Limiter(64)
    for now in range(200):
        limiter.answered(limiter.send(float(now)), now + 0.9)
    assert limiter.limit == 16
    assert not limiter.settled


def test_a_queue_inside_the_server_ends_the_ramp() -> None:
    simulation = Simulation(Limiter(512), linear_up_to(512))
    simulation.limiter.queue_seen(5)
    simulation.run(200)
    assert max(simulation.limits) == 16
