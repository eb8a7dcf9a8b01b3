"""What is computed from the numbers, and how numbers are worded."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from client.report.cases import CASES, START, Run, start_report, stats
from flytekitplugins.inference.client.record import Record
from flytekitplugins.inference.client.report import words
from flytekitplugins.inference.client.report.data import (
    ReportData,
    ServerData,
    idle_time,
)
from flytekitplugins.inference.client.report.json_fields import from_json, to_json
from flytekitplugins.inference.client.report.snapshots import (
    BatchStats,
    ClientStats,
    ColdStart,
    ConcurrencyPoint,
    MetricsWindow,
)


def _clients(
    seconds: float, begun: list[int], answered: list[int], failed: list[int], width: int = 1
) -> ClientStats:
    timeline = {"cell_seconds": width, "begun": begun, "answered": answered, "failed": failed}
    members = {"requests": sum(begun), "seconds": seconds, "timeline": timeline}
    return from_json(ClientStats, {**Record().snapshot(), **members})


def test_requests_in_flight_are_counted_from_the_timeline() -> None:
    clients = _clients(4, [3, 1, 0, 0], [0, 1, 2, 0], [0, 0, 0, 1])
    assert clients.timeline.in_flight() == [3, 3, 1, 0]


def _seen(until: float, *requests: tuple[float, float], away: Any = None) -> ClientStats:
    """Return what clients saw until a moment of requests that began and ended at theirs."""
    now = 0.0
    record = Record(lambda: now, lambda: 0.0)
    pending: dict[int, Any] = {}
    events = [
        (moment, number, is_end)
        for number, request in enumerate(requests)
        for is_end, moment in enumerate(request)
    ]
    for moment, number, is_end in sorted(events):
        now = moment
        if not is_end:
            pending[number] = record.begin("GET /")
        elif moment <= until:
            pending[number].status = 200
            record.end(pending[number])
    if away:
        now = away[0]
        record.server_left()
        now = away[1]
        record.server_returned()
    now = until
    return from_json(ClientStats, record.snapshot())


@pytest.mark.parametrize(
    ("clients", "idle", "observed"),
    [
        (_seen(100, (10, 10.6)), 99.4, 100),
        (_seen(100, (10, 20), (15, 30)), 80, 100),
        (_seen(100, (10, 20), (20, 30), (50, 51)), 79, 100),
        (_seen(100, (0, 100)), 0, 100),
        (_seen(100, (90, 200)), 90, 100),
        (_seen(100, *((second, second + 0.01) for second in range(100))), 99, 100),
        (_seen(100, (10, 60), away=(10, 50)), 50, 60),
    ],
    ids=["one", "overlap", "in a row", "always", "under way", "one each second", "away"],
)
def test_the_clients_know_when_the_server_was_idle(
    clients: ClientStats, idle: float, observed: float
) -> None:
    time = idle_time(ServerData(clients=clients))
    assert time is not None
    assert (time.seconds, time.observed) == (pytest.approx(idle), pytest.approx(observed))
    assert (time.unsure, time.is_told_by_server) == (0, False)


def _samples(seen: float, idle: float, unsure: float = 0.0) -> MetricsWindow:
    return from_json(MetricsWindow, {"times": {"seen": seen, "idle": idle, "unsure": unsure}})


@pytest.mark.parametrize(
    ("clients", "metrics", "expected"),
    [
        # the server was busy for 0.6 s: a counter moved in each sample, and nothing ran at any
        (_seen(100, (10, 10.6)), _samples(100, 5, 95), (99.4, 0, False)),
        (_seen(100, (10, 40)), _samples(100, 70), (70, 0, False)),
        # others ask it too
        (_seen(100, (10, 20)), _samples(100, 20), (20, 0, True)),
        # no client of this task sent a request
        (_seen(100), _samples(100, 70), (70, 0, True)),
        (_seen(100), _samples(100, 5, 95), (5, 95, True)),
    ],
)
def test_samples_count_where_the_clients_do_not_know_all(
    clients: ClientStats, metrics: MetricsWindow, expected: tuple[float, float, bool]
) -> None:
    time = idle_time(ServerData(clients=clients, metrics=metrics))
    assert time is not None
    assert (time.seconds, time.unsure, time.is_told_by_server) == (
        pytest.approx(expected[0]),
        expected[1],
        expected[2],
    )


def test_both_sources_agree_on_a_simulated_run() -> None:
    server = Run(clients=1, seconds=100, pauses=((20, 80),)).go().server()
    clients = idle_time(server)
    metrics = idle_time(replace(server, clients=ClientStats()))
    assert clients is not None
    assert metrics is not None
    assert (clients.is_told_by_server, metrics.is_told_by_server) == (False, True)
    assert clients.seconds == pytest.approx(60, abs=3)
    assert metrics.seconds - 12 <= clients.seconds <= metrics.seconds + metrics.unsure + 12


@pytest.mark.parametrize(
    ("parts", "rest"),
    [
        ((("server_load", 0, 10),), 0),
        ((("input_download", 0, 3), ("server_load", 25, 28)), 22),
        ((("input_download", 0, 3), ("loader.download", 1, 10), ("server_load", 9, 28)), 0),
        ((("loader.download", 0, 20), ("input_download", 2, 3), ("server_load", 21, 28)), 1),
    ],
)
def test_what_belongs_to_no_phase_is_a_part_of_the_start(parts: Any, rest: float) -> None:
    start = from_json(ColdStart, start_report(*parts))
    assert start.rest_seconds == pytest.approx(rest)
    assert (start.longest.name == "rest") is (rest == 22)


def test_nothing_is_known_of_a_server_that_nobody_asked() -> None:
    assert idle_time(ServerData(clients=stats(Record()))) is None
    assert idle_time(ServerData()) is None


def test_the_parts_of_a_start_are_in_the_order_in_which_they_began() -> None:
    names = [span.name for span in START.spans()]
    assert names[:3] == ["loader.resolve", "input_download", "loader.download"]
    assert max(span.ended for span in START.spans()) == pytest.approx(172.4)


@pytest.mark.parametrize("moment", ["", "yesterday", "2026-13-01T00:00:00"])
def test_a_part_without_readable_times_is_left_out(moment: str) -> None:
    report = start_report(("server_load", 1, 2), ("first_answer", 2, 3))
    report["phases"][0]["started"] = moment
    start = from_json(ColdStart, report)
    assert [span.name for span in start.spans()] == ["first_answer"]
    assert to_json(start) == report


@pytest.mark.parametrize("case", CASES)
def test_it_is_json_and_survives_it(case: str) -> None:
    data = CASES[case]()
    read = json.loads(data.to_json())
    assert read == data.to_dict()
    assert read["version"] == 1
    assert len(read["servers"]) == len(data.servers)


@pytest.mark.parametrize("case", CASES)
def test_its_json_can_be_read_again(case: str) -> None:
    data = CASES[case]()
    again = from_json(ReportData, json.loads(data.to_json()))
    assert again.to_dict() == data.to_dict()
    assert [type(server.metrics) for server in again.servers] == [
        type(server.metrics) for server in data.servers
    ]


def test_the_members_of_the_json_are_those_of_version_1() -> None:
    """A reader of this version relies on these names; see `VERSION`."""
    read = CASES["troubled"]().to_dict()
    (server,) = read["servers"]
    assert _names(read) == "version title made running error servers"
    assert _names(server) == "name about cold_start clients batches metrics advice"
    assert _names(server["about"]) == "kind url model image gpus cpu mem"
    assert _names(server["cold_start"]) == "version phases total_seconds outcome"
    assert _names(server["cold_start"]["phases"][0]) == "name seconds started ended"
    assert set(server["clients"]) == set(Record().snapshot())
    assert set(server["clients"]["latency_seconds"]) == set(Record().snapshot()["latency_seconds"])
    assert _names(server["clients"]["timeline"]) == "cell_seconds begun answered failed"
    assert _names(server["clients"]["failures"][0]) == "at seconds request error text"
    assert _names(server["clients"]["outages"][0]) == "began ended"
    assert _names(server["batches"][0]) == (
        "path rows succeeded failed resumed retried duration rows_per_second prompt_tokens "
        "completion_tokens tokens_per_second most_in_flight max_concurrency concurrency failures"
    )
    point = "seconds finished limit in_flight rows_per_second"
    assert _names(server["batches"][0]["concurrency"][0]) == point
    assert _names(server["batches"][0]["failures"][0]) == "index id kind message status"
    assert _names(server["metrics"]) == (
        "began seconds answered unanswered restarts totals most times histograms series"
    )
    assert _names(server["metrics"]["times"]) == "seen idle unsure waiting cache_full"
    assert _names(server["metrics"]["histograms"]["queue_time"]) == "count mean p50 p95 p99"
    assert set(server["metrics"]["series"]) == {
        *("at", "seconds", "requests_running", "requests_waiting", "kv_cache_usage"),
        *("prompt_tokens", "generation_tokens", "preemptions"),
    }
    assert _names(server["advice"][0]) == "rule severity title evidence action"


def _names(value: dict[str, Any]) -> str:
    return " ".join(value)


def test_what_json_does_not_have_becomes_null_or_text() -> None:
    value = {"a": float("nan"), "b": b"x", 3: float("inf"), "c": (1, True, [None])}
    assert to_json(value) == {"a": None, "b": "b'x'", "3": None, "c": [1, True, [None]]}


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, BatchStats()),
        ({"colour": 1}, BatchStats()),
        ({"rows": 3, "duration": 2, "path": "a"}, BatchStats(rows=3, duration=2.0, path="a")),
        ({"rows": 3.0}, BatchStats(rows=3)),
        ({"rows": 3.5, "duration": float("nan"), "path": 7}, BatchStats()),
        ({"rows": True, "duration": "1", "failed": None}, BatchStats()),
        ({"duration": float("inf"), "rows": float("inf")}, BatchStats()),
        ({"concurrency": [{"seconds": 1}]}, BatchStats(concurrency=(ConcurrencyPoint(seconds=1),))),
        ({"concurrency": [{"limit": 1}], "failures": {}}, BatchStats()),
        ({"concurrency": "abc", "failures": [1]}, BatchStats()),
    ],
)
def test_a_member_that_cannot_be_read_leaves_the_default(
    members: dict[str, Any], expected: BatchStats
) -> None:
    assert from_json(BatchStats, members) == expected


def test_mappings_are_read_whole_or_not() -> None:
    window = from_json(
        MetricsWindow, {"most": {"a": 1}, "totals": {"a": "x"}, "series": {"a": [None, 1]}}
    )
    assert (window.most, window.totals, window.series) == ({"a": 1.0}, {}, {"a": (None, 1.0)})


@pytest.mark.parametrize("value", [None, 3, "text", [], [{}]])
def test_what_is_no_object_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="expected an object"):
        from_json(BatchStats, value)


@pytest.mark.parametrize("value", [{}, {"phases": None}, {"phases": [{"name": "a"}]}])
def test_a_member_that_must_be_there_is_named(value: Any) -> None:
    with pytest.raises(ValueError, match="ColdStart: 'phases' is missing"):
        from_json(ColdStart, value)


def test_data_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        ReportData(made=0, servers=()).title = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.254, "0.25"), (3.14, "3.1"), (4.0, "4"), (42.4, "42"), (12_345.6, "12,346")],
)
def test_numbers(value: float, text: str) -> None:
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 9, "0 %"),
        (9, 9, "100 %"),
        (62, 100, "62 %"),
        (1, 5000, "below 0.1 %"),
        (4999, 5000, "above 99.9 %"),
        (3, 1000, "0.3 %"),
        (993, 1000, "99.3 %"),
        (1, 0, "0 %"),
    ],
)
def test_shares(part: float, whole: float, text: str) -> None:
    assert words.share(part, whole) == text


def test_counts() -> None:
    assert (words.count(1, "row"), words.count(2000, "row")) == ("1 row", "2,000 rows")
    assert [words.times(many) for many in (1, 2, 3, 1200)] == [
        "once",
        "twice",
        "3 times",
        "1,200 times",
    ]
    assert words.clock(50_000) == "13:53:20 UTC"
