"""The sampler: increases, restarts, and its size after days; pages are in `tests/facts`."""

from __future__ import annotations

import json
import math
import threading
from typing import Any

import pytest

from client.stub import Handler, Stub
from flytekitplugins.inference.client.endpoint import Endpoint, ServerDetails
from flytekitplugins.inference.client.report import metrics
from flytekitplugins.inference.client.report.json_fields import from_json, to_json
from flytekitplugins.inference.client.report.metrics import Sampler, sampler_of, sampling
from flytekitplugins.inference.client.report.snapshots import (
    LatencySummary,
    MetricsTimes,
    MetricsWindow,
)
from flytekitplugins.inference.facts.metrics_page import MetricsPage

NAMES = {
    "requests_running": "x_running",
    "requests_waiting": "x_waiting",
    "kv_cache_usage": "x_cache",
    "generation_tokens": "x_tokens_total",
    "time_to_first_token": "x_ttft",
}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sampler(clock: Clock) -> Sampler:
    return Sampler("http://127.0.0.1:1/metrics", NAMES, clock=clock, wall_clock=lambda: 1000.0)


def page(**values: float) -> MetricsPage:
    return MetricsPage(values=values)


def test_a_histogram_is_told_by_its_quantiles_since_the_first_sample(
    sampler: Sampler, clock: Clock
) -> None:
    old = {0.1: 50.0, 1.0: 50.0, math.inf: 50.0}
    sampler.add(
        MetricsPage(buckets={"time_to_first_token": old}, sums={"time_to_first_token": 5}), 0.0
    )
    new = {0.1: 50.0, 1.0: 150.0, math.inf: 152.0}
    sampler.add(
        MetricsPage(buckets={"time_to_first_token": new}, sums={"time_to_first_token": 105}), 5.0
    )
    summary = sampler.snapshot().histograms["time_to_first_token"]
    assert summary == LatencySummary(
        count=102,
        mean=pytest.approx(100 / 102),
        p50=pytest.approx(0.1 + 0.9 * 51 / 100),
        p95=pytest.approx(0.1 + 0.9 * 96.9 / 100),
        p99=1.0,
    )


def test_what_the_server_did_before_does_not_count(sampler: Sampler) -> None:
    for now, tokens in ((0.0, 1000.0), (5.0, 1600.0), (10.0, 1600.0)):
        sampler.add(page(generation_tokens=tokens, requests_running=0), now)
    snapshot = sampler.snapshot()
    assert snapshot.totals == {"generation_tokens": 600}
    assert snapshot.series["generation_tokens"] == (0, 600, 0)
    assert snapshot.times == MetricsTimes(seen=10, idle=5, unsure=5)


def test_a_restarted_server_counts_from_zero(sampler: Sampler) -> None:
    sampler.add(page(generation_tokens=500), 0.0)
    sampler.add(None, 5.0)
    sampler.add(page(generation_tokens=80), 10.0)
    snapshot = sampler.snapshot()
    assert (snapshot.totals["generation_tokens"], snapshot.restarts) == (80, 1)
    assert (snapshot.answered, snapshot.unanswered) == (2, 1)


def test_a_counter_that_a_page_lacks_is_no_restart(sampler: Sampler) -> None:
    buckets = {1.0: 2.0, math.inf: 2.0}
    ttft = {"time_to_first_token": buckets}
    for now, values in enumerate(({"generation_tokens": 500.0}, {}, {"generation_tokens": 580.0})):
        sampler.add(MetricsPage(values=values, buckets=ttft if values else {}), 5.0 * now)
    snapshot = sampler.snapshot()
    assert (snapshot.totals, snapshot.restarts) == ({"generation_tokens": 80}, 0)
    assert snapshot.histograms == {}
    assert snapshot.series["generation_tokens"] == (0, None, 80)


def test_what_is_absent_is_unknown_and_not_zero(sampler: Sampler) -> None:
    sampler.add(page(requests_running=2), 0.0)
    sampler.add(None, 5.0)
    sampler.add(page(requests_running=4, kv_cache_usage=0.95), 10.0)
    snapshot = sampler.snapshot()
    assert snapshot.series["requests_running"] == (2, None, 4)
    assert snapshot.series["kv_cache_usage"] == (None, None, 0.95)
    assert "requests_waiting" not in snapshot.series
    assert snapshot.most == {"requests_running": 4, "kv_cache_usage": 0.95}
    assert (snapshot.times.cache_full, snapshot.times.waiting) == (5, 0)


def test_days_take_no_more_room_than_an_hour(sampler: Sampler) -> None:
    for index in range(40_000):
        sampler.add(
            page(requests_running=index % 2 * 10, generation_tokens=7.0 * index), 5.0 * index
        )
    snapshot = sampler.snapshot()
    cells = len(snapshot.series["at"])
    assert metrics.MAX_CELLS / 2 <= cells <= metrics.MAX_CELLS
    assert sum(snapshot.series["seconds"]) == pytest.approx(5 * 39_999)
    assert sum(snapshot.series["generation_tokens"]) == pytest.approx(7 * 39_999)
    assert snapshot.series["requests_running"][5] == pytest.approx(5, abs=0.1)
    assert snapshot.most["requests_running"] == 10
    assert from_json(MetricsWindow, json.loads(json.dumps(to_json(snapshot)))) == snapshot


def test_an_unused_sampler_has_a_snapshot(sampler: Sampler) -> None:
    assert sampler.snapshot().series == {"at": (), "seconds": ()}


# Against a server


def _text(text: str, status: int = 200) -> Any:
    def answer(handler: Handler) -> None:
        body = text.encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def _endpoint(stub: Stub, **more: Any) -> Endpoint:
    about = ServerDetails(metric_names=NAMES)
    return Endpoint(url=stub.url, metrics_url=f"{stub.url}/metrics", about=about, **more)


def test_a_server_is_sampled_while_a_block_lasts(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "INTERVAL_SECONDS", 0.02)
    stub.pages["/metrics"] = _text("x_running 3\nx_tokens_total 10\n")
    with sampling(_endpoint(stub, api_key="secret")) as outer, sampling(_endpoint(stub)) as inner:
        assert outer is inner is not None
        seen = threading.Event()
        while not outer.snapshot().answered:
            assert not seen.wait(0.01)
        stub.pages["/metrics"] = _text("x_running 1\nx_tokens_total 25\n")
    assert not [thread for thread in threading.enumerate() if thread.name == "inference-metrics"]
    last = sampler_of(f"{stub.url}/metrics")
    assert last is outer
    assert last.snapshot().totals == {"generation_tokens": 15}
    assert {headers["authorization"] for path, headers in stub.gets if path == "/metrics"} == {
        "Bearer secret"
    }


@pytest.mark.parametrize("answer", [_text("no", 500), _text("x_running 1", 404)])
def test_a_server_that_answers_something_else_is_unknown(stub: Stub, answer: Any) -> None:
    stub.pages["/metrics"] = answer
    sampler = Sampler(f"{stub.url}/metrics", NAMES)
    sampler.sample()
    assert (sampler.snapshot().answered, sampler.snapshot().unanswered) == (0, 1)


def test_a_server_that_is_not_there_is_unknown(stub: Stub) -> None:
    url = f"{stub.url}/metrics"
    stub.die()
    sampler = Sampler(url, NAMES)
    sampler.sample()
    assert sampler.snapshot().unanswered == 1


def test_a_server_without_known_metrics_is_not_asked(stub: Stub) -> None:
    with sampling(
        Endpoint(url=stub.url, metrics_url=f"{stub.url}/metrics", about=ServerDetails())
    ) as sampler:
        assert sampler is None
    with sampling(Endpoint(url=stub.url, about=ServerDetails(metric_names=NAMES))) as sampler:
        assert sampler is None
    assert not stub.gets
