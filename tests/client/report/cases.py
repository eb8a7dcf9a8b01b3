"""Reports on runs that are simulated, with a clock that the simulation turns.

Record, sampler, rules and page are the real ones; only the server is not. What real servers write
is in `tests/data/metrics`, and read in `tests/facts/test_metrics_page.py`.
"""

from __future__ import annotations

import functools
import heapq
import math
import random
from dataclasses import dataclass, field, replace
from typing import Any

from flytekitplugins.inference.client.record import PendingRequest, Record
from flytekitplugins.inference.client.report.advice import advise
from flytekitplugins.inference.client.report.data import ReportData, ServerData
from flytekitplugins.inference.client.report.json_fields import from_json
from flytekitplugins.inference.client.report.metrics import Sampler
from flytekitplugins.inference.client.report.snapshots import (
    BatchStats,
    ClientStats,
    ColdStart,
    ServerInfo,
)
from flytekitplugins.inference.facts.metrics_page import MetricsPage

EPOCH = 1_795_000_000.0
BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, math.inf)
HOSTILE = (
    '<script>alert(1)</script>"><img src=x onerror=alert(2)></style></title></svg>$x^2$ '
    "\u202e\x00\ud800 &amp;"
)


@dataclass
class Run:
    """One task that asks one server: `clients` at a time for as long as there is work."""

    clients: int = 24
    slots: int = 16
    seconds: float = 600.0
    pauses: tuple[tuple[float, float], ...] = ()
    """Stretches in which the task asks nothing."""
    outages: tuple[tuple[float, float], ...] = ()
    failing: float = 0.0
    tells_metrics: bool = True
    now: float = 0.0
    chance: random.Random = field(default_factory=lambda: random.Random(11))

    def __post_init__(self) -> None:
        self.record = Record(lambda: self.now, lambda: EPOCH)
        self.sampler = Sampler(
            "http://localhost:1/metrics", {}, clock=lambda: self.now, wall_clock=lambda: EPOCH
        )
        self.page = MetricsPage(
            values=dict.fromkeys(("prompt_tokens", "generation_tokens", "preemptions"), 0.0)
        )
        for name in ("time_to_first_token", "inter_token_latency", "request_latency", "queue_time"):
            self.page.buckets[name] = dict.fromkeys(BOUNDS, 0.0)
            self.page.sums[name] = 0.0

    def go(self) -> Run:  # noqa: C901 (one simulation)
        events: list[tuple[float, int, Any]] = []
        turn = 0

        def at(moment: float, what: Any) -> None:
            nonlocal turn
            turn += 1
            heapq.heappush(events, (moment, turn, what))

        running: list[PendingRequest] = []
        queue: list[PendingRequest] = []

        def begin() -> None:
            pause = next((end for start, end in self.pauses if start <= self.now < end), None)
            if self.now >= self.seconds:
                return
            if pause is not None:
                at(pause + self.chance.random(), begin)
                return
            queue.append(self.record.begin("POST /v1/chat/completions"))
            work()

        def work() -> None:
            away = next((end for start, end in self.outages if start <= self.now < end), None)
            while queue and len(running) < self.slots and away is None:
                request = queue.pop(0)
                running.append(request)
                tokens = int(self.chance.lognormvariate(5, 0.55))
                first = 0.05 + 0.12 * self.chance.random() + self.now - request.began
                token = 0.012 + 0.0012 * len(running)
                request.first_byte_seconds = first
                at(
                    self.now + 0.1 + tokens * token,
                    functools.partial(end, request, tokens, first, token),
                )

        def end(request: PendingRequest, tokens: int, first: float, token: float) -> None:
            if request not in running:  # the server went away meanwhile
                return
            running.remove(request)
            if self.chance.random() < self.failing:
                request.status = 500
                self.record.end(request)
            else:
                request.status = 200
                self.record.end(request)
                self.page.values["prompt_tokens"] += 420
                self.page.values["generation_tokens"] += tokens
                self._observe("time_to_first_token", first)
                self._observe("inter_token_latency", token)
                self._observe("request_latency", self.now - request.began)
                self._observe("queue_time", max(first - 0.17, 0.001))
            at(self.now, begin)
            work()

        def leave(until: float) -> None:
            self.record.server_left()
            for request in running:
                self.record.repeat("RemoteProtocolError")
                if self.chance.random() < 0.4:
                    self.record.end(
                        request,
                        ConnectionError(f"The answer to {request.name} broke off after 812 bytes."),
                    )
                    at(until, begin)
                else:
                    queue.append(request)
            running.clear()
            self.page.values.update(
                dict.fromkeys(("prompt_tokens", "generation_tokens", "preemptions"), 0.0)
            )
            for name in self.page.buckets:
                self.page.buckets[name] = dict.fromkeys(BOUNDS, 0.0)
                self.page.sums[name] = 0.0

        def come_back() -> None:
            self.record.server_returned()
            work()

        def sample() -> None:
            away = any(start <= self.now < end for start, end in self.outages)
            levels = {
                "requests_running": float(len(running)),
                "requests_waiting": float(len(queue)),
                "kv_cache_usage": min(0.055 * len(running) + 0.02 * self.chance.random(), 1.0)
                if running
                else 0.0,
            }
            page = MetricsPage(
                values={**self.page.values, **levels},
                buckets={name: dict(bounds) for name, bounds in self.page.buckets.items()},
                sums=dict(self.page.sums),
            )
            self.sampler.add(None if away else page, self.now)
            if self.now < self.seconds:
                at(self.now + 5, sample)

        for _ in range(self.clients):
            at(self.chance.random(), begin)
        for start, until in self.outages:
            at(start, functools.partial(leave, until))
            at(until, come_back)
        at(0.0, sample)
        while events and events[0][0] <= self.seconds + 30:
            self.now, _, what = heapq.heappop(events)
            what()
        return self

    def _observe(self, name: str, value: float) -> None:
        self.page.sums[name] += value
        for bound in BOUNDS:
            if value <= bound:
                self.page.buckets[name][bound] += 1

    def server(self, **more: Any) -> ServerData:
        return advised(
            ServerData(
                about=ABOUT,
                clients=stats(self.record),
                metrics=self.sampler.snapshot() if self.tells_metrics else None,
                **more,
            )
        )


ABOUT = ServerInfo(
    kind="VLLM",
    url="http://localhost:8000",
    model="Qwen/Qwen2.5-7B-Instruct",
    image="vllm/vllm-openai:v0.33.0",
    gpus=1,
    cpu="8",
    mem="48Gi",
)


def stats(record: Record) -> ClientStats:
    return from_json(ClientStats, record.snapshot())


def advised(server: ServerData) -> ServerData:
    return replace(server, advice=tuple(advise(server)))


def start_report(*parts: tuple[str, float, float]) -> dict[str, Any]:
    """Return a gate's report; each part with its beginning and end in seconds."""
    return {
        "version": 1,
        "phases": [
            {"name": name, "seconds": end - began, "started": _moment(began), "ended": _moment(end)}
            for name, began, end in parts
        ],
        "total_seconds": max(end for _, _, end in parts),
        "outcome": "ready",
    }


def cold_start(*parts: tuple[str, float, float]) -> ColdStart:
    return from_json(ColdStart, start_report(*parts))


def _moment(seconds: float) -> str:
    return f"2026-11-20T10:{int(seconds // 60):02}:{seconds % 60:06.3f}+00:00"


START = cold_start(
    ("loader.resolve", 0, 1.2),
    ("loader.download", 1.2, 96),
    ("loader.verify", 96, 104),
    ("input_download", 0.4, 22),
    ("server_load", 104, 171),
    ("first_answer", 171, 172.4),
)


def batch(rows: int = 4000, failed: int = 0, **more: Any) -> BatchStats:
    return from_json(BatchStats, summary(rows, failed, **more))


def summary(rows: int = 4000, failed: int = 0, **more: Any) -> dict[str, Any]:
    points = [
        {
            "seconds": float(second),
            "finished": int(rows * second / 590),
            "limit": min(4 + second // 3, 48),
            "in_flight": min(4 + second // 3, 48) - second % 3,
            "rows_per_second": rows / 590 * (1 - math.exp(-second / 40)),
        }
        for second in range(0, 590, 5)
    ]
    failures = [
        {
            "index": 17 * index,
            "id": f"row-{index}",
            "kind": "status 400",
            "message": "the prompt has 9,120 tokens",
            "status": 400,
        }
        for index in range(min(failed, 20))
    ]
    return {
        "path": "results.jsonl",
        "rows": rows,
        "succeeded": rows - failed,
        "failed": failed,
        "resumed": 0,
        "retried": 3,
        "duration": 592.3,
        "rows_per_second": rows / 592.3,
        "prompt_tokens": 420 * rows,
        "completion_tokens": 190 * rows,
        "tokens_per_second": 610 * rows / 592.3,
        "max_concurrency": 512,
        "concurrency": points,
        "failures": failures,
        **more,
    }


def report_data(*servers: ServerData, **more: Any) -> ReportData:
    return ReportData(made=EPOCH + 600, servers=servers, **more)


def healthy() -> ReportData:
    return report_data(Run(clients=18).go().server(cold_start=START, batches=(batch(),)))


def troubled() -> ReportData:
    run = Run(
        clients=40,
        failing=0.03,
        outages=((180.0, 231.0), (402.0, 420.0)),
        pauses=((60.0, 110.0), (260.0, 350.0), (440.0, 580.0)),
    ).go()
    run.page.values["preemptions"] = 37
    run.sampler.add(MetricsPage(values=dict(run.page.values)), run.now + 1)
    server = run.server(cold_start=START, batches=(batch(failed=140),))
    return report_data(server, error="ServerNotReadyError: 140 of 4,000 rows failed")


def almost_empty() -> ReportData:
    run = Run(seconds=1)
    request = run.record.begin("POST /v1/chat/completions")
    run.now = 2.4
    request.status = 200
    run.record.end(request)
    return report_data(replace(run.server(), metrics=None), running=True)


def unasked() -> ReportData:
    return report_data(
        ServerData(about=ServerInfo(url="http://localhost:8000"), clients=stats(Record()))
    )


def several() -> ReportData:
    one = replace(Run(clients=4, seconds=200).go().server(cold_start=START), name="embedder")
    two = replace(Run(clients=30, seconds=200, tells_metrics=False).go().server(), name="chat")
    return report_data(one, two)


def hostile() -> ReportData:
    run = Run(clients=3, seconds=60).go()
    for _ in range(30):
        run.record.end(run.record.begin(f"POST /{HOSTILE}"), ValueError(HOSTILE * 20))
        run.record.repeat(HOSTILE)
    failures = [{"index": 1, "id": HOSTILE, "kind": HOSTILE, "message": HOSTILE, "status": None}]
    server = run.server(
        cold_start=cold_start((f"loader.adapter.{HOSTILE}", 0, 90), ("server_load", 90, 100)),
        batches=(batch(failed=1, failures=failures),),
        name=HOSTILE,
    )
    texts = dict.fromkeys(("kind", "url", "model", "image", "cpu", "mem"), HOSTILE)
    about = from_json(ServerInfo, texts)
    return report_data(replace(server, about=about), replace(server, about=about), error=HOSTILE)


CASES = {
    "healthy": healthy,
    "troubled": troubled,
    "almost_empty": almost_empty,
    "unasked": unasked,
    "several": several,
    "hostile": hostile,
}
