"""The record: its numbers against exact ones, its size, and threads."""

from __future__ import annotations

import json
import random
import statistics
import threading

import pytest

from flytekitplugins.inference.client.record import (
    MAX_FAILURES,
    MAX_OUTAGES,
    Histogram,
    Record,
    Timeline,
    record_of,
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def record(clock: Clock) -> Record:
    return Record(clock, lambda: 1_000_000.0)


@pytest.mark.parametrize("spread", [0.2, 1.0, 2.0])
def test_quantiles_are_right_within_three_percent(spread: float) -> None:
    chance = random.Random(7)
    durations = [chance.lognormvariate(-1, spread) for _ in range(20_000)]
    histogram = Histogram()
    for seconds in durations:
        histogram.add(seconds)
    exact = statistics.quantiles(durations, n=100, method="inclusive")
    for percent in (50, 95, 99):
        assert histogram.quantile(percent / 100) == pytest.approx(exact[percent - 1], rel=0.03)
    assert histogram.snapshot()["mean"] == pytest.approx(statistics.fmean(durations))
    assert histogram.snapshot()["max"] == max(durations)


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 5e-5, 0.3, 1e9])
def test_a_single_duration_is_every_quantile(seconds: float) -> None:
    histogram = Histogram()
    histogram.add(seconds)
    assert histogram.quantile(0.5) == histogram.quantile(0.99) == seconds


def test_an_empty_histogram_has_no_quantiles() -> None:
    assert Histogram().quantile(0.5) is None
    assert set(Histogram().snapshot().values()) == {0, None}


def test_a_timeline_counts_per_second() -> None:
    timeline = Timeline(("begun", "failed"))
    for at in (0.0, 0.9, 2.5):
        timeline.add("begun", at)
    timeline.add("failed", 2.9)
    assert timeline.snapshot() == {"cell_seconds": 1, "begun": [2, 0, 1], "failed": [0, 0, 1]}


def test_a_long_timeline_keeps_its_size_and_its_sum() -> None:
    timeline = Timeline(("begun",))
    for at in range(0, 100_000, 7):
        timeline.add("begun", at)
    snapshot = timeline.snapshot()
    assert snapshot["cell_seconds"] == 256
    assert len(snapshot["begun"]) <= Timeline.CELLS
    assert sum(snapshot["begun"]) == len(range(0, 100_000, 7))
    assert max(snapshot["begun"][:-1]) - min(snapshot["begun"][:-1]) <= 1


def test_a_snapshot_tells_everything(record: Record, clock: Clock) -> None:
    good, bad, broken = record.begin("POST /a"), record.begin("POST /b"), record.begin("POST /c")
    record.begin("POST /d")
    clock.now += 2
    good.status = 200
    record.first_byte(good)
    record.first_byte(good)
    record.end(good)
    record.end(good)
    bad.status = 500
    record.end(bad)
    record.repeat("503")
    record.end(broken, ValueError("why"))
    record.server_left()
    record.server_left()
    clock.now += 1
    record.server_returned()
    record.server_returned()
    snapshot = record.snapshot()
    assert json.loads(json.dumps(snapshot)) == snapshot
    one = {"count": 1, **dict.fromkeys(("mean", "min", "p50", "p95", "p99", "max"), 2.0)}
    assert snapshot == {
        "version": 1,
        "began": 1_000_000.0,
        "seconds": 3.0,
        "requests": 4,
        "answered": 1,
        "failed": 2,
        "repeats": {"503": 1},
        "in_flight": 1,
        "most_in_flight": 4,
        "busy_seconds": 3.0,
        "statuses": {"200": 1, "500": 1},
        "errors": {"status 500": 1, "ValueError": 1},
        "failures": [
            {
                "at": 1_000_002.0,
                "seconds": 2.0,
                "request": "POST /b",
                "error": "status 500",
                "text": "",
            },
            {
                "at": 1_000_002.0,
                "seconds": 2.0,
                "request": "POST /c",
                "error": "ValueError",
                "text": "why",
            },
        ],
        "latency_seconds": one,
        "first_byte_seconds": one,
        "timeline": {
            "cell_seconds": 1,
            "begun": [4, 0, 0],
            "answered": [0, 0, 1],
            "failed": [0, 0, 2],
        },
        "outages": [{"began": 1_000_002.0, "ended": 1_000_003.0}],
        "outage_count": 1,
    }


def test_what_grows_is_bounded(record: Record) -> None:
    for _ in range(200):
        record.end(record.begin("POST /x"), ValueError("a" * 5000))
        record.server_left()
        record.server_returned()
    snapshot = record.snapshot()
    assert (snapshot["failed"], len(snapshot["failures"])) == (200, MAX_FAILURES)
    assert (snapshot["outage_count"], len(snapshot["outages"])) == (200, MAX_OUTAGES)
    assert len(json.dumps(snapshot)) < 30_000


def test_threads_lose_nothing() -> None:
    record = Record()

    def work() -> None:
        for _ in range(500):
            seen = record.begin("POST /x")
            seen.status = 200
            record.end(seen)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    snapshot = record.snapshot()
    assert (snapshot["requests"], snapshot["answered"], snapshot["in_flight"]) == (4000, 4000, 0)
    assert sum(snapshot["timeline"]["answered"]) == 4000


def test_one_address_has_one_record() -> None:
    assert record_of("http://a.invalid") is record_of("http://a.invalid")
    assert record_of("http://a.invalid") is not record_of("http://b.invalid")
