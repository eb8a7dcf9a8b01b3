"""Whether the server is there: tables of what happened, on a clock that is a number."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flytekitplugins.inference.client.batch.availability import (
    PROBE_BASE_SECONDS,
    PROBE_CAP_SECONDS,
    Availability,
)
from flytekitplugins.inference.client.batch.faults import ANSWERED, KINDS, UNAVAILABLE, Fault
from flytekitplugins.inference.client.batch.recovery import Recovery

OUTAGE_SECONDS = 10.0
Event = tuple[Any, ...]


class Server:
    """An availability to which a history happens."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.availability = Availability(OUTAGE_SECONDS, clock=lambda: self.now)

    def live(self, *history: Event) -> Server:
        """Let events happen: seconds from the start, what, and for a fault its Retry-After."""
        for moment, what, *more in history:
            self.now = 1000.0 + moment
            if what == "answer":
                self.availability.answered()
            elif what == "probe failed":
                self.availability.probe_failed()
            elif what == "probe answered":
                self.availability.probe_answered()
            else:
                self.availability.failed(Fault(what, what, retry_after=more[0] if more else 0.0))
        return self

    def outage_at(self, moment: float) -> str | None:
        """Return the kind of the fault that an outage at a moment is told by."""
        self.now = 1000.0 + moment
        fault = self.availability.outage()
        return fault.kind if fault is not None else None


@pytest.mark.parametrize("kind", sorted(UNAVAILABLE))
def test_a_silence_is_an_outage_when_it_is_longer_than_allowed(kind: Any) -> None:
    server = Server().live((0, kind))
    assert server.outage_at(10) is None
    assert server.outage_at(10.1) == kind


@pytest.mark.parametrize("kind", sorted(ANSWERED))
def test_any_answer_ends_a_silence_also_one_that_fails_its_row(kind: Any) -> None:
    assert Server().live((0, "timeout"), (9, kind)).outage_at(100) is None


@pytest.mark.parametrize("kind", sorted(set(KINDS) - UNAVAILABLE - ANSWERED))
def test_a_row_that_is_never_sent_says_nothing(kind: Any) -> None:
    assert Server().live((0, kind)).outage_at(100) is None
    assert Server().live((0, "timeout"), (9, kind)).outage_at(11) == "timeout"


@pytest.mark.parametrize(
    ("history", "ends_at"),
    [
        pytest.param([(0, "timeout"), (5, "overloaded")], 10, id="counts from the first fault"),
        pytest.param([(0, "timeout"), (5, "answer"), (7, "timeout")], 17, id="anew after answers"),
        pytest.param([(0, "answer"), (7, "disconnected")], 17, id="not from an answer"),
        pytest.param([(0, "overloaded", 3)], 13, id="without what the server asks for"),
        pytest.param(
            [(0, "overloaded", 3), (1, "overloaded", 3)], 14, id="pauses that overlap count once"
        ),
        pytest.param(
            [(0, "overloaded", 3), (1, "overloaded", 1)], 13, id="one within another not at all"
        ),
        pytest.param([(0, "overloaded", 3), (8, "overloaded", 2)], 15, id="one after another both"),
        pytest.param([(0, "overloaded", 86400)], 20, id="at most as long again"),
        pytest.param(
            [(0, "overloaded", 6), (6, "overloaded", 6), (12, "overloaded", 6)],
            20,
            id="also in small pieces",
        ),
        pytest.param(
            [(0, "overloaded", 6), (1, "answer"), (2, "overloaded", 6)],
            18,
            id="pauses before an answer are forgotten",
        ),
        pytest.param(
            [(0, "unreachable"), (1, "probe failed"), (9, "probe answered")],
            19,
            id="all of it for the first answers of a server that is back",
        ),
        pytest.param(
            [(0, "unreachable"), (9, "probe answered")], 10, id="not when it had not been away"
        ),
    ],
)
def test_what_an_outage_is_counted_from(history: list[Event], ends_at: float) -> None:
    server = Server().live(*history)
    assert server.outage_at(ends_at - 0.1) is None
    assert server.outage_at(ends_at + 0.1) is not None


def test_an_outage_is_told_by_its_last_fault() -> None:
    history = [(0, "timeout"), (1, "overloaded"), (2, "invalid_row"), (3, "disconnected")]
    assert Server().live(*history).outage_at(11) == "disconnected"


def test_nothing_has_happened() -> None:
    assert Server().outage_at(1e9) is None
    assert not Server().availability.is_away


def test_health_checks_come_more_rarely_the_longer_nobody_answers() -> None:
    availability = Server().availability
    pauses = [availability.probe_failed() for _ in range(8)]
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]
    assert (pauses[0], pauses[-1]) == (PROBE_BASE_SECONDS, PROBE_CAP_SECONDS)
    assert availability.is_away
    assert availability.probe_answered()
    assert not availability.is_away
    assert not availability.probe_answered()
    assert availability.probe_failed() == PROBE_BASE_SECONDS


@pytest.mark.parametrize(("asked", "pause"), [(0.0, 0.0), (3.0, 3.0), (86400.0, OUTAGE_SECONDS)])
def test_a_server_is_left_alone_for_as_long_as_an_outage_may_be(asked: float, pause: float) -> None:
    fault = Fault("overloaded", "later", retry_after=asked)
    assert Server().availability.pause_asked(fault) == pause


def test_one_task_asks_for_the_server_however_many_rows_wait() -> None:
    answers = [False, False, True]
    said: list[str] = []

    async def is_up() -> bool:
        return answers.pop(0)

    async def main() -> list[bool]:
        availability = Availability(OUTAGE_SECONDS)
        recovery = Recovery("http://localhost:1", is_up, availability, said.append)
        waits = [asyncio.create_task(recovery.wait()) for _ in range(5)]
        await asyncio.sleep(0)
        assert recovery.is_under_way
        results = await asyncio.gather(*waits)
        assert not recovery.is_under_way
        answers.append(True)
        return [*results, await recovery.wait()]

    assert asyncio.run(main()) == [True] * 5 + [False]
    assert said == [
        "http://localhost:1 does not answer; waiting up to 10 s for it",
        "http://localhost:1 is back",
    ]


def test_whoever_waits_for_the_server_may_be_cancelled_alone() -> None:
    async def main() -> None:
        is_there = asyncio.Event()

        async def is_up() -> bool:
            return await is_there.wait()

        recovery = Recovery("", is_up, Availability(OUTAGE_SECONDS), lambda text: None)
        first, second = (asyncio.create_task(recovery.wait()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert recovery.is_under_way
        is_there.set()
        assert await second is False

    asyncio.run(main())
