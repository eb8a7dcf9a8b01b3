"""What is computed from the numbers, and how numbers are worded."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from client.report.cases import CASES, START, Run, cold_start, report_data
from flytekitplugins.inference.client.record import Record
from flytekitplugins.inference.client.report import words
from flytekitplugins.inference.client.report.data import (
    ReportData,
    ServerData,
    idle,
    in_flight,
    phases,
)


def _clients(
    seconds: float, begun: list[int], answered: list[int], failed: list[int], width: int = 1
) -> dict[str, Any]:
    timeline = {"cell_seconds": width, "begun": begun, "answered": answered, "failed": failed}
    return {**Record().snapshot(), "requests": sum(begun), "seconds": seconds, "timeline": timeline}


def test_requests_in_flight_are_counted_from_the_timeline() -> None:
    assert in_flight(_clients(4, [3, 1, 0, 0], [0, 1, 2, 0], [0, 0, 0, 1])) == [3, 3, 1, 0]


@pytest.mark.parametrize(
    ("clients", "expected"),
    [
        (
            _clients(10, [1, 0, 0, 1], [0, 1, 0, 1], [0] * 4),
            (7, 10),
        ),  # idle: the third cell and those after the fourth
        (_clients(10, [1], [0], [0]), (0, 10)),  # still under way
        (_clients(8, [1, 0, 2], [1, 0, 2], [0] * 3, width=2), (4, 8)),
        (_clients(0.4, [1], [1], [0]), (0, 1)),
    ],
)
def test_the_clients_tell_when_the_server_was_idle(
    clients: dict[str, Any], expected: tuple[float, float]
) -> None:
    assert idle(ServerData(clients=clients)) == (*expected, "clients")


def test_the_servers_own_word_goes_first() -> None:
    server = Run(clients=1, seconds=100, pauses=((20, 80),)).go().server()
    known = idle(server)
    assert known is not None
    quiet, seen, who = known
    assert who == "server"
    assert (quiet, seen) == (pytest.approx(60, abs=12), pytest.approx(100, abs=5))
    told = idle(replace(server, metrics=None))
    assert told is not None
    assert told[0] == pytest.approx(quiet, abs=12)


def test_nothing_is_known_of_a_server_that_nobody_asked() -> None:
    assert idle(ServerData(clients=Record().snapshot())) is None
    assert idle(ServerData()) is None


def test_the_parts_of_a_start_are_in_the_order_in_which_they_began() -> None:
    names = [part.name for part in phases(START)]
    assert names[:3] == ["loader.resolve", "input_download", "loader.download"]
    assert max(part.ended for part in phases(START)) == pytest.approx(172.4)


@pytest.mark.parametrize("moment", ["", "yesterday", "2026-13-01T00:00:00"])
def test_a_part_without_readable_times_is_left_out(moment: str) -> None:
    report = cold_start(("server_load", 1, 2), ("first_answer", 2, 3))
    report["phases"][0]["started"] = moment
    assert [part.name for part in phases(report)] == ["first_answer"]


@pytest.mark.parametrize("case", CASES)
def test_it_is_json_and_survives_it(case: str) -> None:
    data = CASES[case]()
    read = json.loads(data.to_json())
    assert read == data.to_dict()
    assert read["version"] == 1
    assert len(read["servers"]) == len(data.servers)


def test_what_json_does_not_have_becomes_null_or_text() -> None:
    server = ServerData(
        batches=({"duration": float("nan"), "id": b"x", 3: float("inf"), "rows": (1, True)},)
    )
    read = json.loads(report_data(server).to_json())
    assert read["servers"][0]["batches"] == [
        {"duration": None, "id": "b'x'", "3": None, "rows": [1, True]}
    ]


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
